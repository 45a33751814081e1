"""Answers the requests that one turn of the event loop has read together: one after the other costs more."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Protocol, TypeAlias

from sheaf.engine.gathering import gathered

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from sheaf.http.protocol import BoundedProtocol

#: A request that is there as a whole, and its connection.
Taken: TypeAlias = "tuple[BoundedProtocol, RequestResponseCycle]"


class Begun(Protocol):
    """A request that an app has begun with before there is a task for it."""

    def finish(self) -> bool:
        """Answer where that takes no waiting; False where a task is to do the `rest`."""
        ...

    def rest(self) -> Awaitable[None]:
        """Wait for what has to be waited for, and answer."""
        ...


class Gathering:
    """The requests that one turn of the event loop has read: all begin, quick models run, all are answered.

    Each of these is the same code again and again, which is faster by a third than one request after the
    other, and quick models get batches. Where the last turn brought one request alone, the first of the next
    does not wait for others.
    """

    def __init__(self) -> None:
        self._cycles: list[Taken] = []
        self._alone = True
        self._count = 0  # of this turn

    def add(self, protocol: BoundedProtocol, cycle: RequestResponseCycle) -> None:
        """Answer a request at the end of this turn, or before."""
        self._count += 1
        if self._count == 1:
            protocol.loop.call_soon(self._end)
            if self._alone:
                self._answer([(protocol, cycle)])
                return
        self._cycles.append((protocol, cycle))

    def _end(self) -> None:
        cycles, self._cycles = self._cycles, []
        self._alone, self._count = self._count == 1, 0
        self._answer(cycles)

    def _answer(self, cycles: Sequence[Taken]) -> None:
        with gathered() if len(cycles) > 1 else nullcontext():
            begun = [protocol.begin(cycle) for protocol, cycle in cycles]
        for (protocol, cycle), request in zip(cycles, begun, strict=True):
            if request is not None:
                protocol.finish(cycle, request)
