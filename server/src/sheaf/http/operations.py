"""Finds the operation that a body asks for by its `operation`, where the URL names the model alone."""

from __future__ import annotations

from functools import cache, cached_property
from typing import Any, TypeAlias, cast

from sheaf.http._routes import OPERATIONS
from sheaf_client.contracts.base import BaseRequest
from sheaf_client.contracts.problem import Fault
from sheaf_client.errors import InvalidRequestError
from sheaf_client.protocol import Operation

AnyOperation: TypeAlias = Operation[Any, Any]


@cache
def operations_of(model_type: str) -> Operations:
    """The operations of a model type."""
    return Operations(model_type)


class Operations:
    """The operations of one model type, the primary one first."""

    def __init__(self, model_type: str) -> None:
        self._all = [op for op in OPERATIONS if op.model_type == model_type]
        self._by_name: dict[str, AnyOperation] = {op.name: op for op in self._all}
        #: The one operation of a type that has no other.
        self.only: AnyOperation | None = self._all[0] if len(self._all) == 1 else None

    @cached_property
    def fields(self) -> frozenset[str]:
        """Names of all that requests may have, in Python and on the wire."""
        found: set[str] = set()
        for operation in self._all:
            kind: type[BaseRequest] = operation.request
            found.update(kind.model_fields, (field.wire for field in kind.__binary__.values()))
        return frozenset(found)

    def named(self, name: str) -> AnyOperation | None:
        """The operation of that name, as a URL has it."""
        return self._by_name.get(name)

    def asked_for(self, content: Any) -> AnyOperation:
        """The operation that a body asks for: the primary one where it names none.

        Raises `InvalidRequestError` for a name that is none of the others'.
        """
        members = cast("dict[str, Any]", content) if isinstance(content, dict) else {}
        primary, *others = self._all
        if not others or "operation" not in members:
            return primary
        for operation in others:
            if operation.name == members["operation"]:
                return operation
        names = ", ".join(operation.name for operation in others)
        fault = Fault(
            code="not_allowed", path="/operation", message=f"Must be {names}, or absent for {primary.name}."
        )
        raise InvalidRequestError("There is no such operation.", errors=[fault])
