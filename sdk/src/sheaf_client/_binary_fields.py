"""What a contract says of its binary fields, and the bytes in one; tensors and media stand on this."""

from __future__ import annotations

import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pydantic_core import PydanticCustomError

from sheaf_client._context import BLOB_MARK, BLOBS

Loc = tuple[str | int, ...]


@dataclass(frozen=True)
class BinaryField:
    """A field that holds a tensor or media, or lists and mappings of them."""

    name: str
    wire: str
    dtype: str | None = None
    shape: tuple[int | str, ...] = ()
    #: Whether NaN stands for missing values of the tensor.
    missing: bool = False


def read_table(table: Mapping[str, Any]) -> dict[str, BinaryField]:
    """The generated table of a contract's binary fields."""
    return {
        name: BinaryField(
            name=name,
            wire=entry["wire"],
            dtype=entry["tensor"]["dtype"] if "tensor" in entry else None,
            shape=tuple(entry["tensor"]["shape"]) if "tensor" in entry else (),
            missing=entry.get("tensor", {}).get("missing", False),
        )
        for name, entry in table.items()
    }


def each(value: Any, visit: Callable[[Any, Loc], Any], loc: Loc = ()) -> Any:
    """The value with each leaf of its lists and mappings visited: binary fields hold one value or many."""
    if isinstance(value, list):
        members = cast("Sequence[Any]", value)
        return [each(item, visit, (*loc, i)) for i, item in enumerate(members)]
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return {key: each(item, visit, (*loc, key)) for key, item in items}
    return visit(value, loc)


def read_bytes(value: Any, context: Any) -> bytes:
    """The bytes that base64 text, raw bytes or a mark in a MessagePack body stand for."""
    if not isinstance(value, str):
        return value if isinstance(value, bytes) else bytes(value)
    if value.startswith(BLOB_MARK):
        blobs: list[bytes] = cast("dict[str, Any]", context or {}).get(BLOBS, [])
        number = value.removeprefix(BLOB_MARK)
        if number.isdigit() and int(number) < len(blobs):
            return blobs[int(number)]
    try:
        return binascii.a2b_base64(value.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        raise PydanticCustomError("bad_format", "Must be base64 text.") from None
