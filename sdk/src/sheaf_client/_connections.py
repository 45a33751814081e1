"""The httpx client that calls go through: one for each process, and for each event loop in it.

Connections that two processes share give each the other's answers, and those of an event loop that has ended
cannot be used. So a client of ours makes others after a fork and in another loop; one of the caller's cannot.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, NamedTuple

from sheaf_client._errors import ClientClosedError, ForkedError

if TYPE_CHECKING:
    import httpx

#: How often this process was forked off since this module was loaded: read on every call, so no system call.
_forks = 0


def _forked() -> None:
    global _forks  # noqa: PLW0603 - the one place that counts
    _forks += 1


if hasattr(os, "register_at_fork"):  # where there are forks
    os.register_at_fork(after_in_child=_forked)


class Mark:
    """The process that this was made in."""

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made = _forks

    @property
    def foreign(self) -> bool:
        """Whether this process was forked off since."""
        return self._made != _forks

    def check(self) -> None:
        """Raise `ForkedError` in a fork."""
        if self._made != _forks:
            raise ForkedError(
                "This was opened before the process was forked, and its connection is the other process's; "
                "make the client, and the httpx client that it was given, after the fork."
            )


class Connections:
    """The synchronous client; without `make` it is the caller's own: for one process, not closed here."""

    def __init__(self, client: httpx.Client, make: Callable[[], httpx.Client] | None) -> None:
        self._client, self._make = client, make
        self._mark = Mark()
        self._closed = False

    def current(self) -> httpx.Client:
        """The client for a call now; raises `ClientClosedError` and `ForkedError`."""
        if self._mark.foreign:
            if self._make is None:
                self._mark.check()
            elif not self._closed:
                # The old one is let go of as it is: to close it could wait for a thread that is not here.
                self._client, self._mark = self._make(), Mark()
        client = self._client
        if self._closed or client.is_closed:
            raise ClientClosedError("This client is closed; make another.")
        return client

    def close(self) -> None:
        self._closed = True
        if self._make is not None and not self._mark.foreign:
            self._client.close()


class _Held(NamedTuple):
    client: httpx.AsyncClient
    #: Closes the client at its end, which comes with that of its event loop at the latest.
    keeper: AsyncGenerator[None, None]


class AsyncConnections:
    """The asynchronous clients, one an event loop; without `make` the one of the caller serves all."""

    def __init__(self, client: httpx.AsyncClient, make: Callable[[], httpx.AsyncClient] | None) -> None:
        self._first, self._make = client, make
        self._held: dict[asyncio.AbstractEventLoop | None, _Held] = {}
        self._mark = Mark()
        self._closed = False

    async def current(self) -> httpx.AsyncClient:
        """The client for a call in the running loop; raises `ClientClosedError` and `ForkedError`."""
        if self._make is None:
            self._mark.check()
            client = self._first
        else:
            held = None if self._mark.foreign else self._held.get(_running_loop())
            client = await self._hold(self._make) if held is None or held.client.is_closed else held.client
        if self._closed or client.is_closed:
            raise ClientClosedError("This client is closed; make another.")
        return client

    async def _hold(self, make: Callable[[], httpx.AsyncClient]) -> httpx.AsyncClient:
        """A client for the running loop, which is closed with it."""
        if self._mark.foreign:
            # The old ones are let go of as they are: their loops are the other process's.
            self._held, self._mark, self._first = {}, Mark(), make()
        if self._closed:
            return self._first
        for loop in [loop for loop in self._held if loop is not None and loop.is_closed()]:
            del self._held[loop]
        client = make() if self._held or self._first.is_closed else self._first
        keeper = _keep(client)
        await anext(keeper)  # begun, it is known to its loop, which ends it
        self._held[_running_loop()] = _Held(client, keeper)
        return client

    async def close(self) -> None:
        """Close the clients of the running loop; those of other loops go with these."""
        self._closed = True
        if self._make is None or self._mark.foreign:
            return
        held = self._held.pop(_running_loop(), None)
        if held is not None:
            await held.keeper.aclose()
        elif not self._held:
            await self._first.aclose()


async def _keep(client: httpx.AsyncClient) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await client.aclose()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None  # another library's
