"""What RFC 9112 has a server refuse of a request's head, besides what the parser does."""

from __future__ import annotations

import re
from collections.abc import Sequence

#: Characters of a name or address with a port.
_HOST = re.compile(rb"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]*")
_NAME = "The request's Host names no host."
_LINE = "The request's first line has more space than it may."


class RequestLines:
    """The first lines of requests as they came: the parser passes over what may be in them but must not.

    It does not say where in the data a request begins. Here that is counted, save for one that came together
    with the end of a body in chunks: there a line of that form is looked for.
    """

    __slots__ = ("_chunked", "_data", "_place")

    def __init__(self) -> None:
        self._data = b""
        #: Where the next request begins in the data; behind a body in chunks, the least that it can be.
        self._place = 0
        self._chunked = False

    def feed(self, data: bytes, *, in_head: bool, in_body: bool) -> None:
        """Data came, in the middle of a head, of a body, or at the beginning of a request."""
        if in_head:
            self._data += data
        else:
            self._data, self._place, self._chunked = data, 0, in_body and self._chunked

    def passed(self, size: int) -> None:
        """So many bytes were content of a body."""
        self._place += size

    def keep(self, *, in_head: bool) -> None:
        """Keep of the data what belongs to a head whose end has not come."""
        self._data, self._place = self._data[self._place :] if in_head else b"", 0

    def is_sound(self, line: bytes, *, chunked: bool) -> bool:
        """Whether the request that is there now begins by that line; its body may come in chunks."""
        at = self._data.find(line, self._place)
        if at < 0 or (not self._chunked and self._data[self._place : at].strip(b"\r\n")):
            return False
        self._place = self._data.find(b"\r\n\r\n", at + len(line) - 2) + 4
        self._chunked = chunked
        return True


def fault_of(
    version: str, headers: Sequence[tuple[bytes, bytes]], line: bytes, lines: RequestLines
) -> str | None:
    """What is wrong with a head of that version, which is to begin by that line; None where nothing is."""
    if version not in ("1.1", "1.0"):
        return f"HTTP/{version} is not served here; send HTTP/1.1."
    names = [name for name, _ in headers]
    hosts = names.count(b"host")
    if hosts != 1:
        if hosts or version == "1.1":
            return "A request has one Host."
    elif _HOST.fullmatch(headers[names.index(b"host")][1]) is None:
        return _NAME
    chunked = b"transfer-encoding" in names
    if chunked and version == "1.0":
        return "A body in chunks is for HTTP/1.1."
    return None if lines.is_sound(line, chunked=chunked) else _LINE
