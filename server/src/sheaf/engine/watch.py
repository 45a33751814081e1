"""Tells an observer how each request ended: once, by its outcome or because its caller left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from sheaf.engine.answers import Outcome, Outlet
from sheaf.engine.execution import as_problem
from sheaf.engine.jobs import StreamEvent
from sheaf.engine.observer import Observer
from sheaf_client import ProblemError, ResultEvent
from sheaf_client.contracts.base import BaseRequest
from sheaf_client.errors import InternalServerError


class Departure(Protocol):
    """What a caller that goes away calls, with the error that it is told, if any."""

    def __call__(self, why: ProblemError | None = None, /) -> None: ...


class Watch:
    """One request under an observer's eyes. `call` is what the observer gave for it."""

    __slots__ = ("_model", "_observer", "_open", "_request", "call")

    def __init__(self, observer: Observer, model: str, request: BaseRequest, *, streamed: bool) -> None:
        self._observer, self._model, self._request = observer, model, request
        self.call: Any = observer.began(model, request, streamed=streamed)
        self._open = [True]

    def refused(self, error: BaseException) -> BaseException:
        """An error on the request's way into the line: what to raise, which says nothing of the inside."""
        # A backend's mistake must not look like the caller's.
        told = as_problem(error, self._request) if isinstance(error, Exception) else error
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
        self._observer.ended(self.call, outcome)

    def outlet(self, outlet: Outlet) -> Outlet:
        """`outlet`, seen; told before the caller is, who may ask for the counts at once."""

        def put(outcome: Outcome) -> None:
            self.end(outcome)
            outlet(outcome)

        return put

    def emitter(self, emit: Callable[[StreamEvent], None]) -> Callable[[StreamEvent], None]:
        """The same for the events of a stream."""

        def put(event: StreamEvent) -> None:
            if isinstance(event, ProblemError):
                self.end(event)
            elif isinstance(event, ResultEvent):
                self.end(event.response)
            emit(event)

        return put

    def departure(self, leave: Callable[[], None]) -> Departure:
        """`leave`, seen."""

        def depart(why: ProblemError | None = None, /) -> None:
            self.end(why)
            leave()

        return depart
