"""One account of what the requests of a server hold in memory, from their arrival until they are answered.

A share is weighed by what becomes of a body, not by what was sent of it, and by the answer that is to come:
a small request that asks for much is refused before there is anything to hold.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Hashable
from functools import partial
from time import monotonic
from typing import TypeVar

import anyio.to_thread

from sheaf.engine.gc_tuning import without_passes
from sheaf.engine.malloc_tuning import give_back
from sheaf.http.limits import Limits
from sheaf.http.turns import Turns
from sheaf_client.contracts.problem import Fault
from sheaf_client.errors import InvalidRequestError, OverloadedError, RequestTooLargeError

T = TypeVar("T")

#: Most of the account that one request may hold, and that all of one caller may; the rest is for others.
_ONE, _CALLER = 0.75, 0.5
#: The account is so many times the largest body at least: base64 text is held four times while it is read.
_BODIES = 6
#: Bodies and answers that are worked on at once on threads: each holds its content once more meanwhile, and a
#: core is left to the event loop.
_AT_ONCE = min(4, max(1, (os.cpu_count() or 1) - 1))
#: Bytes in memory for each byte of an answer as JSON: numbers are 32 bytes, and texts are copied.
_ANSWER = 3
_MIB = 2**20
#: After so large a request the process gives back what is free; a pass over its heap takes some milliseconds.
LARGE = 64 * _MIB
#: Seconds after the end of a request when that is done: by then a model has let go of it, too.
_PAUSE = 0.5
#: Of the time that work held Python's lock, how much others have before the next does, and at most; seconds.
_BREAK, _LONGEST_BREAK = 0.25, 0.02


class Memory:
    """The account of one server. Shares are taken and given back on any thread."""

    def __init__(self, limits: Limits) -> None:
        self._all = max(limits.max_memory, _BODIES * limits.max_body)
        self._left = self._all
        self._held: dict[Hashable, int] = {}
        self._lock = threading.Lock()
        self._tidying = False
        self._turns = Turns(_AT_ONCE)
        self._lock_turns = Turns()

    @property
    def largest(self) -> int:
        """Most bytes that one request may hold."""
        return int(_ONE * self._all)

    @property
    def left(self) -> int:
        """Bytes that nobody holds; negative where answers were larger than they were taken to be."""
        return self._left

    async def run(
        self, work: Callable[[], T], size: int, share: Share | None = None, *, frees: bool = False
    ) -> T:
        """Do work that holds much, on a worker thread, with few others at once.

        Such work holds Python's lock for long, as a parser does that makes a million numbers. Of several the
        event loop would wait for each in turn, so there is one at a time; they would be no faster together.

        Args:
            work: What is done.
            size: Bytes that it is done on, about: small work goes first.
            share: Of the request that it is done for: who has much in line waits longer.
            frees: Whether it leaves Python's lock to others for most of its time.

        Raises:
            OverloadedError: The process itself gets no more memory.
        """
        caller = None if share is None else share.caller
        if frees:
            return await self._run(work, size, caller)
        async with self._lock_turns.turn(size, caller):
            started = monotonic()
            try:
                return await self._run(partial(without_passes, work), size, caller)
            finally:
                if self._lock_turns.waiting:
                    # Small requests that came meanwhile are answered before the next takes Python's lock.
                    await asyncio.sleep(min(_LONGEST_BREAK, _BREAK * (monotonic() - started)))

    async def _run(self, work: Callable[[], T], size: int, caller: Hashable) -> T:
        async with self._turns.turn(size, caller):
            try:
                return await anyio.to_thread.run_sync(work)
            except MemoryError:
                raise OverloadedError("The server is short of memory.", retry_after=1) from None

    def tidy_up(self) -> None:
        """Have the process give back what is free, soon; on the event loop."""
        if not self._tidying:
            self._tidying = True
            loop = asyncio.get_running_loop()
            loop.call_later(_PAUSE, partial(loop.run_in_executor, None, self._tidy_up))

    def _tidy_up(self) -> None:
        self._tidying = False
        give_back()

    def take(self, caller: Hashable, own: int, more: int) -> None:
        """Give `more` bytes to a request that has its `own`; raises `OverloadedError` for too many."""
        with self._lock:
            held = self._held.get(caller, 0)
            # One request alone is not held to what its caller may have at once.
            fair = held == own or held + more <= _CALLER * self._all
            if fair and more <= self._left and own + more <= self.largest:
                self._left -= more
                self._held[caller] = held + more
                return
        whose = "" if fair else " of yours"
        raise OverloadedError(f"The requests{whose} that are under way hold too much memory.", retry_after=1)

    def change(self, caller: Hashable, by: int) -> None:
        """Book what cannot be refused: what is given back, or is there already."""
        with self._lock:
            self._left -= by
            held = self._held.get(caller, 0) + by
            if held:
                self._held[caller] = held
            else:
                self._held.pop(caller, None)


class Share:
    """What one request holds; to be ended once it is answered."""

    __slots__ = ("_memory", "caller", "most", "size")

    def __init__(self, memory: Memory, caller: Hashable) -> None:
        self._memory, self.caller = memory, caller
        #: Bytes that it holds, and held at most.
        self.size = self.most = 0

    def another(self) -> Share:
        """A share of the same caller, ended by itself."""
        return Share(self._memory, self.caller)

    def take(self, more: int) -> None:
        """Hold so many bytes more.

        Raises:
            RequestTooLargeError: Together that is more than one request may ever hold.
            OverloadedError: It is more than is left now.
        """
        if self.size + more > self._memory.largest:
            most = self._memory.largest // _MIB
            raise RequestTooLargeError(
                f"The request would take more than {most} MiB of memory once it is read: send fewer values "
                "at once. The server's `max_memory` bounds it."
            )
        self._memory.take(self.caller, self.size, more)
        self.size += more
        self.most = max(self.most, self.size)

    def has_room(self, more: int) -> bool:
        """Hold so many bytes more, or less, where that can be."""
        try:
            self.take(more) if more > 0 else self.hold(self.size + more)
        except (OverloadedError, RequestTooLargeError):
            return False
        return True

    def hold(self, size: int) -> None:
        """Hold so many bytes, whatever it held before. What is less is given back, what is more is there."""
        if size != self.size:
            self._memory.change(self.caller, size - self.size)
            self.size = size

    def expect(self, answer: int) -> None:
        """Hold an answer, too, of so many bytes as JSON.

        Raises:
            InvalidRequestError: It is more than one request may ever hold.
            OverloadedError: It is more than is left now.
        """
        if self.size + _ANSWER * answer > self._memory.largest:
            most = self._memory.largest // _ANSWER // _MIB
            text = f"The answer would have about {answer // _MIB} MiB; this server gives {most} at once."
            fault = Fault(code="out_of_range", path="", message=text)
            raise InvalidRequestError("The request asks for too much at once.", errors=[fault])
        self.take(_ANSWER * answer)

    def end(self) -> None:
        """Give all back; on the event loop."""
        if self.most > LARGE:
            self._memory.tidy_up()
        self.hold(0)
