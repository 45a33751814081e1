"""Contracts read with the kinds of numbers they name: text is no number, and a flag is no count.

Pydantic would take `horizon="12"` and `seed=True` without a word, which a server or another language refuses.
Strictness as a whole would go too far: names of choices, times and identifiers are given as text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic_core import SchemaValidator

from sheaf_client._bounded import trimmed

if TYPE_CHECKING:
    from sheaf_client.contracts.base import BaseRequest

    RequestT = TypeVar("RequestT", bound=BaseRequest)

_KINDS = frozenset({"int", "float", "bool"})


def validate_strictly(kind: type[RequestT], body: Mapping[str, Any]) -> RequestT:
    """The contract in a body of Python values; raises `pydantic.ValidationError`."""
    return cast("RequestT", _validator(kind).validate_python(trimmed(kind, body)))


@cache
def _validator(kind: type[BaseRequest]) -> SchemaValidator:
    return SchemaValidator(_strict(kind.__pydantic_core_schema__))


def _strict(node: Any) -> Any:
    if isinstance(node, dict):
        members = cast("Mapping[Any, Any]", node)
        out = {key: _strict(value) for key, value in members.items()}
        # A field may itself be called `type`; then a schema stands there, not a kind.
        kind = members.get("type")
        return {**out, "strict": True} if isinstance(kind, str) and kind in _KINDS else out
    if isinstance(node, list | tuple):
        items = [_strict(item) for item in cast("Sequence[Any]", node)]
        return items if isinstance(node, list) else tuple(items)
    return node
