"""The operations of each model type, and which of them a body asks for by its `operation`.

The table is generated, and names alone; a type's contracts are imported when its operations are asked for, so
that a process pays for the types that it serves.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, cached_property
from importlib import import_module
from typing import Any, TypeAlias, cast

from sheaf.api.operations import OPERATIONS
from sheaf_client.contracts.base import BaseRequest
from sheaf_client.contracts.problem import Fault
from sheaf_client.errors import InvalidRequestError
from sheaf_client.protocol import Operation

AnyOperation: TypeAlias = Operation[Any, Any]


def names_of(model_type: str) -> tuple[str, ...]:
    """The names of a type's operations, the primary one first; none of a type that the schema has not."""
    named = OPERATIONS.get(model_type)
    return named.names if named else ()


@cache
def operations_of(model_type: str) -> Operations:
    """The operations of a model type; raises `LookupError` where the schema has none of that name."""
    return Operations(model_type)


@cache
def all_operations() -> tuple[AnyOperation, ...]:
    """The operations of all model types; this imports every contract."""
    return tuple(operation for model_type in OPERATIONS for operation in operations_of(model_type))


class Operations:
    """The operations of one model type, the primary one first."""

    def __init__(self, model_type: str) -> None:
        named = OPERATIONS.get(model_type)
        if named is None:
            raise LookupError(f"no model type is called {model_type!r}; there are {', '.join(OPERATIONS)}")
        module: Any = import_module(named.module)
        self._by_name: dict[str, AnyOperation] = {name: getattr(module, name.upper()) for name in named.names}
        self._all = tuple(self._by_name.values())
        #: The one operation of a type that has no other.
        self.only: AnyOperation | None = self._all[0] if len(self._all) == 1 else None

    def __iter__(self) -> Iterator[AnyOperation]:
        return iter(self._all)

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

        Raises `InvalidRequestError` where `operation` names none of the others.
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
