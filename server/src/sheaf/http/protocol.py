"""uvicorn's HTTP protocol with bounds on what no app sees: heads of requests, and clients that do not read.

An app is called once a head is complete, and its answers go into a buffer of the connection; so a client
that dribbles a head, or asks for answers and takes none, can be ended here alone. So can a connection whose
client has left, breaks the protocol, or says that it sends no more: what was whole before that is answered.
"""

from __future__ import annotations

import asyncio
from functools import partial
from time import monotonic
from typing import Any, TypeAlias, cast
from uuid import uuid4

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from sheaf.http.closing import Early, Presence, Unheard
from sheaf.http.fast_path import FastProtocol, Gathering
from sheaf.http.flow import SMALL, HeldFlow, is_crowded
from sheaf.http.framing import Framing, has_body
from sheaf.http.heads import Head, Origins
from sheaf.http.limits import Limits
from sheaf.http.problems import PROBLEM_TYPE
from sheaf_client.contracts.problem import Problem

#: Most bytes that are read and thrown away of a connection that broke the protocol, and most bodies' bytes of
#: one whose request was answered early.
_MAX_UNHEARD, _EARLY = 2**20, 4
#: Requests that may wait behind the one that is answered, and bytes that are read at once where more came.
_MOST_WAITING, _FEW = 16, 512
#: Bytes of a URL: paths here are short, and escapes in it take a microsecond each.
_LONGEST_URL = 4096
#: Status, code and title of what a connection is refused by.
_Refusal: TypeAlias = tuple[int, str, str]


def bounded_protocol(limits: Limits) -> type[asyncio.Protocol]:
    """The protocol with these limits, as uvicorn's `http` setting takes it, for one server."""
    made = partial(BoundedProtocol, limits=limits, origins=Origins(limits.origins), gathering=Gathering())
    return cast("type[asyncio.Protocol]", made)


