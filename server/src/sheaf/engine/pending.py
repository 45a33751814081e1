"""A request put to a model from an event loop: its answer is there by now, or is to be waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any

from sheaf.engine.delivery import Outcome, Reply, unwrap
from sheaf.engine.tracker import RequestTracker


class PendingRequest:
    """One request on its way; for the loop that asked."""

    __slots__ = ("_asked", "_timeout", "_tracker")

    def __init__(self, tracker: RequestTracker[Reply], timeout: float | None) -> None:
        self._tracker = tracker
        self._timeout, self._asked = timeout, monotonic()

    @property
    def outcome(self) -> Outcome | None:
        """The response or error, where it is there."""
        tracker = self._tracker
        if tracker.outcome is not None or tracker.sink is None:
            return tracker.outcome
        return tracker.sink.outcome

    def call_back(self, tell: Callable[[], None] | None, within: float) -> bool:
        """Have `tell` called on the event loop as the outcome comes; None takes that back.

        Args:
            tell: Told of the outcome, which is not there yet; must not raise.
            within: Seconds in which it is to be taken back.

        Returns:
            False where the outcome is there, or the caller's time may be over by then: `answer` sees to both.
        """
        if self._timeout is not None and self._timeout < within:
            return False
        tracker = self._tracker
        reply = tracker.ensure_sink()  # before the look, as in `answer`
        reply.on_outcome = tell
        if tracker.outcome is None:
            return True
        reply.on_outcome = None
        return False

    def cancel(self) -> None:
        """The caller goes away."""
        self._tracker.cancel()

    async def answer(self) -> Any:
        """The response, once it is there; an error is raised. Cancelling its caller frees the place."""
        tracker = self._tracker
        reply = tracker.ensure_sink()  # before the look, so that what comes after it is not missed
        outcome = self.outcome
        if outcome is not None:
            return unwrap(outcome)
        try:
            if self._timeout is None:
                return unwrap(await reply.wait())
            async with asyncio.timeout(self._timeout - (monotonic() - self._asked)):
                return unwrap(await reply.wait())
        except TimeoutError:
            raise tracker.late() from None
        except asyncio.CancelledError:
            tracker.cancel()
            raise
