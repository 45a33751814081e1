"""Changes bodies as attackers and broken clients do: values of decoded JSON, and bytes of any encoding."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from sheaf_client._context import BLOB_MARK

T = TypeVar("T")
#: Longest body that is made, so that thousands of them are quick; a few are beyond what is read at once.
LONGEST = 200_000
#: Values at and beyond what contracts, encodings and languages hold.
EDGES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 255, 2**31, 2**53 + 1, 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**400),
    *(0.0, -0.0, 1.5, 1e308, -1e308, 5e-324, float("nan"), float("inf"), float("-inf")),
    *("", " ", "\x00", "\ud800", "\udfff\ud800", "a\u2028b\x85c", "\ufeff", "𝄞" * 300, "a" * 20_000, "../x"),
    *("NaN", "1e400", "true", "null", "2024-02-30", "2024-12-31T23:59:60Z", "0000-01-01", "٣"),
    *("00000000-0000-0000-0000-000000000000", f"{BLOB_MARK}0", f"{BLOB_MARK}9999999999", f"{BLOB_MARK}-1"),
    *("=", "====", "AAA", "AAAA", "AA==\n", "_-_-", "AA=A", "iVBORw0KGgo=", "UklGRgAAAABXQVZF"),
    *(b"", b"\x00", b"\xff" * 7, b"\x89PNG\r\n\x1a\n" + b"\x00" * 25),
    *([], {}, [[]], [{}], {"": None}, [None] * 40, [[1.0], [1.0, 2.0]], {"requests": []}, {"type": "error"}),
]
#: Pieces that are put into bytes as they are.
_TOKENS = [
    *(b"NaN", b"-Infinity", b"1e400", b"-0", b"01", b"1.", b"9" * 400, b'"\\ud800"', b'"\\u00"', b"\\", b'"'),
    *(
        b"[" * 90,
        b"[" * 9000,
        b"]" * 9,
        b'{"a":' * 90,
        b"null",
        b"\x00",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
    ),
    *(b"//", b"/**/", b",", b",,", b"\r\n\r\n", b"data: {}\n\n", b"\n\n", b"\r", b'{"model_name":"x",'),
    # MessagePack: extension types, times, lengths that lie, and what no type has.
    *(b"\xc1", b"\xd4\x00\x00", b"\xd6\xff\x00\x00\x00\x00", b"\xc7\x0c\xff" + b"\xff" * 12, b"\xc9\xff" * 3),
    *(b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc6\x7f\xff\xff\xff"),
    *(
        b"\x91" * 90,
        b"\x91" * 9000,
        b"\x81" * 90,
        b"\xc0" * 200,
        b"\xca\x7f\xc0\x00\x00",
        b"\xcf" + b"\xff" * 8,
        b"\xa1\xff",
    ),
]


class Mutator:
    """Changes that follow from a seed alone."""

    def __init__(self, seed: object) -> None:
        self._random = random.Random(str(seed))
        self.pick = self._random.choice
        self.below = self._random.randrange

    def chance(self, probability: float) -> bool:
        """Whether something of that probability happens."""
        return self._random.random() < probability

    def weighed(self, options: dict[T, int]) -> T:
        """One of the keys, each as often as its value says."""
        return self._random.choices(list(options), list(options.values()))[0]

    # --- values of decoded JSON

    def value(self, value: Any, other: Any) -> Any:
        """The value with one place in it changed; `other` is a body to take parts from."""
        root = [_copied(value)]
        places = list(_places(root))
        holder, key = self.pick(places)
        change: Callable[[Any, Any], Any] = self.pick(
            [self._edge, self._edge, self._edge, self._other_type, self._other_type, self._part, self._nested]
        )
        match self.below(12):
            case 0 if holder is not root:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[self.pick(["", "x", "\ud800", f"{key} ", "a" * 300, "model_name", "request_id"])] = (
                    holder.pop(key)
                )
            case 2 if isinstance(holder, dict):
                holder[f"{key}_"] = self.pick(EDGES)
            case 3 if isinstance(holder[key], list):
                holder[key] = holder[key] * self.pick([2, 3, 100])
            case 4 if isinstance(holder, list):
                self._random.shuffle(holder)
            case _:
                holder[key] = change(holder[key], other)
        return root[0]

    def _edge(self, value: Any, other: Any) -> Any:
        return _copied(self.pick(EDGES))

    def _other_type(self, value: Any, other: Any) -> Any:
        """What a client of another language might have written for it."""
        forms: list[Any] = [[value], {"value": value}, str(value), value is None]
        if isinstance(value, int | float):
            forms += [-value, value + 1, [value] * 3]
        if isinstance(value, str):
            forms += [
                list(value[:50]),
                value.upper(),
                value.encode(errors="surrogatepass"),
                value[:-1],
                value * 2,
            ]
        if isinstance(value, list):
            forms += [dict(enumerate(map(str, value))), value[:-1], value[0] if value else None]
        if isinstance(value, dict):
            forms += [list(value.values()), list(value.items()), json.dumps(value, default=str)]
        return self.pick(forms)

    def _part(self, value: Any, other: Any) -> Any:
        """A part of another body."""
        holder, key = self.pick(list(_places([other])))
        return _copied(holder[key])

    def _nested(self, value: Any, other: Any) -> Any:
        for _ in range(self.pick([1, 5, 63, 64, 65])):
            value = [value] if self.chance(0.5) else {"a": value}
        return value

    # --- bytes

    def content(self, content: bytes, other: bytes) -> bytes:
        """The bytes with one place changed; `other` is content to take parts from."""
        if not content:
            return self.pick(_TOKENS)
        start = self.below(len(content))
        end = min(len(content), start + self.pick([1, 2, 4, 16, 256]))
        head, part, tail = content[:start], content[start:end], content[end:]
        match self.below(9):
            case 0:
                part = bytes([part[0] ^ 1 << self.below(8)]) + part[1:]
            case 1:
                tail = b""
            case 2:
                part = b""
            case 3:
                part *= self.pick([2, 3, 50])
            case 4:
                tail = other[self.below(len(other) + 1) :]
            case 5 | 6:
                part = self.pick(_TOKENS) + (part if self.chance(0.5) else b"")
            case 7:
                part = bytes(self.below(256) for _ in part)
            case _:
                return self._recoded(content)
        return (head + part + tail)[:LONGEST]

    def _recoded(self, content: bytes) -> bytes:
        """The same text in another form, or with something around it."""
        forms = [
            content + content,
            content + b"\n",
            b" " * 300 + content,
            b"\xef\xbb\xbf" + content,
            b"[" + content,
        ]
        try:
            text = content.decode()
            forms += [text.encode("utf-16"), text.encode("utf-32-le"), text.encode("latin-1", "replace")]
        except UnicodeDecodeError:
            pass
        return self.pick(forms)


def as_json(value: Any, *, ascii_only: bool) -> bytes:
    """JSON with what Python alone writes: NaN, lone surrogates as they are; bytes become text."""
    text = json.dumps(value, ensure_ascii=ascii_only, default=lambda item: item.decode("latin-1"))
    return text.encode(errors="surrogatepass")


def as_msgpack(value: Any) -> bytes | None:
    """MessagePack; None where it has no such value."""
    try:
        return msgspec.msgpack.encode(value)
    except (OverflowError, UnicodeEncodeError, RecursionError):
        return None


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _places(holder: Any) -> Sequence[tuple[Any, Any]]:
    """Each list and object with each of its keys, but few of those of long lists."""
    found: list[tuple[Any, Any]] = []
    keys = list(holder) if isinstance(holder, dict) else range(len(holder))
    for key in keys if len(keys) < 12 else [*keys[:6], *keys[-2:]]:
        found.append((holder, key))
        if isinstance(holder[key], list | dict) and len(found) < 500:
            found += _places(holder[key])
    return found
