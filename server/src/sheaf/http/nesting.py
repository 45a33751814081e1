"""How deep the lists and objects of a body go, told before one of them is built."""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

#: A JSON string, closed or not: one pass over any bytes, whatever quotes are in them.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_BLOCK = 2**20
#: Texts up to this size are copied rather than read twice.
_SHORT = 4096
#: Each list takes twenty times the memory that its brackets take in a body.
_MAX_LISTS = 1_000_000
#: Runs of scalars of one width count as one step; a body of more steps than this is made to be slow.
MAX_STEPS = 3 * _MAX_LISTS


def _steps() -> NDArray[np.int8]:
    steps = np.zeros(256, np.int8)
    steps[list(b"[{")] = 1
    steps[list(b"]}")] = -1
    return steps


_STEPS = _steps()


def is_json_deeper(content: bytes, limit: int) -> bool:
    """Whether a JSON text goes deeper than `limit`, or has more lists and objects than anyone needs.

    Of broken JSON it says what its brackets say.
    """
    if len(content) <= _SHORT:
        brackets = len(content) - len(content.translate(None, b"[{"))  # one pass is half the time of two
    else:
        brackets = content.count(b"[") + content.count(b"{")
    if brackets <= limit:
        return False
    plain = _STRING.sub(b"", content) if b'"' in content else content
    if plain.count(b"[") + plain.count(b"{") > _MAX_LISTS:
        return True
    depth = 0
    for start in range(0, len(plain), _BLOCK):
        steps = _STEPS[np.frombuffer(plain, np.uint8, min(_BLOCK, len(plain) - start), start)]
        depths = np.cumsum(steps, dtype=np.int64)
        if depth + int(depths.max()) > limit:
            return True
        depth += int(depths[-1])
    return False


class Counts(NamedTuple):
    """What is in a MessagePack value: all values, lists, objects and texts among them, and bytes of texts."""

    values: int
    lists: int
    texts: int
    text: int


def count_msgpack(content: bytes, limit: int, most: int = MAX_STEPS) -> Counts | None:
    """What is in a MessagePack value.

    None where it goes deeper than `limit`, or is too scattered to tell in `most` steps. Of a broken one, what
    can be told.
    """
    left = [1]  # values that the open lists and objects still hold, from outside in
    place, end, steps = 0, len(content), 0
    values = lists = texts = text = 0
    try:
        while left and place < end:
            if not left[-1]:
                left.pop()
                continue
            steps += 1
            if len(left) > limit + 1 or steps > most:
                return None
            if numbers := _RUNS.get(content[place]):
                width, pattern = numbers
                run = pattern.match(content, place, min(place + left[-1] * width, end))
                if run is not None and run.end() > place:
                    passed = (run.end() - place) // width
                    left[-1] -= passed
                    values += passed
                    place = run.end()
                    continue
            left[-1] -= 1
            values += 1
            before = place
            place, members = _value(content, place)
            if members is not None:
                lists += 1
                left.append(members)
            elif content[before] in _TEXTS:
                texts += 1
                text += place - before
    except (IndexError, struct.error):
        return Counts(values, lists, texts, text)  # cut short; the decoder says so
    return None if len(left) > limit + 1 else Counts(values, lists, texts, text)


#: What texts begin with.
_TEXTS = frozenset([*range(0xA0, 0xC0), 0xD9, 0xDA, 0xDB])
#: Bytes that one scalar takes, and the bytes such scalars begin with.
_SCALARS = {
    1: bytes([*range(0x80), *range(0xE0, 0x100), 0xC0, 0xC1, 0xC2, 0xC3]),
    2: b"\xcc\xd0",
    3: b"\xcd\xd1\xd4",
    4: b"\xd5",
    5: b"\xca\xce\xd2",
    6: b"\xd6",
    9: b"\xcb\xcf\xd3",
    10: b"\xd7",
    18: b"\xd8",
}
_RUNS = {
    head: (width, re.compile(b"(?:[%b].{%d})*+" % (re.escape(heads), width - 1), re.DOTALL))
    for width, heads in _SCALARS.items()
    for head in heads
}
#: The byte before a length: the form of the length, and the bytes that follow besides those it counts.
_SIZED = {
    **dict.fromkeys((0xC4, 0xD9), (">B", 0)),
    **dict.fromkeys((0xC5, 0xDA), (">H", 0)),
    **dict.fromkeys((0xC6, 0xDB), (">I", 0)),
    0xC7: (">B", 1),
    0xC8: (">H", 1),
    0xC9: (">I", 1),
}
#: The byte before the length of a list or an object, and the values that each member is.
_MEMBERS = {0xDC: (">H", 1), 0xDD: (">I", 1), 0xDE: (">H", 2), 0xDF: (">I", 2)}


def _value(content: bytes, place: int) -> tuple[int, int | None]:
    """The place after one value, or after the head of a list or object, and then how many values it holds."""
    head = content[place]
    if 0x80 <= head < 0x90:
        return place + 1, 2 * (head & 0x0F)
    if 0x90 <= head < 0xA0:
        return place + 1, head & 0x0F
    if 0xA0 <= head < 0xC0:
        return place + 1 + (head & 0x1F), None
    if head in _RUNS:  # a scalar that is cut short
        raise IndexError
    form, more = _SIZED.get(head) or _MEMBERS[head]
    size: int = struct.unpack_from(form, content, place + 1)[0]
    after = place + 1 + struct.calcsize(form)
    return (after, size * more) if head in _MEMBERS else (after + more + size, None)
