"""Hands a stream's events from the lane's thread to whoever iterates, synchronously or in an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator
from functools import partial
from typing import Any, TypeAlias

from sheaf.engine.aside import aside
from sheaf.engine.jobs import StreamEvent
from sheaf.engine.tracker import Cancel
from sheaf_client.contracts.events import ProgressEvent
from sheaf_client.errors import DeadlineExceededError, ProblemError
from sheaf_client.protocol import ResultEvent, binary_size, wait_awake

#: Starts a stream that calls back with its events; returns what cancels it.
Open: TypeAlias = Callable[[Callable[[StreamEvent], None]], Cancel]
Event: TypeAlias = ProgressEvent | ResultEvent[Any]


#: Events, and bytes of their arrays, that a slow reader may fall behind.
MAX_PENDING, MAX_PENDING_BYTES = 256, 16 * 2**20

#: Takes so many bytes more for events that wait, or gives them back where less than 0; False where there is
#: no room for them. On any thread.
Room: TypeAlias = Callable[[int], bool]


def unbounded(_: int) -> bool:
    """Room for whatever waits."""
    return True


class Pending:
    """Events on their way to a reader, few enough that one who does not read costs no more memory.

    The model never waits for a reader: where too much waits, the oldest progress is dropped. The end of a
    stream never is.

    Args:
        room: Asked for room for the arrays of events.
    """

    def __init__(self, room: Room = unbounded) -> None:
        self._events: deque[tuple[StreamEvent, int]] = deque()
        self._bytes = 0
        self._room = room
        self._closed = False
        self._lock = threading.Lock()

    def put(self, event: StreamEvent) -> None:
        """Add an event; the end of the stream is the last, so what is dropped for it is progress."""
        size = binary_size(event) if isinstance(event, ProgressEvent) else 0
        with self._lock:
            if self._closed:
                return
            while self._events and (
                len(self._events) >= MAX_PENDING or self._bytes + size > MAX_PENDING_BYTES
            ):
                self._take()
            while not (fits := not size or self._room(size)) and self._events:
                self._take()
            if fits:
                self._events.append((event, size))
                self._bytes += size

    def take(self) -> StreamEvent | None:
        """The oldest event; None where the one that a `put` told of was dropped."""
        with self._lock:
            return self._take() if self._events else None

    def close(self) -> None:
        """Nobody reads any more: what waits, and what still comes, is dropped."""
        with self._lock:
            self._closed = True
            while self._events:
                self._take()

    def _take(self) -> StreamEvent:
        event, size = self._events.popleft()
        if size:
            self._bytes -= size
            self._room(-size)
        return event


def iterate(open_stream: Open, timeout: float | None, request_id: str) -> Generator[Event, None, None]:
    """The events of a stream, waiting in this thread; an error is raised."""
    pending = Pending()
    there = threading.Semaphore(0)

    def emit(event: StreamEvent) -> None:
        pending.put(event)
        there.release()

    def wait(seconds: float) -> bool:
        return there.acquire(timeout=seconds)

    end = None if timeout is None else time.monotonic() + timeout
    cancel = open_stream(emit)
    try:
        while True:
            if not wait_awake(wait, None if end is None else end - time.monotonic()):
                raise _late(cancel, request_id)
            event = pending.take()
            if event is None:
                continue
            if isinstance(event, ProblemError):
                raise event
            yield event
            if isinstance(event, ResultEvent):
                return
    finally:
        cancel()


async def aiterate(
    open_stream: Open,
    timeout: float | None,
    request_id: str,
    *,
    large: bool = False,
    room: Room = unbounded,
) -> AsyncGenerator[Event, None]:
    """The events of a stream, waiting in the running event loop; an error is raised.

    That of a `large` request is opened on a thread. Those that wait take their `room`.
    """
    loop = asyncio.get_running_loop()
    pending = Pending(room)
    there = asyncio.Semaphore(0)

    def emit(event: StreamEvent) -> None:
        pending.put(event)
        # The loop may be closed when a caller left in haste; then nobody waits for the event.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(there.release)

    deadline = None if timeout is None else loop.time() + timeout
    cancel = await aside(partial(open_stream, emit), _cancel_now) if large else open_stream(emit)
    try:
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    await there.acquire()
            except TimeoutError:
                raise _late(cancel, request_id) from None
            event = pending.take()
            if event is None:
                continue
            if isinstance(event, ProblemError):
                raise event
            yield event
            if isinstance(event, ResultEvent):
                return
    finally:
        cancel()
        pending.close()


def _cancel_now(cancel: Cancel) -> None:
    cancel()


def _late(cancel: Cancel, request_id: str) -> DeadlineExceededError:
    late = DeadlineExceededError("The deadline passed while the model was at work.", request_id=request_id)
    cancel(late)
    return late
