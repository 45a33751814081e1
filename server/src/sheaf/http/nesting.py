"""How deep the lists and objects of a body go, and how many members they have, told before one is built."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sheaf_client.errors import RequestTooLargeError

#: A JSON string, closed or not: one pass over any bytes, whatever quotes are in them.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_BLOCK = 2**20
#: Texts up to this size are copied rather than read twice, and with so few quotes lose their strings by one
#: expression; of others that would hold everybody up.
_SHORT, _FEW_QUOTES = 2**17, 1000
#: Each list takes twenty times the memory that its brackets take in a body.
_MAX_LISTS = 1_000_000
#: Runs of scalars of one width count as one step; a body of more steps than this is made to be slow.
MAX_STEPS = 3 * _MAX_LISTS
#: Members of all objects in one request: twice what the contract takes that takes most, of materials.
MAX_NAMES = 8192
#: The same in a batch, for each request that it may hold: few have a tenth. How many may be of the largest.
_BATCH_NAMES, _LARGE_REQUESTS = 128, 16
#: Bytes of JSON that a member takes at least.
_NAME = 5
#: What brackets and colons mean.
_OPENS, _CLOSES, _NAMES = 1, -1, 2


class Names(NamedTuple):
    """How many members the objects of a body may have: those of each request, and all together."""

    each: int = MAX_NAMES
    together: int = MAX_NAMES

    @classmethod
    def of_batch(cls, requests: int) -> Names:
        """Those of a body with up to so many requests in a list of its own."""
        return cls(together=max(MAX_NAMES * min(requests, _LARGE_REQUESTS), _BATCH_NAMES * requests))

    def check(self, each: int, together: int) -> None:
        """Raise `RequestTooLargeError` where there are more."""
        if each > self.each:
            text = f"A request has more than {self.each} members in its objects; no contract takes as many."
            raise RequestTooLargeError(text)
        if together > self.together:
            text = (
                f"The body has more than {self.together} members in its objects: send fewer requests at once."
            )
            raise RequestTooLargeError(text)


#: The members of a body with one request.
ONE_REQUEST = Names()


def is_json_deeper(content: bytes, limit: int, names: Names = ONE_REQUEST) -> bool:
    """Whether a JSON text goes deeper than `limit`, or has more lists and objects than anyone needs.

    Of broken JSON it says what its brackets say.

    Raises:
        RequestTooLargeError: It has more `names`.
    """
    # One pass is a third of the time of three.
    if len(content) <= _SHORT and len(content) - len(content.translate(None, b"[{:")) <= min(
        limit, names.each
    ):
        return False
    named = _may_have_more_names(content, names.each)
    if not (named or _has_more_brackets(content, limit)):
        return False
    depth = lists = together = before = 0
    for marks in _marks(content, _WITH_COLONS if named else _BRACKETS):
        if not len(marks):
            continue
        depths = np.cumsum(np.where(marks == _NAMES, 0, marks) if named else marks, dtype=np.int64) + depth
        depth = int(depths[-1])
        lists += int(np.count_nonzero(marks == _OPENS))
        if lists > _MAX_LISTS or int(depths.max()) > limit:
            return True
        if named:
            counts = np.cumsum(marks == _NAMES, dtype=np.int64) + together
            together = int(counts[-1])
            # A request of a batch ends where there is its list and the body around it.
            ends = np.concatenate(([before], counts[(marks == _CLOSES) & (depths == 2)], [together]))
            names.check(int(np.diff(ends).max()), together)
            before = int(ends[-2])
    return False


def _has_more_brackets(content: bytes, limit: int) -> bool:
    brackets = 0
    for block in _blocks(content):
        brackets += int(np.count_nonzero((block | 0x20) == ord("{")))  # which is "[" with that bit
        if brackets > limit:
            return True
    return False


def _may_have_more_names(content: bytes, limit: int) -> bool:
    names = 0
    for block in _blocks(content) if len(content) > _NAME * limit else ():
        before = block[np.flatnonzero(block == ord(":")) - 1]
        # Behind a name is a quote, or white space; the colons of times are behind digits.
        names += 1 + int(np.count_nonzero((before == ord('"')) | (before <= ord(" "))))
        if names > limit:
            return True
    return False


def _blocks(content: bytes) -> Iterator[NDArray[np.uint8]]:
    """The bytes of a text, so many at once as numpy is done with soon. Others run meanwhile."""
    for start in range(0, len(content), _BLOCK):
        yield np.frombuffer(content, np.uint8, min(_BLOCK, len(content) - start), start)


class _Table(NamedTuple):
    """What each byte means, and those that mean nothing."""

    meanings: bytes
    others: bytes


def _marks(content: bytes, table: _Table) -> Iterator[NDArray[np.int8]]:
    """What the bytes of a JSON text mean that are in no string and mean anything, block by block."""
    if len(content) <= _SHORT and content.count(b'"') <= _FEW_QUOTES:
        plain = _STRING.sub(b"", content) if b'"' in content else content
        yield np.frombuffer(plain.translate(*table), np.int8)
        return
    escaped = within = False
    for block in _blocks(content):
        quotes = block == ord('"')
        slashes = np.flatnonzero(block == ord("\\"))
        if escaped or len(slashes):
            escaped = _leave_escaped(quotes, slashes, escaped=escaped)
        # Odd from the quote that opens a string to the one that closes it.
        strings = np.bitwise_xor.accumulate(quotes.view(np.uint8)) ^ np.uint8(within)
        within = bool(strings[-1])
        marks = np.frombuffer(block.tobytes().translate(table.meanings), np.int8)
        yield marks[(marks != 0) & (strings == 0)]


def _leave_escaped(quotes: NDArray[np.bool_], slashes: NDArray[np.intp], *, escaped: bool) -> bool:
    """Strike out the quotes behind an odd number of backslashes.

    Args:
        quotes: Where a part of a JSON text has quotes.
        slashes: The places of its backslashes.
        escaped: Whether its first byte is escaped by what is before.

    Returns:
        The same of the byte behind it.
    """
    first = np.flatnonzero(np.diff(slashes, prepend=-2) != 1)  # of each run
    starts = slashes[first]
    ends = slashes[np.append(first[1:], len(slashes)) - 1] + 1 if len(first) else starts
    odd = (ends - starts) % 2 == 1
    if escaped and len(starts) and not starts[0]:
        odd[0] = not odd[0]
    elif escaped:
        quotes[0] = False
    struck = ends[odd]
    quotes[struck[struck < len(quotes)]] = False
    return bool(len(struck)) and int(struck[-1]) == len(quotes)


def _table(meanings: Mapping[int, bytes]) -> _Table:
    table = np.zeros(256, np.int8)
    for meaning, those in meanings.items():
        table[list(those)] = meaning
    return _Table(table.tobytes(), bytes(np.flatnonzero(table == 0).tolist()))


_BRACKETS = _table({_OPENS: b"[{", _CLOSES: b"]}"})
_WITH_COLONS = _table({_OPENS: b"[{", _CLOSES: b"]}", _NAMES: b":"})


class Counts(NamedTuple):
    """What is in a MessagePack value: all values, lists, objects and texts among them, and bytes of texts."""

    values: int
    lists: int
    texts: int
    text: int


def count_msgpack(
    content: bytes, limit: int, most: int = MAX_STEPS, names: Names = ONE_REQUEST
) -> Counts | None:
    """What is in a MessagePack value.

    None where it goes deeper than `limit`, or is too scattered to tell in `most` steps. Of a broken one, what
    can be told.

    Raises:
        RequestTooLargeError: It has more `names`.
    """
    left = [1]  # values that the open lists and objects still hold, from outside in
    place, end, steps = 0, len(content), 0
    values = lists = texts = text = together = before = 0
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
            head, start = content[place], place
            place, members = _value(content, place)
            if members is not None:
                lists += 1
                if len(left) == _OF_REQUESTS:
                    before = together
                if head in _OBJECTS:
                    # What is not there is not counted: the decoder tells that it is cut short.
                    together += min(members, end - place) // 2
                    names.check(together - before, together)
                left.append(members)
            elif head in _TEXTS:
                texts += 1
                text += place - start
    except (IndexError, struct.error):
        return Counts(values, lists, texts, text)  # cut short; the decoder says so
    return None if len(left) > limit + 1 else Counts(values, lists, texts, text)


#: What objects begin with.
_OBJECTS = frozenset([*range(0x80, 0x90), 0xDE, 0xDF])
#: Lists and objects that are open where the requests of a batch are, with what is outside.
_OF_REQUESTS = 3
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
