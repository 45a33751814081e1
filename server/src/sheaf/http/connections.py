"""Watches whether a client is still there while the model works; a quick answer pays for a timer only."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.types import Receive

from sheaf_client.errors import UnavailableError

T = TypeVar("T")

#: Seconds after which a client that left is looked for; most answers are there before.
_PATIENCE = 0.02


async def while_connected(receive: Receive, work: Awaitable[T]) -> T:
    """Await `work`, and cancel it when the client goes away, so that its place in line is free.

    The body must have been read: what `receive` gives then is that the client left.
    """
    loop = asyncio.get_running_loop()
    caller = asyncio.current_task()
    watch: asyncio.Task[None] | None = None
    gone = False

    async def look() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        assert caller is not None  # noqa: S101 - coroutines of an app run in tasks
        caller.cancel()

    def begin() -> None:
        nonlocal watch
        watch = loop.create_task(look())

    timer = loop.call_later(_PATIENCE, begin)
    try:
        return await work
    except asyncio.CancelledError:
        # A cancellation from elsewhere, such as the server's end, goes on.
        if caller is None or not gone or caller.uncancel():
            raise
        raise UnavailableError("The client went away.") from None
    finally:
        timer.cancel()
        if watch is not None:
            watch.cancel()
