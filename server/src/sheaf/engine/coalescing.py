"""Lets requests to quick models that come together run together, on the thread that brings them.

A quick model answers a lone request where it is asked. Where a server has read several at once, each would
pay for a batch of its own; inside of `coalesced` they wait in line, and at its end they run as batches.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sheaf.engine.fast_path import FastLane

#: The lanes in which requests of this context wait for its end.
COALESCING: ContextVar[dict[FastLane, None] | None] = ContextVar("sheaf_coalescing", default=None)


@contextmanager
def coalesced() -> Generator[None]:
    """Requests to quick models that are asked inside of it run at its end."""
    lanes: dict[FastLane, None] = {}
    token = COALESCING.set(lanes)
    try:
        yield
    finally:
        COALESCING.reset(token)
        with ExitStack() as every:  # one that is interrupted keeps no other from its turn
            for lane in lanes:
                every.callback(lane.run_waiting)
