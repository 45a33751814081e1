"""The binary fields of a contract as a whole: tensors in the shapes that it says, base64 text, equality."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from pydantic_core import InitErrorDetails, PydanticCustomError

from sheaf_client._binary_fields import BinaryField, Loc, each

if TYPE_CHECKING:
    from sheaf_client._base import Model


def shape_tensors(model: Model, table: Mapping[str, BinaryField]) -> list[InitErrorDetails]:
    """Turn bytes into arrays of the shape that the siblings say; return what does not fit."""
    faults: list[InitErrorDetails] = []
    for field in table.values():
        value = getattr(model, field.name)
        if field.dtype is None or value is None:
            continue
        shape = tuple(_size(model, entry) for entry in field.shape)
        if any(size is None for size in shape):
            continue  # the sibling is missing, which a rule tells
        fit = partial(_shaped, field=field, shape=cast("tuple[int, ...]", shape), faults=faults)
        # Set as Pydantic's own validators do: past frozen fields and assignment checks.
        object.__setattr__(model, field.name, each(value, fit, (field.wire,)))
    return faults


def _shaped(
    item: Any, loc: Loc, *, field: BinaryField, shape: tuple[int, ...], faults: list[InitErrorDetails]
) -> Any:
    from sheaf_client._tensor import shaped

    try:
        return shaped(item, str(field.dtype), shape, missing=field.missing)
    except PydanticCustomError as error:
        faults.append(InitErrorDetails(type=error, loc=loc, input=None))
        return item


def _size(model: Model, entry: int | str) -> int | None:
    if isinstance(entry, int):
        return entry
    value = getattr(model, entry.removeprefix("len(").removesuffix(")"))
    if value is None:
        return None
    return len(value) if entry.startswith("len(") else int(value)


def base64_of(value: Any) -> Any:
    """A tensor, media, list or mapping of them as base64 text."""
    return each(value, lambda item, _: None if item is None else _leaf_base64(item))


def _leaf_base64(item: Any) -> str:
    from sheaf_client._media import Media
    from sheaf_client._tensor import to_bytes

    data = item.bytes if isinstance(item, Media) else to_bytes(item)
    return base64.b64encode(data).decode("ascii")


def binary_equal(one: Model, other: Model, table: Mapping[str, BinaryField]) -> bool:
    """Equality of contracts with arrays in them, which Python's `==` cannot tell."""
    for name in type(one).model_fields:
        a, b = getattr(one, name), getattr(other, name)
        if name in table:
            a, b = base64_of(a), base64_of(b)
        if a != b:
            return False
    return True
