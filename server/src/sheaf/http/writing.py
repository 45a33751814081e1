"""Writes documents, those with many numbers in pieces: nobody else runs in this process while one is written.

A million numbers take a fifth of a second, wherever they are written, and a request of a kilobyte can ask for
them. What holds no contracts, files or tensors is the same written part by part.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, Union, cast, get_args, get_origin

import msgspec
from pydantic.fields import FieldInfo
from pydantic_core import to_json

from sheaf_client.protocol import WIRE, Model, binary_size, holders, pack

#: Values that are written at once, and bytes that each takes.
_PIECE, _VALUE = 8192, 20
_SCALARS = frozenset({float, int, str, bool, NoneType})


def encode_document(document: Model, *, packed: bool) -> bytes:
    """An answer or a problem as MessagePack or JSON."""
    fields, names = document.__dict__, _kind(type(document)).plain
    long = [name for name in names if fields[name] and _count(fields[name]) > _PIECE]
    if long:
        return b"".join(_document(document, long, _PACKED if packed else _JSON))
    return encode_short(document, packed=packed)


def encode_short(document: Model, *, packed: bool) -> bytes:
    """`encode_document` for one of a small `size_of`."""
    # `model_dump_json` as bytes, without the text between.
    return pack(document) if packed else document.__pydantic_serializer__.to_json(document)


def size_of(document: Model) -> int:
    """About how many bytes a document takes as JSON, as far as it can be large."""
    kind, fields = _kind(type(document)), document.__dict__
    values = 0
    for name in kind.plain:
        if fields[name]:
            values += _count(fields[name])
    return _VALUE * values + (binary_size(document) if kind.binary else 0)


class _Kind(NamedTuple):
    """What is in documents of a class.

    Attributes:
        plain: The fields that hold lists and mappings of plain values alone, under one name everywhere.
        binary: Whether there are tensors and files.
    """

    plain: tuple[str, ...]
    binary: bool


@cache
def _kind(kind: type[Model]) -> _Kind:
    plain = (
        name
        for name, info in kind.model_fields.items()
        if _is_plain(info.annotation) and _holds_many(info.annotation) and info.serialization_alias is None
    )
    return _Kind(tuple(plain), bool(kind.__binary__ or holders(kind)))


def _holds_many(annotation: Any) -> bool:
    return get_origin(annotation) in (list, dict) or any(map(_holds_many, get_args(annotation)))


def _is_plain(annotation: Any) -> bool:
    """Whether values of a type are written as what they are."""
    if annotation in _SCALARS:
        return True
    if get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        return _is_plain(annotation) and all(type(each) is FieldInfo for each in more)  # bounds alone
    if get_origin(annotation) not in (list, dict, Union, UnionType):
        return False
    return all(map(_is_plain, get_args(annotation)))


def _count(value: Any) -> int:
    """About how many values there are, taking the first of several lists for all."""
    if isinstance(value, list):
        items = cast("Sequence[Any]", value)
        return len(items) * (_count(items[0]) if items and type(items[0]) is not float else 1)
    if isinstance(value, dict):
        members = cast("Mapping[str, Any]", value)
        return len(members) * _count(next(iter(members.values()), None))
    return 1


class _Form(NamedTuple):
    """How values are written.

    Attributes:
        dump: Writes a value.
        listed: Opens a list of so many items.
        items: The items of a list that is written, without what opens and closes it.
        named: Opens an object of so many members.
        joints: What is between items, between a name and its value, and at the end of a list and an object.
    """

    dump: Callable[[Any], bytes]
    listed: Callable[[int], bytes]
    items: Callable[[bytes, int], bytes]
    named: Callable[[int], bytes]
    joints: tuple[bytes, bytes, bytes, bytes]


def _as_json(value: Any) -> bytes:
    return to_json(value, inf_nan_mode="null")


def _json_items(text: bytes, _: int) -> bytes:
    return text[1:-1]


def _json_list(_: int) -> bytes:
    return b"["


def _json_object(_: int) -> bytes:
    return b"{"


def _packed_items(text: bytes, count: int) -> bytes:
    return text[1 if count < 16 else 3 :]


def _packed_list(count: int) -> bytes:
    return b"\xdd" + struct.pack(">I", count)


def _packed_object(count: int) -> bytes:
    return b"\xdf" + struct.pack(">I", count)


_JSON = _Form(_as_json, _json_list, _json_items, _json_object, (b",", b":", b"]", b"}"))
_PACKED = _Form(msgspec.msgpack.encode, _packed_list, _packed_items, _packed_object, (b"", b"", b"", b""))


def _document(document: Model, long: Sequence[str], form: _Form) -> Iterator[bytes]:
    """A document in pieces: first all that is short."""
    comma, colon, _, end = form.joints
    if form is _JSON:
        short = document.__pydantic_serializer__.to_json(document, exclude={*long})
        yield short[:-1]
    else:
        members = document.model_dump(context={WIRE: True}, exclude={*long})
        yield form.named(len(members) + len(long))
        for name, value in members.items():
            yield form.dump(name) + form.dump(value)
    for name in long:
        yield comma + form.dump(name) + colon
        yield from _value(getattr(document, name), form)
    yield end


def _value(value: Any, form: _Form) -> Iterator[bytes]:
    if _count(value) <= _PIECE:
        yield form.dump(value)
    elif isinstance(value, dict):
        yield from _members(cast("Mapping[str, Any]", value), form)
    else:
        yield from _items(cast("Sequence[Any]", value), form)


def _members(members: Mapping[str, Any], form: _Form) -> Iterator[bytes]:
    comma, colon, _, end = form.joints
    yield form.named(len(members))
    for number, (name, value) in enumerate(members.items()):
        yield (comma if number else b"") + form.dump(name) + colon
        yield from _value(value, form)
    yield end


def _items(items: Sequence[Any], form: _Form) -> Iterator[bytes]:
    comma, _, end, _ = form.joints
    yield form.listed(len(items))
    each = _count(items[0])
    if each > _PIECE:
        for number, item in enumerate(items):
            yield comma if number else b""
            yield from _value(item, form)
    else:
        step = _PIECE // each if each else _PIECE
        for start in range(0, len(items), step):
            piece = items[start : start + step]
            yield (comma if start else b"") + form.items(form.dump(piece), len(piece))
    yield end
