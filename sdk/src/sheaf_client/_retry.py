"""When to try again and how long to wait: pure decisions, the same for both kinds of client.

Tried again: refusals that the schema's table of problems marks so, and connections that were never made. Not
tried again: a connection that broke, or an answer that did not come in time. The model may be at work by
then, and a second run would double the load of a server that is slow already. Who wants it can do it in
middleware: the idempotency key is the same on every try.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from sheaf_client._errors import ConnectionFailedError, ProblemError, SheafError

#: Longest wait between two tries, in seconds, unless the server asks for more.
MAX_DELAY = 8.0


@dataclass(frozen=True)
class RetryPolicy:
    """At most `max_retries` more tries, all within `deadline` seconds on the clock of the caller."""

    max_retries: int
    deadline: float | None

    def delay(self, error: SheafError, attempt: int, now: float) -> float | None:
        """Seconds to wait before try number `attempt + 1`, or None to give up."""
        if attempt >= self.max_retries or not is_retryable(error):
            return None
        asked = error.retry_after if isinstance(error, ProblemError) else None
        # Full jitter: callers that were refused together must not come back together.
        wait = asked if asked is not None else random.uniform(0, min(MAX_DELAY, 0.5 * 2**attempt))  # noqa: S311
        if self.deadline is not None and now + wait >= self.deadline:
            return None
        return wait


def is_retryable(error: SheafError) -> bool:
    """Refusals that say so, and connections that could not be made; never an answer cut short."""
    return (
        error.retryable
        if isinstance(error, ProblemError)
        else isinstance(error, ConnectionFailedError) and error.unsent
    )
