"""The fast path of small requests: those that one turn of the event loop has read as a whole go together.

An app may begin with a request before there is a task for it (its `begin`), take a whole body that came with
its head, and hand over a whole answer as it goes over the wire: the extensions `sheaf.body` and
`sheaf.answer` of a request's scope; `sheaf.left` is among them once the client has left. What ASGI's messages
and a task cost is a good part of a small answer.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias, cast
from weakref import ref

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from sheaf.engine.coalescing import coalesced
from sheaf.http.short_wait import Asked, ShortWait

log = logging.getLogger("sheaf.http")


class EarlyRequest(Asked, Protocol):
    """A request that an app has begun with before there is a task for it."""

    def finish(self) -> bool:
        """Answer where that takes no waiting; False where the `rest` takes some."""
        ...

    def rest(self) -> Awaitable[None]:
        """Wait for what has to be waited for, and answer."""
        ...

    def leave(self) -> None:
        """The client left while its model was at work: nobody is answered."""
        ...


class FastProtocol(HttpToolsProtocol):
    """uvicorn's protocol for one connection, with the fast path; who derives from it says what is fed to it.

    While `_feeding`, a request whose head is complete is kept as `_whole`, since its body may come with the
    same data; then `_take` has it.
    """

    def __init__(self, *args: Any, gathering: Gathering, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._gathering = gathering
        #: The request that is being answered; uvicorn's `cycle` is the last that came.
        self._current: RequestResponseCycle | None = None
        self._app = cast("Any", self).app  # whatever uvicorn has wrapped around it
        #: What an app can do with a request before there is a task for it.
        self._begin: Callable[..., EarlyRequest] | None = getattr(self._app, "begin", None)
        self._feeding = False
        self._whole: RequestResponseCycle | None = None
        #: The request that was begun and waits for its model, without a task.
        self._begun: EarlyRequest | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        begun, self._begun = self._begun, None
        if begun is not None and self._gathering.short_wait.forget(begun):
            begun.leave()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        scope: Any = cycle.scope
        # Weak, since the cycle has the scope: with every request in a circle, the collector frees them all.
        own = ref(cycle)
        scope["extensions"] = {"sheaf.body": partial(_body, own), "sheaf.answer": partial(_answer, own)}
        self._current = cycle
        if self._feeding and self._begin is not None and app is self._app:
            self._whole = cycle  # its body may come with the same data
        else:
            self._start(cycle, app)

    def _take(self, cycle: RequestResponseCycle) -> None:
        """Answer a request that is there as a whole together with others; else by a task of its own."""
        if cycle.more_body:
            self._start(cycle, self._app)
        else:
            self._gathering.add(self, cycle)

    def _start(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Have a task answer a request."""
        super()._start_asgi_task(cycle, app)

    def begin(self, cycle: RequestResponseCycle) -> EarlyRequest | None:
        """Have the app begin with a request; None where that failed, and its connection is closed."""
        assert self._begin is not None  # noqa: S101 - only such requests are gathered
        try:
            return self._begin(cycle.scope, cycle.receive, cycle.send)
        except Exception:  # noqa: BLE001 - logged, and the others are served
            self._break()
            return None

    def finish(self, cycle: RequestResponseCycle, begun: EarlyRequest) -> None:
        """Have the app answer a request, now or as its model has: by a task where that is not soon."""
        self._begun = None
        try:
            done = begun.finish()
        except Exception:  # noqa: BLE001 - logged, and the others are served
            self._break()
            return
        if not done:
            self._begun = begun
            go_on, begin_task = partial(self.finish, cycle, begun), partial(self._begin_task, cycle, begun)
            self._gathering.short_wait.add(begun, go_on, begin_task)

    def _begin_task(self, cycle: RequestResponseCycle, begun: EarlyRequest) -> None:
        def rest(*_: object) -> Awaitable[None]:
            return begun.rest()

        self._begun = None

        super()._start_asgi_task(cycle, cast("Any", rest))

    def _break(self) -> None:
        log.exception("a request broke its connection")
        self.transport.close()


#: A request that is there as a whole, and its connection.
Taken: TypeAlias = tuple[FastProtocol, RequestResponseCycle]


class Gathering:
    """The requests that one turn of the event loop has read: all begin, quick models run, all are answered.

    Each of these is the same code again and again, which is faster by a third than one request after the
    other, and quick models get batches. Where the last turn brought one request alone, the first of the next
    does not wait for others.
    """

    def __init__(self) -> None:
        self._cycles: list[Taken] = []
        self._alone = True
        self._count = 0  # of this turn
        #: Those whose models are at work.
        self.short_wait = ShortWait()

    def add(self, protocol: FastProtocol, cycle: RequestResponseCycle) -> None:
        """Answer a request at the end of this turn, or before."""
        self._count += 1
        if self._count == 1:
            protocol.loop.call_soon(self._end)
            if self._alone:
                _answer_alone(protocol, cycle)
                return
        self._cycles.append((protocol, cycle))

    def _end(self) -> None:
        cycles, self._cycles = self._cycles, []
        self._alone, self._count = self._count == 1, 0
        if len(cycles) > 1:
            _answer_together(cycles)
        elif cycles:
            _answer_alone(*cycles[0])


def _answer_alone(protocol: FastProtocol, cycle: RequestResponseCycle) -> None:
    begun = protocol.begin(cycle)
    if begun is not None:
        protocol.finish(cycle, begun)


def _answer_together(cycles: Sequence[Taken]) -> None:
    with coalesced():
        begun = [protocol.begin(cycle) for protocol, cycle in cycles]
    for (protocol, cycle), request in zip(cycles, begun, strict=True):
        if request is not None:
            protocol.finish(cycle, request)


def _body(own: ref[RequestResponseCycle], most: int) -> bytes | None:
    """The body of a request where all of it is there and no larger; else None, and nothing was done."""
    cycle = own()
    if cycle is None or cycle.more_body or len(cycle.body) > most or cycle.disconnected:
        return None
    if cycle.flow.read_paused:
        cycle.flow.resume_reading()
    body, cycle.body = bytes(cycle.body), bytearray()
    return body


def _answer(own: ref[RequestResponseCycle], head: bytes, content: bytes) -> bool:
    """Write a whole answer of status 200; False, and nothing was done, where it has to be sent in messages.

    Args:
        own: The request that is answered.
        head: The lines of the head, each with its end; `content-length` is among them.
        content: The body.
    """
    cycle = own()
    if cycle is None or cycle.flow.write_paused or cycle.disconnected or cycle.response_started:
        return False
    if cycle.transport.is_closing():
        return False
    lines = [b"HTTP/1.1 200 OK\r\n", head]
    for name, value in cycle.default_headers:
        lines += (name, b": ", value, b"\r\n")
    lines += (b"\r\n", content) if cycle.keep_alive else (b"connection: close\r\n\r\n", content)
    cycle.transport.write(b"".join(lines))
    cycle.waiting_for_100_continue = False
    cycle.response_started = cycle.response_complete = True
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True
