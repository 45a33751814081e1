"""How deep the lists and objects of a body go, told before one of them is built."""

from __future__ import annotations

import re
import struct

import numpy as np
from numpy.typing import NDArray

#: A JSON string, closed or not: one pass over any bytes, whatever quotes are in them.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_BLOCK = 2**20


def _steps() -> NDArray[np.int8]:
    steps = np.zeros(256, np.int8)
    steps[list(b"[{")] = 1
    steps[list(b"]}")] = -1
    return steps


_STEPS = _steps()


def is_json_deeper(content: bytes, limit: int) -> bool:
    """Whether a JSON text goes deeper than `limit`; of broken JSON it says what its brackets say."""
    if content.count(b"[") + content.count(b"{") <= limit:
        return False
    plain = _STRING.sub(b"", content) if b'"' in content else content
    depth = 0
    for start in range(0, len(plain), _BLOCK):
        steps = _STEPS[np.frombuffer(plain, np.uint8, min(_BLOCK, len(plain) - start), start)]
        depths = np.cumsum(steps, dtype=np.int64)
        if depth + int(depths.max()) > limit:
            return True
        depth += int(depths[-1])
    return False


def is_msgpack_deeper(content: bytes, limit: int) -> bool:
    """Whether a MessagePack value goes deeper than `limit`; of broken ones, as far as it can be told."""
    left = [1]  # values that the open lists and objects still hold, from outside in
    place, end = 0, len(content)
    try:
        while left and place < end:
            if not left[-1]:
                left.pop()
                continue
            if (run := _numbers(content, place, left[-1])) is not None:
                place, passed = run
                left[-1] -= passed
                continue
            left[-1] -= 1
            place, members = _value(content, place)
            if members is not None:
                if len(left) > limit:
                    return True
                left.append(members)
    except (IndexError, struct.error):
        return False  # cut short; the decoder says so
    return False


#: Numbers of one width that follow each other: the byte they begin with, and the bytes they take.
_WIDTHS = {0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9}
_FIXED = {0xC0: 1, 0xC1: 1, 0xC2: 1, 0xC3: 1, **_WIDTHS, 0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18}
#: The byte before a length: the form of the length, and what follows besides the bytes it counts.
_SIZED = {
    **dict.fromkeys((0xC4, 0xD9), (">B", 0)),
    **dict.fromkeys((0xC5, 0xDA), (">H", 0)),
    **dict.fromkeys((0xC6, 0xDB), (">I", 0)),
    0xC7: (">B", 1),
    0xC8: (">H", 1),
    0xC9: (">I", 1),
}
_MEMBERS = {0xDC: (">H", 1), 0xDD: (">I", 1), 0xDE: (">H", 2), 0xDF: (">I", 2)}


def _numbers(content: bytes, place: int, most: int) -> tuple[int, int] | None:
    """Where a run of like numbers ends, and how many there are; None where there is no such run."""
    width = _WIDTHS.get(content[place])
    if width is None or most < 16:
        return None
    heads = np.frombuffer(content, np.uint8, offset=place)[::width][:most]
    others = heads != content[place]
    count = int(others.argmax()) if others.any() else len(heads)
    return place + count * width, count


def _value(content: bytes, place: int) -> tuple[int, int | None]:
    """The place after one value, or after the head of a list or object, and then how many values it holds."""
    head = content[place]
    if head < 0x80 or head >= 0xE0:
        return place + 1, None
    if head < 0x90:
        return place + 1, 2 * (head & 0x0F)
    if head < 0xA0:
        return place + 1, head & 0x0F
    if head < 0xC0:
        return place + 1 + (head & 0x1F), None
    if head in _FIXED:
        return place + _FIXED[head], None
    form, more = _SIZED.get(head) or _MEMBERS[head]
    size: int = struct.unpack_from(form, content, place + 1)[0]
    after = place + 1 + struct.calcsize(form)
    return (after, size * more) if head in _MEMBERS else (after + more + size, None)
