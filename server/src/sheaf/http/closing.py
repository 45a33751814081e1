"""The end of connections: while the client still sends, once it sends no more, and before it has said all.

To close a connection on which data is on its way resets it, and the client may lose an answer that it has not
read. So such a connection is closed for writing, and what comes is thrown away, up to a bound.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

#: Seconds after which a client that sends no more is looked for, and the longest between two looks.
_SOON, _LONGEST = 0.02, 1.0


class Unheard(asyncio.Protocol):
    """Takes the place of a connection's protocol and throws away what comes, up to `most` bytes.

    Attributes:
        closing: Whether nothing more is written either.
    """

    def __init__(self, owner: asyncio.Protocol, transport: asyncio.Transport, most: int) -> None:
        self._owner, self._transport, self._left = owner, transport, most
        self._timer: asyncio.TimerHandle | None = None
        self.closing = False
        transport.set_protocol(self)

    def close(self, seconds: float) -> None:
        """End the connection: once the client does, but within that time."""
        if self.closing:
            return
        self.closing = True
        self._timer = asyncio.get_running_loop().call_later(seconds, self._transport.close)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            self._transport.abort()

    def eof_received(self) -> bool | None:
        return None if self.closing else self._owner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._owner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        self._owner.resume_writing()


class Early:
    """The transport of a request whose body is still on its way: what closes it is said by who made it."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write, self.is_closing, self.close = transport.write, transport.is_closing, close


class Presence:
    """Finds out whether a client that sends no more still reads.

    Who has left altogether sends the same, and what shows the difference is that data to it comes back as a
    reset. So an answer that is not there soon is preceded by a `100 Continue`, which every client of HTTP/1.1
    is to pass over.
    """

    def __init__(self, transport: asyncio.Transport, cycle: RequestResponseCycle) -> None:
        self._transport, self._cycle = transport, cycle
        self._socket: socket.socket = transport.get_extra_info("socket")
        self._timer = asyncio.get_running_loop().call_later(_SOON, self._ask)

    def end(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _ask(self) -> None:
        cycle = self._cycle
        if not self._transport.is_closing() and not cycle.response_started:
            if cycle.scope["http_version"] != "1.1":
                return
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._look(_SOON)

    def _look(self, pause: float) -> None:
        if self._transport.is_closing():
            return
        if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._transport.abort()
            return
        again = min(2 * pause, _LONGEST)
        self._timer = asyncio.get_running_loop().call_later(pause, self._look, again)
