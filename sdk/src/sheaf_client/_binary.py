"""The binary fields of contracts: giving tensors their shapes, and whole bodies as MessagePack.

In MessagePack a body has the same members as in JSON, but tensors and media are raw bytes instead of
base64 text. Reading one puts a mark in the place of each such member and lets the strict JSON validation
do the rest, so that both encodings have the same rules, codes and paths.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args, get_origin

from pydantic_core import InitErrorDetails, PydanticCustomError

from sheaf_client._bounded import trimmed
from sheaf_client._context import BLOB_MARK, BLOBS, WIRE

if TYPE_CHECKING:
    from sheaf_client._base import Model

ModelT = TypeVar("ModelT", bound="Model")
Loc = tuple[str | int, ...]
MSGPACK_TYPE = "application/msgpack"


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


def each(value: Any, visit: Callable[[Any, Loc], Any], loc: Loc = ()) -> Any:
    """The value with each leaf of its lists and mappings visited: binary fields hold one value or many."""
    if isinstance(value, list):
        members = cast("Sequence[Any]", value)
        return [each(item, visit, (*loc, i)) for i, item in enumerate(members)]
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return {key: each(item, visit, (*loc, key)) for key, item in items}
    return visit(value, loc)


def _size(model: Model, entry: int | str) -> int | None:
    if isinstance(entry, int):
        return entry
    value = getattr(model, entry.removeprefix("len(").removesuffix(")"))
    if value is None:
        return None
    return len(value) if entry.startswith("len(") else int(value)


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


def binary_size(model: Model) -> int:
    """Bytes in the binary fields of a contract and of the contracts that it holds in lists."""
    sizes: list[int] = []
    for field in type(model).__binary__.values():
        each(getattr(model, field.name), lambda item, _: sizes.append(_length(item)))
    for name in holders(type(model)):
        sizes += [binary_size(item) for item in getattr(model, name) or ()]
    return sum(sizes)


@cache
def holders(kind: type[Model]) -> Mapping[str, type[Model]]:
    """The fields that hold lists of contracts with binary fields, and which contracts."""
    found: dict[str, type[Model]] = {}
    for name, info in kind.model_fields.items():
        for branch in get_args(info.annotation) or (info.annotation,):
            items = get_args(branch) if get_origin(branch) is list else ()
            if items and getattr(items[0], "__binary__", None):
                found[name] = items[0]
    return found


def _length(item: Any) -> int:
    return 0 if item is None else int(getattr(item, "nbytes", 0)) or len(item)


def pack(models: Model | Sequence[Model], *, key: str | None = None, exclude_none: bool = False) -> bytes:
    """A contract as MessagePack; with `key` a list of them as the one member of an object."""
    import msgspec

    def plain(model: Any) -> Any:
        return model.model_dump(context={WIRE: True}, exclude_none=exclude_none)

    body = {key: [plain(m) for m in cast("Sequence[Model]", models)]} if key else plain(models)
    return msgspec.msgpack.encode(body)


def unpack(body: bytes) -> Any:
    """The value in a MessagePack body; raises `ValueError` where it is none that JSON has, too."""
    import msgspec

    def refuse(code: int, _: memoryview) -> Any:
        raise ValueError(f"extension type {code} is no type of a contract")

    try:
        return msgspec.msgpack.decode(body, ext_hook=refuse)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from None


def validate_unpacked(kind: type[ModelT], value: Any, *, strict: bool, by_name: bool = True) -> ModelT:
    """The contract in an unpacked value, by the rules that hold for JSON."""
    import pydantic_core

    blobs: list[bytes] = []
    marked = _mark(kind, trimmed(kind, value), blobs)
    text = pydantic_core.to_json(marked, bytes_mode="base64")
    return kind.model_validate_json(
        text, strict=strict, context={BLOBS: blobs}, by_alias=True, by_name=by_name
    )


def _mark(kind: type[Model], value: Any, blobs: list[bytes]) -> Any:
    """The value with a mark in the place of each binary member's bytes."""
    if not isinstance(value, dict):
        return value

    def stow(item: Any, _: Loc) -> Any:
        if not isinstance(item, bytes):
            return item
        blobs.append(item)
        return f"{BLOB_MARK}{len(blobs) - 1}"

    marked = dict(cast("dict[str, Any]", value))
    for field in kind.__binary__.values():
        if field.wire in marked:
            marked[field.wire] = each(marked[field.wire], stow)
    for name, item in holders(kind).items():
        if isinstance(marked.get(name), list):
            marked[name] = [_mark(item, part, blobs) for part in cast("Sequence[Any]", marked[name])]
    return marked
