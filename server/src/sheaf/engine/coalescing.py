"""Lets requests that come together run together.

Where a server has read several at once, the first would wake its model's thread, which then fights with the
reading of the others for the interpreter's lock and gets a batch of one. Inside of `coalesced` they wait in
line; at its end quick models run them on the thread that brought them, and the threads of others are woken.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sheaf.engine.fast_path import FastLane
    from sheaf.engine.jobs import Job
    from sheaf.scheduling.queue import Entry

#: Seconds after which a model is woken although others still come. CPython hands its lock over after as many.
_LONGEST = 0.005


class Turn:
    """The lanes in which requests wait for the end of a turn."""

    __slots__ = ("_lanes", "over")

    def __init__(self) -> None:
        #: Whether the thread that brought the requests may run all of them, and when the first of them came.
        self._lanes: dict[FastLane, tuple[bool, float]] = {}
        #: Set at the end; what was begun inside of it and goes on elsewhere may still hold it.
        self.over = False

    def put(self, lane: FastLane, entry: Entry[Job], *, here: bool) -> None:
        """Put a request in line; raises what `Lane.submit` does."""
        all_here, since = self._lanes.get(lane, (True, entry.since))
        self._lanes[lane] = all_here and here, since
        lane.submit(entry, wake=not here and entry.since - since > _LONGEST)

    def end(self) -> None:
        """Run what waits, or have it run."""
        self.over = True
        with ExitStack() as every:  # one that is interrupted keeps no other from its turn
            for lane, (here, _) in self._lanes.items():
                every.callback(lane.run_waiting if here else lane.wake)


#: The turn that requests of this context belong to.
COALESCING: ContextVar[Turn | None] = ContextVar("sheaf_coalescing", default=None)


@contextmanager
def coalesced() -> Generator[None]:
    """Requests that are asked inside of it run at its end, or begin to 5 ms after the first of them."""
    turn = Turn()
    token = COALESCING.set(turn)
    try:
        yield
    finally:
        COALESCING.reset(token)
        turn.end()
