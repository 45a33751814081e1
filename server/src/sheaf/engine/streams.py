"""Hands a stream's events from the lane's thread to whoever iterates, synchronously or in an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, TypeAlias

from sheaf.engine.jobs import StreamEvent
from sheaf_client import ProblemError, ResultEvent
from sheaf_client.contracts.events import ProgressEvent
from sheaf_client.errors import DeadlineExceededError

#: Starts a stream that calls back with its events; returns what cancels it.
Open: TypeAlias = Callable[[Callable[[StreamEvent], None]], Callable[[], object]]
Event: TypeAlias = ProgressEvent | ResultEvent[Any]


#: Events that a slow reader may fall behind; of more, the oldest progress is dropped.
MAX_PENDING = 256


class Pending:
    """Events on their way to a reader, few enough that one who does not read costs no more memory.

    The model never waits for a reader. Progress is told at most `MAX_PENDING` events late; what came before
    that is dropped, and the end of the stream never is.
    """

    def __init__(self) -> None:
        # Appending drops what is oldest; the end is the last to be put, so it stays.
        self._events: deque[StreamEvent] = deque(maxlen=MAX_PENDING)
        self._lock = threading.Lock()

    def put(self, event: StreamEvent) -> bool:
        """Add an event; whether there is one more than before."""
        with self._lock:
            more = len(self._events) < MAX_PENDING
            self._events.append(event)
            return more

    def take(self) -> StreamEvent:
        """The oldest event; each `put` that said so lets one be taken."""
        with self._lock:
            return self._events.popleft()


def iterate(open_stream: Open, timeout: float | None) -> Iterator[Event]:
    """The events of a stream, waiting in this thread; an error is raised."""
    pending = Pending()
    there = threading.Semaphore(0)

    def emit(event: StreamEvent) -> None:
        if pending.put(event):
            there.release()

    cancel = open_stream(emit)
    try:
        while True:
            if not there.acquire(timeout=None if timeout is None else min(timeout, threading.TIMEOUT_MAX)):
                raise _late()
            event = pending.take()
            if isinstance(event, ProblemError):
                raise event
            yield event
            if isinstance(event, ResultEvent):
                return
    finally:
        cancel()


async def aiterate(open_stream: Open, timeout: float | None) -> AsyncGenerator[Event, None]:
    """The events of a stream, waiting in the running event loop; an error is raised."""
    loop = asyncio.get_running_loop()
    pending = Pending()
    there = asyncio.Semaphore(0)

    def emit(event: StreamEvent) -> None:
        # The loop may be gone when a caller left in haste; then nobody waits for the event.
        if pending.put(event) and not loop.is_closed():
            loop.call_soon_threadsafe(there.release)

    cancel = open_stream(emit)
    deadline = None if timeout is None else loop.time() + timeout
    try:
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    await there.acquire()
            except TimeoutError:
                raise _late() from None
            event = pending.take()
            if isinstance(event, ProblemError):
                raise event
            yield event
            if isinstance(event, ResultEvent):
                return
    finally:
        cancel()


def _late() -> DeadlineExceededError:
    return DeadlineExceededError("The deadline passed while the model was at work.")
