"""What RFC 9112 has a server refuse of a request's head, besides what the parser does."""

from __future__ import annotations

import re
from collections.abc import Sequence

#: Characters of a name or address with a port.
_HOST = re.compile(rb"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]*")
_VERSIONS = {"1.1": b" HTTP/1.1\r\n", "1.0": b" HTTP/1.0\r\n"}


def has_body(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether a head says that a body follows."""
    fields = dict(headers)
    return b"transfer-encoding" in fields or bool(fields.get(b"content-length", b"").strip(b"0"))


class Framing:
    """The heads of one connection's requests as they came, beside what the parser makes of them.

    The parser passes over space in the first line that must not be there, and does not say where in the data
    a request begins. Here that is counted, save for one that came together with the end of a body in chunks:
    there a line of the right form is looked for.
    """

    __slots__ = ("_chunked", "_data", "_place", "_sound")

    def __init__(self) -> None:
        self._data = b""
        #: Where the next request begins in the data; behind a body in chunks, the least that it can be.
        self._place = 0
        self._chunked = False
        #: The last head that was sound and has no body in chunks: most that follow are the same.
        self._sound: bytes | None = None

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
        """Keep of the data what belongs to a head whose end has not come, and let go of the rest."""
        self._data, self._place = self._data[self._place :] if in_head else b"", 0

    def is_known(self) -> bool:
        """Whether the head whose end has come is the last sound one again."""
        sound = self._sound
        if sound is None or not self._data.startswith(sound, self._place):
            return False
        self._place += len(sound)
        self._chunked = False
        return True

    def fault(
        self, version: str, method: bytes, url: bytes, headers: Sequence[tuple[bytes, bytes]]
    ) -> str | None:
        """What is wrong with the head whose end has come; None where nothing is."""
        if version not in _VERSIONS:
            return f"HTTP/{version} is not served here; send HTTP/1.1."
        fields = dict(headers)
        host = fields.get(b"host")
        if host is None:
            if version == "1.1":
                return "The request names no Host."
        elif len(fields) < len(headers) and [name for name, _ in headers].count(b"host") > 1:
            return "The request names more than one Host."
        elif _HOST.fullmatch(host) is None:
            return "The request's Host is none."
        chunked = b"transfer-encoding" in fields
        if chunked and version == "1.0":
            return "A body in chunks is for HTTP/1.1."
        return self._fault_of_line(method + b" " + url + _VERSIONS[version], chunked=chunked)

    def _fault_of_line(self, line: bytes, *, chunked: bool) -> str | None:
        data, place = self._data, self._place
        if not data.startswith(line, place):
            at = data.find(line, place)
            if at < 0 or (not self._chunked and data[place:at].strip(b"\r\n")):
                return "The request's first line has more space than it may."
            place = at
        self._place = data.find(b"\r\n\r\n", place + len(line) - 2) + 4
        self._chunked = chunked
        if not chunked:
            self._sound = data[place : self._place]
        return None
