"""Work on a thread, for an event loop that has others to serve."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def aside(work: Callable[[], T], undo: Callable[[T], None]) -> T:
    """What `work` gives on a thread; `undo` gets it where the caller is cancelled meanwhile."""
    doing = asyncio.ensure_future(asyncio.to_thread(work))

    def end(done: asyncio.Future[T]) -> None:
        if not done.cancelled() and done.exception() is None:
            undo(done.result())

    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        doing.add_done_callback(end)
        raise
