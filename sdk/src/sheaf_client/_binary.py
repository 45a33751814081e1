"""The binary fields of contracts: giving tensors their shapes, and whole bodies as MessagePack.

In MessagePack a body has the same members as in JSON, but tensors and media are raw bytes instead of
base64 text. Reading one puts a mark in the place of each such member and lets the strict JSON validation
do the rest, so that both encodings have the same rules, codes and paths.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic_core import InitErrorDetails, PydanticCustomError

from sheaf_client._context import BLOB_MARK, BLOBS, WIRE

if TYPE_CHECKING:
    from sheaf_client._base import Model

ModelT = TypeVar("ModelT", bound="Model")
MSGPACK_TYPE = "application/msgpack"


@dataclass(frozen=True)
class BinaryField:
    """A field that holds a tensor or media, or a list or mapping of them."""

    name: str
    wire: str
    container: str
    dtype: str | None = None
    shape: tuple[int | str, ...] = ()


def read_table(table: Mapping[str, Any]) -> dict[str, BinaryField]:
    """The generated table of a contract's binary fields."""
    return {
        name: BinaryField(
            name=name,
            wire=entry["wire"],
            container=entry["container"],
            dtype=entry["tensor"]["dtype"] if "tensor" in entry else None,
            shape=tuple(entry["tensor"]["shape"]) if "tensor" in entry else (),
        )
        for name, entry in table.items()
    }


def shape_tensors(model: Model, table: Mapping[str, BinaryField]) -> list[InitErrorDetails]:
    """Turn bytes into arrays of the shape that the siblings say; return what does not fit."""
    if not table:
        return []
    from sheaf_client._tensor import shaped

    faults: list[InitErrorDetails] = []
    for field in table.values():
        if field.dtype is None:
            continue
        shape = tuple(_size(model, entry) for entry in field.shape)
        if any(size is None for size in shape):
            continue  # the sibling is missing, which a rule tells
        value = getattr(model, field.name)
        items = _items(value, field.container)
        done: dict[str | int, Any] = {}
        for key, item in items:
            try:
                done[key] = shaped(item, field.dtype, cast("tuple[int, ...]", shape))
            except PydanticCustomError as error:
                loc = (field.wire,) if field.container == "none" else (field.wire, key)
                faults.append(InitErrorDetails(type=error, loc=loc, input=None))
        if not faults and value is not None:
            model.__dict__[field.name] = _rebuilt(value, done, field.container)
    return faults


def _size(model: Model, entry: int | str) -> int | None:
    if isinstance(entry, int):
        return entry
    name = entry.removeprefix("len(").removesuffix(")")
    value = getattr(model, name)
    if value is None:
        return None
    return len(value) if entry.startswith("len(") else int(value)


def _items(value: Any, container: str) -> Iterable[tuple[str | int, Any]]:
    if value is None:
        return []
    if container == "none":
        return [("", value)]
    return enumerate(value) if container == "list" else value.items()


def _rebuilt(value: Any, done: Mapping[str | int, Any], container: str) -> Any:
    if container == "none":
        return done[""]
    return list(done.values()) if container == "list" else dict(done)


def base64_of(value: Any) -> Any:
    """A tensor, media, list or mapping of them as base64 text."""
    import base64

    from sheaf_client._media import Media
    from sheaf_client._tensor import to_bytes

    if value is None:
        return None
    if isinstance(value, list):
        return [base64_of(item) for item in cast("list[Any]", value)]
    if isinstance(value, Mapping):
        return {key: base64_of(item) for key, item in cast("Mapping[str, Any]", value).items()}
    return value.base64 if isinstance(value, Media) else base64.b64encode(to_bytes(value)).decode("ascii")


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
    """Bytes in the binary fields of a contract."""
    return sum(_length(value) for value in _values(model))


def _values(model: Model) -> Iterator[Any]:
    for field in type(model).__binary__.values():
        yield from (item for _, item in _items(getattr(model, field.name), field.container))


def _length(value: Any) -> int:
    return int(getattr(value, "nbytes", 0)) or len(value)


def pack(models: Model | list[Model | Any], *, key: str | None = None, exclude_none: bool = False) -> bytes:
    """A contract as MessagePack; with `key` a list of them as the one member of an object."""
    import msgspec

    def plain(model: Any) -> Any:
        return model.model_dump(context={WIRE: True}, exclude_none=exclude_none)

    body = {key: [plain(m) for m in cast("list[Any]", models)]} if key else plain(models)
    return msgspec.msgpack.encode(body)


def unpack(body: bytes) -> Any:
    """The value in a MessagePack body; raises `ValueError` where it is none."""
    import msgspec

    try:
        return msgspec.msgpack.decode(body)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from None


def validate_unpacked(kind: type[ModelT], value: Any, *, strict: bool, by_name: bool = True) -> ModelT:
    """The contract in an unpacked value, by the rules that hold for JSON."""
    import pydantic_core

    blobs: list[bytes] = []
    marked = _mark(kind, value, blobs)
    text = pydantic_core.to_json(marked, bytes_mode="base64")
    return kind.model_validate_json(
        text, strict=strict, context={BLOBS: blobs}, by_alias=True, by_name=by_name
    )


def _mark(kind: type[Model], value: Any, blobs: list[bytes]) -> Any:
    """The value with a mark in the place of each binary member's bytes."""
    if not isinstance(value, dict):
        return value
    marked = dict(cast("dict[str, Any]", value))
    for field in kind.__binary__.values():
        member = marked.get(field.wire)
        if field.container == "list" and isinstance(member, list):
            marked[field.wire] = [_stow(item, blobs) for item in cast("list[Any]", member)]
        elif field.container == "dict" and isinstance(member, dict):
            items = cast("dict[str, Any]", member).items()
            marked[field.wire] = {key: _stow(item, blobs) for key, item in items}
        elif isinstance(member, bytes):
            marked[field.wire] = _stow(member, blobs)
    return marked


def _stow(item: Any, blobs: list[bytes]) -> Any:
    if not isinstance(item, bytes):
        return item
    blobs.append(item)
    return f"{BLOB_MARK}{len(blobs) - 1}"
