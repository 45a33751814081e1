"""Hands a stream's events from the lane's thread to whoever iterates, synchronously or in an event loop."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, TypeAlias

from sheaf.engine.jobs import StreamEvent
from sheaf.engine.watch import Departure
from sheaf_client import ProblemError, ResultEvent
from sheaf_client.contracts.events import ProgressEvent
from sheaf_client.errors import DeadlineExceededError

#: Starts a stream that calls back with its events; returns what cancels it.
Open: TypeAlias = Callable[[Callable[[StreamEvent], None]], Departure]
Event: TypeAlias = ProgressEvent | ResultEvent[Any]


def iterate(open_stream: Open, timeout: float | None) -> Generator[Event, None, None]:
    """The events of a stream, waiting in this thread; an error is raised."""
    events: queue.SimpleQueue[StreamEvent] = queue.SimpleQueue()
    cancel = open_stream(events.put)
    try:
        while True:
            try:
                event = events.get(timeout=timeout)
            except queue.Empty:
                raise _late(cancel) from None
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
    events: asyncio.Queue[StreamEvent] = asyncio.Queue()

    def emit(event: StreamEvent) -> None:
        # The loop may be gone when a caller left in haste; then nobody waits for the event.
        if not loop.is_closed():
            loop.call_soon_threadsafe(events.put_nowait, event)

    cancel = open_stream(emit)
    deadline = None if timeout is None else loop.time() + timeout
    try:
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    event = await events.get()
            except TimeoutError:
                raise _late(cancel) from None
            if isinstance(event, ProblemError):
                raise event
            yield event
            if isinstance(event, ResultEvent):
                return
    finally:
        cancel()


def _late(cancel: Departure) -> DeadlineExceededError:
    late = DeadlineExceededError("The deadline passed while the model was at work.")
    cancel(late)
    return late
