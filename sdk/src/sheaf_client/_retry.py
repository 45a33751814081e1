"""When to try again and how long to wait: pure decisions, the same for both kinds of client.

Tried again: refusals that the schema's table of problems marks so, and connections that were never made.
Tried again once, and at once: a connection that broke before its answer began. Most often the server closed
a kept connection just as the request went out, and never saw it; a prediction may be repeated, and once only
keeps a request that kills its server from being sent on and on. Not tried again: a connection that broke
later, or an answer that did not come in time. The model may be at work by then, and a second run would
double the load of a server that is slow already. Who wants it can do it in middleware: the idempotency key
is the same on every try.

A server may ask for a wait, by a problem's `retry_after` or the header; one that is too long, or goes beyond
the call's own time, ends the call at once. The numbers are the schema's (`common/retries.yaml`).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from sheaf_client._errors import ConnectionFailedError, ProblemError, SheafError
from sheaf_client.errors._retries import BASE, CAP, FACTOR, LONGEST_ASKED

#: Beyond so many tries the pause is at its cap with any factor; its power would be no number any more.
_STEPS = 64
_SECONDS = re.compile(r"[0-9]{1,15}")
_DATE = re.compile(r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT")


@dataclass(frozen=True)
class RetryPolicy:
    """At most `max_retries` more tries, all within `deadline` seconds on the clock of the caller.

    `draw` gives numbers from 0 to 1, evenly.
    """

    max_retries: int
    deadline: float | None
    draw: Callable[[], float] = random.random

    def delay(self, error: SheafError, attempt: int, now: float, *, repeated: bool) -> float | None:
        """Seconds to wait before try number `attempt + 1`, or None to give up.

        `repeated` says that an earlier try of this call was unanswered already.
        """
        if attempt >= self.max_retries:
            return None
        if is_unanswered(error):
            wait = None if repeated else 0.0
        else:
            wait = self._wait(error, attempt) if is_retryable(error) else None
        if wait is None or (self.deadline is not None and now + wait >= self.deadline):
            return None
        return wait

    def _wait(self, error: SheafError, attempt: int) -> float | None:
        """Drawn up to a bound that grows, beside what the server asks for; None where that is too much."""
        # All of the pause is drawn: callers that were refused together must not come back together.
        pause = self.draw() * min(CAP, BASE * FACTOR ** min(attempt, _STEPS))
        asked = error.retry_after if isinstance(error, ProblemError) else None
        if asked is None:
            return pause
        return asked + pause if asked <= LONGEST_ASKED else None


def is_unanswered(error: SheafError) -> bool:
    """Whether the connection broke before the answer began."""
    return isinstance(error, ConnectionFailedError) and error.unanswered


def is_retryable(error: SheafError) -> bool:
    """Refusals that say so, and connections that could not be made; never an answer cut short."""
    return (
        error.retryable
        if isinstance(error, ProblemError)
        else isinstance(error, ConnectionFailedError) and error.unsent
    )


def retry_after(header: str) -> float | None:
    """The seconds of a `Retry-After` header, which holds them or a date; None where it holds neither."""
    if _SECONDS.fullmatch(header):
        return float(header)
    if not _DATE.fullmatch(header):
        return None
    try:
        until = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (until - datetime.now(UTC)).total_seconds())
