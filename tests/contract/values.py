"""Builds bodies that a schema of the published document allows, from any source of choices.

One builder serves two: echoed answers choose by a hash of their request, requests by hypothesis. It reads
the document alone and knows no model type.
"""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import wave
import zlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import Any, Protocol, TypeVar
from uuid import UUID

import numpy as np

T = TypeVar("T")
JSON = dict[str, Any]

#: Longest arrays, texts and mappings beyond the shortest that a schema asks for.
SPARE = 3
#: Stands for a tensor that may be null and must not.
WANTED = object()
#: Integers that every language holds exactly.
LARGEST = 2**53 - 1


class Source(Protocol):
    """Where choices come from. All bounds are included."""

    def integer(self, low: int, high: int) -> int: ...
    def number(self, low: float, high: float) -> float: ...
    def text(self, shortest: int, longest: int, pattern: str | None) -> str: ...
    def pick(self, options: Sequence[T]) -> T: ...


@cache
def document() -> JSON:
    """The document that servers publish."""
    return json.loads(files("sheaf.http").joinpath("document/openapi.json").read_text(encoding="utf-8"))


def schemas() -> dict[str, JSON]:
    """Its named schemas."""
    return document()["components"]["schemas"]


class Builder:
    """Builds values of schemas. Tensors come last: their shapes are those of their siblings."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def body(
        self, name: str, given: JSON, repair: Callable[[Builder, JSON, JSON], None] | None = None
    ) -> JSON:
        """An object of the schema called `name`, with the members of `given` as they are."""
        schema = schemas()[name]
        members = {k: self.member(schema, k) for k in schema["properties"] if k not in given}
        body = {
            k: v
            for k, v in members.items()
            if k in schema["required"] or self.source.pick([True, True, False])
        }
        body.update(given)
        if repair is not None:
            repair(self, schema, body)
        return {k: self._filled(v, schema["properties"][k], schema, body) for k, v in body.items()}

    def member(self, schema: JSON, name: str) -> Any:
        """A value of one member; those that say how long another is stay small."""
        member = schema["properties"][name]
        return self.integer(member, most=SPARE) if name in sizes(schema) else self.value(member)

    def value(self, schema: JSON) -> Any:
        """A value of any schema; a tensor's place holds None."""
        if "$ref" in schema:
            return self.value(schemas()[schema["$ref"].rpartition("/")[2]])
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self.source.pick(schema["enum"])
        if "anyOf" in schema:
            return self.value(self.source.pick(schema["anyOf"]))
        kind = schema["type"]
        if isinstance(kind, list):
            kind = self.source.pick([kind[0], *kind])  # a value more often than null
        return getattr(self, f"_{kind}")(schema)

    def items(self, schema: JSON, count: int, kept: Sequence[Any] = ()) -> list[Any]:
        """`count` items of an array, the first of them those kept; all different where they must be."""
        schema = resolved(schema)
        out = list(kept[:count])
        for attempt in range(100 * (count + 1)):
            if len(out) == count:
                break
            item = self.value(schema["items"])
            if not schema.get("uniqueItems") or item not in out:
                out.append(item)
            assert attempt < 100 * count, f"no {count} different items of {schema}"
        return out

    def integer(self, schema: JSON, most: int | None = None) -> int:
        """A whole number within its bounds, at most `most` above the least."""
        step = schema.get("multipleOf", 1)
        low = -(-schema.get("minimum", schema.get("exclusiveMinimum", -LARGEST - 1) + 1) // step)
        high = schema.get("maximum", schema.get("exclusiveMaximum", LARGEST + 1) - 1) // step
        return step * self.source.integer(low, high if most is None else min(high, low + most))

    def name(self) -> str:
        """A key of a mapping."""
        return self.source.text(1, 8, None)

    def _integer(self, schema: JSON) -> int:
        return self.integer(schema)

    def _number(self, schema: JSON) -> float:
        low, high = schema.get("minimum", -1e9), schema.get("maximum", 1e9)
        if "exclusiveMinimum" in schema:
            low = np.nextafter(schema["exclusiveMinimum"], np.inf)
        if "exclusiveMaximum" in schema:
            high = np.nextafter(schema["exclusiveMaximum"], -np.inf)
        return self.source.number(float(low), float(high))

    def _boolean(self, schema: JSON) -> bool:
        return self.source.pick([False, True])

    def _null(self, schema: JSON) -> None:
        return None

    def _string(self, schema: JSON) -> str | None:
        if "x-sheaf-tensor" in schema:
            return None
        if "x-sheaf-media" in schema:
            return base64.b64encode(_FILES[schema["x-sheaf-media"]](self.source)).decode()
        if schema.get("format") == "uuid":
            return str(UUID(int=self.source.integer(1, 2**128 - 1)))
        pattern = schema.get("pattern")
        if schema.get("format") == "date-time" or (pattern and _is_time(pattern)):
            return self.moment()
        shortest = schema.get("minLength", 0)
        return self.source.text(shortest, min(schema.get("maxLength", 2**20), shortest + 4 * SPARE), pattern)

    def moment(self) -> str:
        """A date, or a date and time of day with or without an offset."""
        day = datetime(1970, 1, 1) + timedelta(seconds=self.source.integer(0, 4 * 10**9))
        return self.source.pick(
            [f"{day:%Y-%m-%d}", day.isoformat(), f"{day.isoformat()}Z", f"{day.isoformat()}+05:30"]
        )

    def _array(self, schema: JSON) -> list[Any]:
        least = schema.get("minItems", 0)
        return self.items(
            schema, self.source.integer(least, min(schema.get("maxItems", 2**20), least + SPARE))
        )

    def _object(self, schema: JSON) -> JSON:
        if "properties" in schema:
            body = {k: self.member(schema, k) for k in schema["properties"]}
            required = schema.get("required", ())
            return {k: v for k, v in body.items() if k in required or self.source.pick([True, False])}
        least = schema.get("minProperties", 0)
        names = {self.name() for _ in range(self.source.integer(max(least, 1), least + SPARE))}
        return {name: self.value(schema["additionalProperties"]) for name in sorted(names)}

    def _filled(self, value: Any, schema: JSON, owner: JSON, body: JSON) -> Any:
        """The value with its tensors, however deep in lists and mappings."""
        if value is not None and ("anyOf" in schema or "$ref" in schema):
            schema = resolved(schema)
        if isinstance(value, dict) and "properties" in schema:
            properties = schema["properties"]
            return {k: self._filled(v, properties[k], schema, value) for k, v in value.items()}
        if isinstance(value, list) and "items" in schema:
            return [self._filled(item, schema["items"], owner, body) for item in value]
        if isinstance(value, dict) and isinstance(schema.get("additionalProperties"), dict):
            return {k: self._filled(v, schema["additionalProperties"], owner, body) for k, v in value.items()}
        nullable = "null" in schema.get("type", ())
        if (
            "x-sheaf-tensor" not in schema
            or value not in (None, WANTED)
            or (value is None and nullable and self.source.pick([True, False]))
        ):
            return value
        tensor = schema["x-sheaf-tensor"]
        shape = [_size(entry, owner, body) for entry in tensor["shape"]]
        if None in shape:
            return None  # what its size depends on is not given
        return base64.b64encode(self._numbers(np.dtype(tensor["dtype"]), int(np.prod(shape)))).decode()

    def _numbers(self, dtype: np.dtype[Any], count: int) -> bytes:
        # One choice for the whole tensor: a number for each would drown the other choices.
        random = np.random.default_rng(self.source.integer(0, 2**32 - 1))
        if dtype.kind == "f":
            return random.normal(scale=100, size=count).astype(dtype.newbyteorder("<")).tobytes()
        return random.integers(0, 2, size=count).astype(dtype.newbyteorder("<")).tobytes()


def resolved(schema: JSON) -> JSON:
    """The schema, or the one it refers to; of several branches the first."""
    while "$ref" in schema or "anyOf" in schema:
        schema = schemas()[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema["anyOf"][0]
    return schema


def sizes(schema: JSON) -> set[str]:
    """Members that are sides of tensors."""
    return set(_sides(schema))


def _sides(node: Any) -> list[str]:
    if isinstance(node, list):
        return [side for item in node for side in _sides(item)]
    if not isinstance(node, dict):
        return []
    own = [entry for entry in node.get("x-sheaf-tensor", {}).get("shape", ()) if isinstance(entry, str)]
    return own + [side for value in node.values() for side in _sides(value)]


def _size(entry: int | str, owner: JSON, body: JSON) -> int | None:
    if isinstance(entry, int):
        return entry
    name = entry.removeprefix("len(").removesuffix(")")
    value = body[name] if name in body else owner["properties"][name]["default"]
    return len(value) if value is not None and entry.startswith("len(") else value


def _is_time(pattern: str) -> bool:
    """Whether it is the pattern of points in time: nothing else takes one and refuses a word."""
    return bool(re.search(pattern, "2024-06-01T10:30:00Z")) and not re.search(pattern, "word")


def _png(source: Source) -> bytes:
    """A real PNG file, grey, of a few pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    width, height = source.integer(1, 3), source.integer(1, 3)
    row = bytes([0, *(source.integer(0, 255) for _ in range(width))])
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(row * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _wav(source: Source) -> bytes:
    """A real WAV file, one channel of 16 bits, of a few samples."""
    out = io.BytesIO()
    with wave.open(out, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16000)
        sound.writeframes(bytes(source.integer(0, 255) for _ in range(2 * source.integer(1, 4))))
    return out.getvalue()


_FILES: dict[str, Callable[[Source], bytes]] = {"image": _png, "audio": _wav}