class BoundedProtocol(FastProtocol):
    """One connection, made by uvicorn.

    A timer runs while no request is being answered: whatever is under way then (a head, the rest of a body
    that nobody waits for, a pause) has `head_timeout` to become a request. Another runs while the client
    has more of an answer to take than fits into the buffer.
    """

    def __init__(self, *args: Any, limits: Limits, origins: Origins, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits, self._origins = limits, origins
        self._in_head = False
        self._head = 0  # bytes that came, counted where the head did not end with them
        self._between = 0  # bytes of a body in chunks that are none of its content
        self._refusal: _Refusal | None = None
        self._framing = Framing()
        #: What is told after all answers to requests that were whole.
        self._last_words: _Refusal | None = None
        self._unheard: Unheard | None = None
        self._presence: Presence | None = None
        self._content = False
        #: What came and is not read yet, since enough requests wait.
        self._held, self._due = bytearray(), False
        self._overdue: asyncio.TimerHandle | None = None
        self._taken = 0.0  # when the last head of a request was complete
        self._reading: asyncio.TimerHandle | None = None

    @property
    def unanswered(self) -> int:
        """Requests whose answers are not complete."""
        return self._answering + len(self.pipeline)

    @property
    def _answering(self) -> bool:
        cycle = self.cycle
        return not cycle.response_complete if cycle else False  # none before the first request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        self.flow = self._flow = HeldFlow(self.transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        self.resume_writing()
        if self._presence is not None:
            self._presence.end()
        self.pipeline.clear()
        self._held.clear()
        if self._current is not None:
            _disconnect(self._current)
        super().connection_lost(exc)

    def eof_received(self) -> Any:  # asyncio's has a bool, uvicorn's says none
        """Answer what is whole to a client that sends no more: True keeps the connection until then."""
        self._forget_broken()
        current = self._current
        if not self._answering or current is None or current.more_body or self.transport.is_closing():
            return None
        self._expect_nothing()
        if self._last_words is None:
            self.cycle.keep_alive = False
        self._presence = Presence(self.transport, current)
        return True

    def data_received(self, data: bytes) -> None:
        crowded = len(data) > SMALL and is_crowded(data, _MOST_WAITING)
        if crowded or self._held or len(self.pipeline) >= _MOST_WAITING:
            self._held += data
            self._read_on()
        else:
            self._read(data)

    def _read_on(self) -> None:
        """Read of what is held until enough requests wait; each of them takes memory, and time to be read."""
        self._due = False
        if self.transport.is_closing():
            return
        while self._held and len(self.pipeline) < _MOST_WAITING:
            piece = bytes(self._held[:_FEW])
            del self._held[:_FEW]
            self._read(piece)
        self._flow.hold(held=bool(self._held))

    def _read(self, data: bytes) -> None:
        in_head, before = self._in_head, self.cycle
        self._framing.feed(data, in_head=in_head, in_body=before.more_body if before else False)
        self._feeding, self._content = True, False
        super().data_received(data)
        self._feeding = False
        if self._in_head or len(data) > SMALL:
            self._framing.keep(in_head=self._in_head)
        cycle, self._whole = self._whole, None
        if self.transport.is_closing():
            return
        if cycle is not None:
            self._taken = monotonic()
            self._take(cycle)
        if self._unheard is not None:
            return
        if self._in_head:
            if in_head:
                self._head += len(data)
            if self._head > self._limits.max_head or len(self.headers) > self._limits.max_headers:
                self._refuse(_HEAD_TOO_LARGE)
                return
        elif self.cycle is before and not self._content:
            # What is added to the sizes of chunks, or fields behind the body: the parser keeps those.
            self._between += len(data)
            if self._between > self._limits.max_head:
                if self._answering:
                    self._refuse(_HEAD_TOO_LARGE)
                else:
                    self.transport.close()  # what it belongs to was answered
                return
        if self._answering:
            self._expect_nothing()
        else:
            self._expect()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head, self._between = True, 0, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        # Nothing uses the fields behind a body, and the list of those before it is the app's by now.
        if self._in_head:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self._content = True
        self._framing.passed(len(body))
        super().on_body(body)

    def on_headers_complete(self) -> None:
        self._in_head = False
        headers = self.headers
        parser: Any = self.parser
        upgrade = parser.should_upgrade()
        if not self._framing.is_known():
            size = len(self.url) + sum([len(name) + len(value) for name, value in headers])
            most, lines = self._limits.max_head, self._limits.max_headers
            if size > most or len(headers) > lines or len(self.url) > _LONGEST_URL:
                self._refusal = _HEAD_TOO_LARGE
                raise ValueError(_HEAD_TOO_LARGE[2])  # ends the parser, which ends in `send_400_response`
            fault = self._framing.fault(parser.get_http_version(), parser.get_method(), self.url, headers)
            if fault is None and upgrade and has_body(headers):
                # The parser would take the body for the next request.
                fault = "A request with a body cannot change the protocol: send no Upgrade."
            if fault is not None:
                self._refusal = 400, "malformed", fault
                raise ValueError(fault)
        if self.expect_100_continue and parser.get_http_version() == "1.0":
            self.expect_100_continue = False  # it knows no answers before the answer
        super().on_headers_complete()
        if upgrade:
            self.cycle.keep_alive = False  # what follows is of another protocol, and is not read

    def _start(self, cycle: RequestResponseCycle, app: Any) -> None:
        if cycle.more_body:
            cycle.transport = cast("asyncio.Transport", Early(self.transport, self._close_early))
        super()._start(cycle, app)

    def on_response_complete(self) -> None:
        if self._unheard is not None and self._unheard.closing:
            self.server_state.total_requests += 1
            return
        super().on_response_complete()
        if self._held and not self._due:
            self._due = True
            self.loop.call_soon(self._read_on)
        if self.transport.is_closing():
            self._abort_unread()
        elif self._last_words is not None and not self._answering:
            self._tell(self._last_words)
            self._linger()

    def shutdown(self) -> None:
        self._held.clear()  # the last request that was read is the last that is answered
        super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._abort_unread()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn for what is no HTTP, and where a check above raised."""
        self._refuse(self._refusal or (400, "malformed", msg))

    def _refuse(self, refusal: _Refusal) -> None:
        """Answer what was whole, then tell what is wrong, and close; read no more of this connection.

        Where an answer to the request that is broken has begun, only close.
        """
        self._expect_nothing()
        self._forget_broken()
        current = self._current
        if self._answering and current is not None:
            if not current.more_body:
                self._last_words = refusal
                self._listen_no_more()
                return
            self._whole = None
            _disconnect(current)
        if current is None or current.response_complete or not current.response_started:
            self._tell(refusal)
        self._linger()

    def _forget_broken(self) -> None:
        """Drop the last request where it is not whole, and others are answered before it."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if cycle is not None and cycle is not self._current and cycle.more_body and self.pipeline:
            self.pipeline.popleft()
            self.cycle = self.pipeline[0][0] if self.pipeline else cast("Any", self._current)

    def _tell(self, refusal: _Refusal) -> None:
        """Write a problem document."""
        status, code, detail = refusal
        request_id = str(uuid4())
        problem = Problem(
            type=f"/problems/{code}",
            title=_REASONS[status],
            status=status,
            code=code,
            detail=detail,
            request_id=request_id,
        )
        body = problem.model_dump_json(exclude_none=True).encode()
        head = (
            f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: {PROBLEM_TYPE}\r\n"
            f"content-length: {len(body)}\r\nx-request-id: {request_id}\r\nconnection: close\r\n"
        )
        self.transport.write(head.encode("ascii") + self._common_head().lines + b"\r\n" + body)

    def _close_early(self) -> None:
        """Close after an answer to the last request, which its client may get while it still sends."""
        if self.cycle.more_body:
            self._linger(_EARLY * self._limits.max_body)
        else:
            self.transport.close()

    def _linger(self, most: int = _MAX_UNHEARD) -> None:
        """Send no more, and throw away what is on its way: a close would have the client lose its answer."""
        self._expect_nothing()
        self._unset_keepalive_if_required()
        if self._presence is not None or self.transport.is_closing():
            self.transport.close()
        else:
            self._listen_no_more(most).close(self._limits.head_timeout)
        self._abort_unread()

    def _listen_no_more(self, most: int = _MAX_UNHEARD) -> Unheard:
        self._held.clear()
        self._flow.hold(held=False)
        self.flow.resume_reading()  # to see it where the client leaves
        if self._unheard is None:
            self._unheard = Unheard(self, self.transport, most)
        return self._unheard

    def _common_head(self) -> Head:
        """What the answer to a head that is there in part has in common with others."""
        fields = dict(reversed(self.headers or ()))
        return self._origins.head(fields.get(b"origin"))

    def _expect(self) -> None:
        if self._overdue is None:
            self._overdue = self.loop.call_later(self._limits.head_timeout, self._late)

    def _expect_nothing(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _late(self) -> None:
        self._overdue = None
        # Requests that are answered as they are read leave the timer as it is, which costs them nothing.
        left = self._taken + self._limits.head_timeout - monotonic()
        if left > 0:
            self._overdue = self.loop.call_later(left, self._late)
            return
        if self._in_head:
            self._tell((408, "too_slow", "The request's head did not come in time."))
        self.transport.close()
        self._abort_unread()

    def _look(self, size: int) -> None:
        """After a while, end a connection whose client has not taken enough of `size` waiting bytes."""

        def look() -> None:
            left = self.transport.get_write_buffer_size()
            if size - left < self._limits.min_rate * self._limits.write_timeout:
                self.transport.abort()
            else:
                self._look(left)

        self._reading = self.loop.call_later(self._limits.write_timeout, look)

    def _abort_unread(self) -> None:
        """A connection that closes waits for its client to take the rest, but not for ever."""
        if self.transport.get_write_buffer_size():
            self.loop.call_later(self._limits.write_timeout, self.transport.abort)


def _disconnect(cycle: RequestResponseCycle) -> None:
    """Have the app of a request see that its client is gone."""
    if not cycle.response_complete:
        cast("Any", cycle.scope)["extensions"]["sheaf.left"] = True
        cycle.disconnected = True
        cycle.waiting_for_100_continue = False
        cycle.message_event.set()


_HEAD_TOO_LARGE = (431, "too_large", "The request's head is too large.")
_REASONS = {400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large"}
