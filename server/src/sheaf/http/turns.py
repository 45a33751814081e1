"""Whose turn it is where few work at once: small work before large, and who has little in line before others.

First come, first served would have a body of some kilobytes wait for a hundred large ones before it. Nobody
waits for ever: what is large, or one of many, counts as if it had come later by so much.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Hashable
from contextlib import asynccontextmanager
from heapq import heapify, heappop, heappush
from itertools import count

#: Work of so many bytes counts as if it had come a second later, for each that its caller has in line.
_SECOND = 100_000
#: Larger work counts as no larger than this.
_LARGEST = 10 * _SECOND


class Turns:
    """A line before so many places; on one event loop."""

    def __init__(self, places: int = 1) -> None:
        self._free = places
        self._line: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = count()
        self._of = Counter[Hashable]()  # those of each caller in line, and at work

    @property
    def waiting(self) -> bool:
        """Whether anybody waits."""
        return bool(self._line)

    @asynccontextmanager
    async def turn(self, size: int, caller: Hashable) -> AsyncGenerator[None]:
        """Wait for a turn, and have it."""
        self._of[caller] += 1
        try:
            await self._wait(min(size, _LARGEST) * self._of[caller])
            try:
                yield
            finally:
                self._pass_on()
        finally:
            self._of[caller] -= 1
            if not self._of[caller]:
                del self._of[caller]

    async def _wait(self, size: int) -> None:
        if self._free:
            self._free -= 1
            return
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        place = (loop.time() + size / _SECOND, next(self._numbers), turn)
        heappush(self._line, place)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._line = [other for other in self._line if other is not place]
                heapify(self._line)
            else:
                self._pass_on()  # the turn came as its owner left
            raise

    def _pass_on(self) -> None:
        if self._line:
            heappop(self._line)[-1].set_result(None)
        else:
            self._free += 1
