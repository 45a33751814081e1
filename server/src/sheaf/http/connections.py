"""Watches whether a client is still there while the model works."""

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
    watch = _Watch(receive)
    try:
        return await work
    except asyncio.CancelledError:
        # A cancellation from elsewhere, such as the server's end, goes on.
        if not watch.gone or watch.caller.uncancel():
            raise
        raise UnavailableError("The client went away.") from None
    finally:
        watch.end()


class _Watch:
    """Cancels the task that made it when the client is gone."""

    __slots__ = ("_receive", "_task", "_timer", "caller", "gone")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        caller = asyncio.current_task()
        assert caller is not None  # noqa: S101 - coroutines of an app run in tasks
        self.caller, self.gone = caller, False
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(_PATIENCE, self._begin)

    def end(self) -> None:
        self._timer.cancel()
        # Not held on to: the task has this watch, and only the collector would free the two.
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    def _begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self.caller.cancel()
