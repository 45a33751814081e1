"""Whole bodies as MessagePack.

A body has the same members as in JSON, but tensors and media are raw bytes instead of base64 text. Reading
one puts a mark in the place of each such member and lets the strict JSON validation do the rest, so that
both encodings have the same rules, codes and paths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeVar, cast, get_args, get_origin

from sheaf_client._base import Model
from sheaf_client._binary_fields import Loc, each
from sheaf_client._bounded import trimmed
from sheaf_client._context import BLOB_MARK, BLOBS, WIRE

ModelT = TypeVar("ModelT", bound=Model)
MSGPACK_TYPE = "application/msgpack"


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
