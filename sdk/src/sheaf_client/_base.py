"""The base of every generated contract: strict about numbers, and it runs the schema's cross-field rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self, cast

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from sheaf_client._rules import Rule, compile_rules


class Model(BaseModel):
    """A contract. NaN and infinity are refused everywhere; unknown members where the schema says so."""

    model_config = ConfigDict(
        allow_inf_nan=False,
        protected_namespaces=(),
        ser_json_bytes="base64",
        val_json_bytes="base64",
        use_attribute_docstrings=True,
    )

    __rules__: ClassVar[tuple[Rule, ...]] = ()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        extra: object = cls.model_config.get("json_schema_extra")
        if isinstance(extra, dict):
            cls.__rules__ = compile_rules(cast("Mapping[str, Any]", extra).get("x-sheaf-rules", ()))

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        faults = [
            InitErrorDetails(
                type=PydanticCustomError(code, "{reason}", {"reason": message}), loc=loc, input=None
            )
            for rule in self.__rules__
            for code, loc, message in rule(self)
        ]
        if faults:
            raise ValidationError.from_exception_data(type(self).__name__, faults)
        return self
