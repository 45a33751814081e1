"""A request put to a model from an event loop: its answer is there by now, or is to be waited for."""

from __future__ import annotations

import asyncio
from typing import Any

from sheaf.engine.answers import Outcome, Reply, unwrap
from sheaf.engine.watch import Watch


class Asked:
    """One request on its way; for the loop that asked."""

    __slots__ = ("_timeout", "_watch")

    def __init__(self, watch: Watch[Reply], timeout: float | None) -> None:
        self._watch = watch
        self._timeout = timeout

    @property
    def outcome(self) -> Outcome | None:
        """The response or error, where it is there."""
        watch = self._watch
        if watch.outcome is not None or watch.outlet is None:
            return watch.outcome
        return watch.outlet.outcome

    def depart(self) -> None:
        """The caller goes away."""
        self._watch.depart()

    async def answer(self) -> Any:
        """The response, once it is there; an error is raised. Cancelling its caller frees the place."""
        watch = self._watch
        reply = watch.wait()  # before the look, so that what comes after it is not missed
        outcome = self.outcome
        if outcome is not None:
            return unwrap(outcome)
        try:
            if self._timeout is None:
                return unwrap(await reply.wait())
            async with asyncio.timeout(self._timeout):
                return unwrap(await reply.wait())
        except TimeoutError:
            raise watch.late() from None
        except asyncio.CancelledError:
            watch.depart()
            raise
