"""The short wait for models at work: most answer within milliseconds, and a task for each would cost more.

A task sees it where a request's time is over; so it is made for whoever has waited a moment. Where a client
leaves before that, its connection says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

#: Seconds after which a task is made, and twice as many at most.
_MOMENT = 0.02


class Asked(Protocol):
    """A request that was put to its model."""

    def call_back(self, tell: Callable[[], None] | None, within: float) -> bool:
        """Have `tell` called on the event loop once there is an outcome; None takes that back.

        It is to be taken back `within` so many seconds; False where a task is to wait at once.
        """
        ...


class ShortWait:
    """The requests of a server that wait for their models, and have no task yet."""

    def __init__(self) -> None:
        #: With what begins their tasks: who came since the last look at them, and before it.
        self._fresh: dict[Asked, Callable[[], None]] = {}
        self._waiting: dict[Asked, Callable[[], None]] = {}
        self._looks = False

    def add(self, asked: Asked, go_on: Callable[[], None], begin_task: Callable[[], None]) -> None:
        """Call `go_on` where the outcome comes soon, else `begin_task`; neither may raise."""

        def end() -> None:
            self._fresh.pop(asked, None)
            self._waiting.pop(asked, None)
            go_on()

        if not asked.call_back(end, 3 * _MOMENT):
            begin_task()
            return
        self._fresh[asked] = begin_task
        if not self._looks:
            self._looks = True
            asyncio.get_running_loop().call_later(_MOMENT, self._look)

    def forget(self, asked: Asked) -> bool:
        """Wait for that request no more; False where it does not wait here."""
        waited = self._fresh.pop(asked, None) or self._waiting.pop(asked, None)
        if waited is None:
            return False
        asked.call_back(None, 0)
        return True

    def _look(self) -> None:
        slow, self._waiting, self._fresh = self._waiting, self._fresh, {}
        self._looks = bool(self._waiting)
        if self._looks:
            asyncio.get_running_loop().call_later(_MOMENT, self._look)
        for asked, begin_task in slow.items():
            asked.call_back(None, 0)
            begin_task()
