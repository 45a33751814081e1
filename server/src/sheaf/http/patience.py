"""How long a body may still keep a server waiting: what came lately counts, not how fast it began."""

from __future__ import annotations

from sheaf.http.limits import Limits


class Patience:
    """The time that one body has left.

    A body begins with `body_timeout`. Each byte earns its time at `min_rate`, but no more than `idle_timeout`
    can be earned ahead: who has sent much at once may not be slow for long after it.

    Args:
        limits: Which times and which rate.
        now: When the body began, in seconds of the event loop.
    """

    __slots__ = ("_idle", "_rate", "_until")

    def __init__(self, limits: Limits, now: float) -> None:
        self._idle, self._rate = limits.idle_timeout, limits.min_rate
        self._until = now + limits.body_timeout

    def until(self, now: float, came: int = 0) -> float:
        """When the next piece must be there, after one of so many bytes came."""
        longest = now + self._idle
        if self._until < longest:
            self._until = min(self._until + came / self._rate, longest)
        return min(self._until, longest)
