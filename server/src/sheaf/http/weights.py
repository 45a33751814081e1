"""What a body takes in memory once it is read, told by its bytes before one value is built.

A zero in a list is two bytes of JSON, one of MessagePack, 40 in Python, and 210 while it is read. The figures
are those of the process, not of its objects alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sheaf.http.nesting import Counts

#: Bytes of a number with its place in a list; of a list, an object and a text besides what they hold.
_VALUE, _LIST, _OBJECT, _TEXT = 40, 80, 232, 60
#: What each takes besides while it is read: a parser has a tree of its own, with room for more in each list.
_READ_VALUE, _READ_LIST = 170, 400
#: Bytes of a value while MessagePack is read, besides: as a plain value, and as JSON to be validated.
_UNPACKED = 60
_COUNTED = b',[{"'
_BLOCK = 2**20
#: Bodies up to this size are not counted through: each weighs what the heaviest of them does.
_SMALL = 1024


@dataclass(slots=True, eq=False)
class Weight:
    """Bytes in memory.

    Attributes:
        kept: what the contract takes that is made of a body, or the plain value of it.
        read: the most that it takes until then, the body included.
    """

    kept: int
    read: int


NOTHING, _LIGHT = Weight(0, 0), Weight(60 * _SMALL, 240 * _SMALL)


def json_weight(content: bytes) -> Weight:
    """What a JSON text weighs, broken or not."""
    size = len(content)
    if size <= _SMALL:
        return _LIGHT
    values, lists, objects, quotes = _count(content)
    # Each value is two bytes at least; what is left may be long texts.
    text = max(0, size - 2 * values)
    if not content.isascii() or b"\\u" in content:
        text *= 4  # one character beyond Latin-1 widens all of its text
    kept = _VALUE * values + _LIST * lists + _OBJECT * objects + _TEXT * quotes // 2 + text
    return Weight(kept, kept + size + 2 * text + _READ_VALUE * values + _READ_LIST * (lists + objects))


def packed_weight(content: bytes, counts: Counts) -> Weight:
    """What MessagePack weighs, by what is in it."""
    values, lists, texts, text = counts
    kept = len(content) + _VALUE * values + _OBJECT * lists + _TEXT * texts + 3 * text
    read = len(content) + (_READ_VALUE + _UNPACKED) * values + (_READ_LIST + _OBJECT) * lists + 8 * text
    return Weight(kept, kept + read)


def _count(content: bytes) -> list[int]:
    """How often each of `_COUNTED` occurs; `bytes.count` takes as long as reading, where there are many."""
    found = [0] * len(_COUNTED)
    for start in range(0, len(content), _BLOCK):
        block = np.frombuffer(content, np.uint8, min(_BLOCK, len(content) - start), start)
        for i, byte in enumerate(_COUNTED):
            found[i] += int(np.count_nonzero(block == byte))
    return found
