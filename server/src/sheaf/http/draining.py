"""uvicorn's server with an end that keeps its time: what can be answered until then is, the rest is refused.

uvicorn's own cancels what is left, which its clients are told as errors of the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, cast

import uvicorn

if TYPE_CHECKING:
    from sheaf.http.protocol import BoundedProtocol

log = logging.getLogger("sheaf.http")

#: Seconds that the end takes beyond the drain: for refusals to be written, twice.
REFUSING = 0.5
#: The same where the process is at its end already.
_IN_HASTE = 0.2
_LOOK = 0.02


class DrainingServer(uvicorn.Server):
    """A server that ends within `seconds` and twice `REFUSING` once `should_exit` is set.

    Args:
        config: uvicorn's settings.
        seconds: How long what was accepted may still take.
        refuse: Called after that, on the event loop: has all requests refused that are at a model, and those
            told that are cancelled from then on.
    """

    def __init__(self, config: uvicorn.Config, *, seconds: float, refuse: Callable[[], None]) -> None:
        super().__init__(config)
        self._seconds, self._refuse = seconds, refuse

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, and close those there are: as each is answered, or as the time is up."""
        for server in self.servers:
            server.close()
        for each in sockets or ():
            each.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        seconds, refusing = (0, _IN_HASTE) if self.force_exit else (self._seconds, REFUSING)
        if not await self._emptied(seconds):
            # Not their tasks: some have none yet, and some clients have left.
            left = sum([each.unanswered for each in cast("set[BoundedProtocol]", state.connections)])
            self._refuse()
            if not await self._emptied(refusing):
                # What is at no model: bodies on their way, changes by an admin.
                for task in list(state.tasks):
                    task.cancel()
                await self._emptied(refusing)
            if left:
                log.warning("%d requests were not answered within %g s, and refused", left, seconds)
            for connection in list(state.connections):
                connection.transport.abort()
        if not self.force_exit:
            await self.lifespan.shutdown()

    async def _emptied(self, seconds: float) -> bool:
        """Whether everything is answered within that time."""
        state, loop = self.server_state, asyncio.get_running_loop()
        end = loop.time() + seconds
        while state.connections or state.tasks:
            if loop.time() >= end:
                return False
            await asyncio.sleep(_LOOK)
        return True

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Signals are the host's."""
        yield
