"""The base of every generated contract: strict about numbers, and it runs the schema's cross-field rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from sheaf_client._binary import base64_of, binary_equal, shape_tensors
from sheaf_client._binary_fields import BinaryField, read_table
from sheaf_client._bounded import stop_at_first
from sheaf_client._rules import Rule, breaches, compile_rules


def _as_is(model: Any) -> Any:
    return model


def _checked(model: Any) -> Any:
    """The contract, its tensors in their shapes; raises `ValidationError` where a rule is broken."""
    binary = model.__binary__
    faults = shape_tensors(model, binary) if binary else []
    found = breaches(model.__rules__, model.__dict__)
    if not (found or faults):
        return model
    faults += [
        InitErrorDetails(type=PydanticCustomError(code, "{reason}", {"reason": message}), loc=loc, input=None)
        for code, loc, message in found
    ]
    raise ValidationError.from_exception_data(type(model).__name__, faults)


class Model(BaseModel):
    """A contract. NaN and infinity are refused everywhere; unknown members where the schema says so."""

    model_config = ConfigDict(
        allow_inf_nan=False,
        protected_namespaces=(),
        ser_json_bytes="base64",
        val_json_bytes="base64",
        # Binary fields have a plain name in Python and another on the wire; servers read the wire's alone.
        serialize_by_alias=True,
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
    )

    #: Fields that hold tensors or media, by name; empty for most contracts.
    __binary__: ClassVar[Mapping[str, BinaryField]] = {}
    __rules__: ClassVar[tuple[Rule, ...]] = ()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        extra: object = cls.model_config.get("json_schema_extra")
        if isinstance(extra, dict):
            known = cast("Mapping[str, Any]", extra)
            cls.__rules__ = compile_rules(known.get("x-sheaf-rules", ()))
            cls.__binary__ = read_table(known.get("x-sheaf-binary", {}))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Its fields' own checks, then its rules and tensors where it has any: most parts have none."""
        fields = handler(source)
        stop_at_first(handler.resolve_ref_schema(fields))
        extra: object = cls.model_config.get("json_schema_extra")
        ruled = isinstance(extra, dict) and not extra.keys().isdisjoint(("x-sheaf-rules", "x-sheaf-binary"))
        # Never bare: of a schema that is a model's alone, validators made from it (`_strict`) take the
        # model's own instead.
        return core_schema.no_info_after_validator_function(_checked if ruled else _as_is, fields)

    def _base64(self, field: str) -> Any:
        """A binary field as JSON carries it."""
        return base64_of(getattr(self, field))

    def __eq__(self, other: object) -> bool:
        if type(self).__binary__ and isinstance(other, Model) and type(other) is type(self):
            return binary_equal(self, other, type(self).__binary__)
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]


class OpenModel(Model):
    """An object that may hold members beyond its contract's; all are read by their names, as in a dict."""

    def __getitem__(self, name: str) -> Any:
        """The member of that name; raises `KeyError` where there is none."""
        further = self.model_extra or {}
        if name in further:  # which may be called like a method
            return further[name]
        if name not in type(self).model_fields:
            raise KeyError(name)
        return getattr(self, name)

    def __contains__(self, name: object) -> bool:
        return name in type(self).model_fields or name in (self.model_extra or {})

    def get(self, name: str, default: Any = None) -> Any:
        """The member of that name, or `default`."""
        try:
            return self[name]
        except KeyError:
            return default
