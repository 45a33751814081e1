"""Batches the inner forward of library loops that stay as they are: each request runs the library's own call.

A loop is such a call on a thread of its own, which stops wherever the library asks for the model. The lane
gathers what the loops ask, answers all of it in one pass, and lets each go on in turn to its next
question. Only one of these threads runs at any time, so a library that is not made for threads (a tokenizer,
a global setting) sees one caller after the other. The idea is that of coroutines; threads are what lets code
that knows nothing of them take part.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic

from typing_extensions import TypeVar

from sheaf.backends.base import RequestT, ResponseT
from sheaf.backends.stepwise import StepwiseBackend
from sheaf.interrupts import INTERRUPTS, as_error
from sheaf_client.contracts.events import ProgressEvent

QuestionT = TypeVar("QuestionT", default=Any)
AnswerT = TypeVar("AnswerT", default=Any)


class LoopCancelled(BaseException):
    """Ends a loop whose request ended early, past the handlers of `Exception` that libraries have."""


class LibraryLoop(Generic[QuestionT, AnswerT, ResponseT]):
    """One request's library call, as far as it has come.

    Attributes:
        asked: What the loop asks of the model now; None once it has ended.
        total: Steps of the whole loop, as its backend said or corrected.
        taken: Steps taken.
        event: What the loop last told of its progress.
    """

    def __init__(
        self, run: Callable[[LibraryLoop[QuestionT, AnswerT, ResponseT]], ResponseT], total: int
    ) -> None:
        self.total = total
        self.taken = 0
        self.event: ProgressEvent | None = None
        self.asked: QuestionT | None = None
        self._run = run
        self._given: AnswerT | None = None
        self._outcome: ResponseT | BaseException | None = None
        self._cancelled = False
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._thread: threading.Thread | None = None

    def ask(self, question: QuestionT) -> AnswerT:
        """Called by the loop, in place of the model: stop until the model's answer is there; return it."""
        self.asked = question
        self._stopped.release()
        self._go.acquire()
        if self._cancelled:
            raise LoopCancelled
        given, self._given = self._given, None
        return given  # type: ignore[return-value]  # `resume` put it there

    def begin(self) -> None:
        """Run the loop up to its first question; raises what the loop raises."""
        self._thread = threading.Thread(target=self._work, name="sheaf-loop", daemon=True)
        self._thread.start()
        self._stopped.acquire()
        if isinstance(self._outcome, BaseException):
            raise self._outcome

    def resume(self, given: AnswerT) -> Exception | None:
        """Give the model's answer, and run the loop up to its next question or its end.

        Returns:
            What the loop raised, if it did.
        """
        self.asked, self._given = None, given
        self.taken += 1
        self._go.release()
        self._stopped.acquire()
        outcome = self._outcome
        if isinstance(outcome, INTERRUPTS):
            raise outcome
        return as_error(outcome) if isinstance(outcome, BaseException) else None

    def cancel(self) -> None:
        """Have the loop unwind from where it waits; returns at once."""
        self._cancelled = True
        self._go.release()

    @property
    def result(self) -> ResponseT:
        """What the loop returned."""
        if self._outcome is None or isinstance(self._outcome, BaseException):
            raise RuntimeError("the loop has not come to its end")
        return self._outcome

    def _work(self) -> None:
        try:
            self._outcome = self._run(self)
        except BaseException as error:  # noqa: BLE001 - handed to the lane
            self._outcome = error
        finally:
            self.asked = None
            self._stopped.release()


class LoopBackend(
    StepwiseBackend[RequestT, ResponseT, LibraryLoop[QuestionT, AnswerT, ResponseT]],
    Generic[RequestT, ResponseT, QuestionT, AnswerT],
):
    """A model whose library brings its own loop: only what the loop asks of the model is batched."""

    @abstractmethod
    def run(self, request: RequestT, loop: LibraryLoop[QuestionT, AnswerT, ResponseT]) -> ResponseT:
        """Make the library's own call for one request, with `loop.ask` in the place of the model.

        Runs on a thread of the loop, while no other thread of this model runs. `loop.event` may be set
        to what a caller who streams shall see after the step.
        """

    @abstractmethod
    def forward(self, questions: Sequence[QuestionT]) -> Sequence[AnswerT]:
        """Answer what several loops ask, in as few passes as their shapes allow, in their order."""

    def prepare(self, request: RequestT) -> LibraryLoop[QuestionT, AnswerT, ResponseT]:
        """Run the library's call up to where it first asks for the model."""
        loop = LibraryLoop[QuestionT, AnswerT, ResponseT](
            lambda loop: self.run(request, loop), self.steps(request)
        )
        loop.begin()
        return loop

    def step(
        self, states: Sequence[LibraryLoop[QuestionT, AnswerT, ResponseT]]
    ) -> Sequence[Exception | None]:
        """One pass of the model for all, then each loop's own work up to its next question."""
        asked = [state.asked for state in states]
        given = self.forward([question for question in asked if question is not None])
        return [state.resume(answer) for state, answer in zip(states, given, strict=True)]

    def remaining(self, state: LibraryLoop[QuestionT, AnswerT, ResponseT]) -> int:
        """Steps that are left: 0 only where the loop has ended, whatever was expected."""
        return 0 if state.asked is None else max(1, state.total - state.taken)

    def finish(self, state: LibraryLoop[QuestionT, AnswerT, ResponseT]) -> ResponseT:
        return state.result

    def progress(
        self,
        request: RequestT,  # noqa: ARG002 - for those who override it
        state: LibraryLoop[QuestionT, AnswerT, ResponseT],
    ) -> ProgressEvent | None:
        """The latest event of the loop, told once; None where it told nothing."""
        event, state.event = state.event, None
        return event

    def discard(self, state: LibraryLoop[QuestionT, AnswerT, ResponseT]) -> None:
        if state.asked is not None:
            state.cancel()
