"""What a lane works with: its model, what there is to do, and how those are told who get no answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Protocol

from sheaf.engine.jobs import Job
from sheaf.interrupts import as_error
from sheaf.scheduling.queue import Entry
from sheaf_client.errors import DeadlineExceededError, UnavailableError


class LaneModel(Protocol):
    """What a lane needs of the model whose jobs it runs; all but `hung` on its thread or a caller's.

    `reload` and `unload_backend` may still run on a thread that was given up, beside its successor.
    """

    @property
    def padded(self) -> bool: ...

    @property
    def ready(self) -> bool:
        """Whether it can run; where not, it is loaded anew first."""
        ...

    @property
    def pause(self) -> float | None:
        """Seconds to wait before it is loaded anew; None before the first attempt."""
        ...

    def max_cost(self, leader: Entry[Job]) -> float:
        """The most that a batch may cost which is led by that entry."""
        ...

    def run(self, batch: Sequence[Entry[Job]]) -> list[Entry[Job]]:
        """Settle every job, or give back those that shall run again."""
        ...

    def reload(self, wanted: Callable[[], bool], /) -> Any:
        """Load another for one that died: for `adopt`, or once it is not `wanted`, `unload_backend`."""
        ...

    def adopt(self, loaded: Any, /) -> None:
        """Use what `reload` gave."""
        ...

    def unload_backend(self, loaded: Any, /) -> None:
        """Unload what `reload` gave."""
        ...

    def hung(self, batch: Sequence[Entry[Job]], seconds: float) -> None:
        """A call or load did not come back: settle its jobs; `reload` follows. Runs beside that thread."""
        ...

    def unload(self) -> None:
        """Let go of the model: nothing follows."""
        ...


class LaneState(Enum):
    """How far a lane is on its way from its first job to its end."""

    OPEN = auto()
    #: It takes no more jobs, and finishes those that wait.
    DRAINING = auto()
    #: It takes no more jobs, and refuses those that wait.
    REFUSING = auto()
    CLOSED = auto()


@dataclass(frozen=True, slots=True)
class Idle:
    """There is nothing to do, for so many seconds; None for until somebody comes."""

    seconds: float | None


@dataclass(slots=True, eq=False)
class Running:
    """What is at work, since when, and how many seconds it may take."""

    since: float
    batch: Sequence[Entry[Job]]
    limit: float | None
    #: For a function of the host: where its result goes.
    future: Future[Any] | None = None

    @property
    def abandoned(self) -> bool:
        """Whether all who waited for it have left; what was answered, or has no callers, was not."""
        if self.future is not None:
            return self.future.cancelled()
        return bool(self.batch) and all(entry.item.abandoned for entry in self.batch)


@dataclass(frozen=True, slots=True)
class LaneTask:
    """A function that somebody wants run on the lane's thread, and the seconds it may take."""

    function: Callable[[], Any]
    future: Future[Any]
    limit: float | None = None

    def run(self) -> None:
        try:
            result = self.function()
        except BaseException as error:  # noqa: BLE001 - handed to the one who asked
            with suppress(InvalidStateError):  # that one has left
                self.future.set_exception(as_error(error))
        else:
            with suppress(InvalidStateError):
                self.future.set_result(result)


def fail_expired(entries: Sequence[Entry[Job]]) -> None:
    for entry in entries:
        when = "while the model was at work" if entry.item.started else "before the model could begin"
        entry.item.settle(DeadlineExceededError(f"The deadline passed {when}."))


def fail_stopped(entries: Sequence[Entry[Job]]) -> None:
    for entry in entries:
        entry.item.settle(stopping())


def stopping() -> UnavailableError:
    """What those are told whom a model that stops does not answer; another may by then be in its place."""
    return UnavailableError("The model is stopping.", retry_after=1)
