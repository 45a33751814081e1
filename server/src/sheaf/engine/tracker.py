"""One request up to its outcome: where that goes, and an observer that is told once how it ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from sheaf.engine.delivery import Outcome, Sink
from sheaf.engine.faults import problem_for
from sheaf.engine.jobs import StreamEvent
from sheaf.engine.observer import Observer
from sheaf.interrupts import INTERRUPTS, as_error
from sheaf_client.contracts.base import BaseRequest
from sheaf_client.errors import DeadlineExceededError, InternalServerError, ProblemError
from sheaf_client.protocol import ResultEvent

SinkT = TypeVar("SinkT", bound=Sink)


class Cancel(Protocol):
    """What a caller that goes away calls, with the error that it is told, if any."""

    def __call__(self, why: ProblemError | None = None, /) -> None: ...


class RequestTracker(Generic[SinkT]):
    """One request under an observer's eyes; called with its outcome.

    Quick models often answer before `submit` returns, so the sink is made when it is needed. Call
    `ensure_sink`, then look at `outcome` once more before you wait.

    Attributes:
        token: What the observer gave for the request.
        outcome: What came before there was a sink.
        sink: Where the outcome goes, from `ensure_sink` on.
        release: Frees the request's place in line.
    """

    __slots__ = ("_make", "_model", "_observer", "_open", "_request", "outcome", "release", "sink", "token")

    def __init__(
        self,
        observer: Observer,
        model: str,
        request: BaseRequest,
        make: Callable[[], SinkT],
        *,
        streamed: bool = False,
    ) -> None:
        self._observer, self._model, self._request, self._make = observer, model, request, make
        self.token: Any = observer.began(model, request, streamed=streamed)
        self._open = [True]
        self.outcome: Outcome | None = None
        self.sink: SinkT | None = None
        self.release: Callable[[], None] | None = None

    def ensure_sink(self) -> SinkT:
        """The sink, made here where the outcome is not there at once."""
        sink = self.sink
        if sink is None:
            sink = self.sink = self._make()
        return sink

    def __call__(self, outcome: Outcome) -> None:
        # Before the caller is told, who may ask for the counts at once.
        self.end(outcome)
        if self.sink is None:
            self.outcome = outcome
        if self.sink is not None:  # it may have been made meanwhile
            self.sink(outcome)

    def refused(self, error: BaseException) -> BaseException:
        """An error on the request's way into the line: what to raise, which says nothing of the inside."""
        # A backend's mistake must not look like the caller's.
        told = error if isinstance(error, INTERRUPTS) else problem_for(as_error(error), self._request)
        known = told if isinstance(told, ProblemError) else InternalServerError()
        self._observer.refused(self._model, known.code)
        self.end(known)
        return told

    def end(self, outcome: Outcome | None = None) -> None:
        """The outcome, or None where the caller left; whoever comes later is not heard."""
        try:
            self._open.pop()  # one thread alone gets it
        except IndexError:
            return
        self._observer.ended(self.token, outcome)

    def cancel(self, why: ProblemError | None = None, /) -> None:
        """The caller goes away."""
        self.end(why)
        if self.release is not None:
            self.release()

    def late(self) -> DeadlineExceededError:
        """The caller's time is over, and it goes away: what it is told."""
        late = DeadlineExceededError(
            "The deadline passed before the answer was ready.", request_id=str(self._request.request_id)
        )
        self.cancel(late)
        return late

    def emitter(self, emit: Callable[[StreamEvent], None]) -> Callable[[StreamEvent], None]:
        """`emit`, with the end of a stream seen."""

        def put(event: StreamEvent) -> None:
            if isinstance(event, ProblemError):
                self.end(event)
            elif isinstance(event, ResultEvent):
                self.end(event.response)
            emit(event)

        return put
