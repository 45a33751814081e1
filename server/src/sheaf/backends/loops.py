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
from queue import SimpleQueue
from typing import Any, Generic, TypeAlias

from typing_extensions import TypeVar

from sheaf.backends.base import RequestT, ResponseT
from sheaf.backends.stepwise import StepwiseBackend
from sheaf.interrupts import INTERRUPTS, as_error
from sheaf_client.contracts.events import ProgressEvent

QuestionT = TypeVar("QuestionT", default=Any)
AnswerT = TypeVar("AnswerT", default=Any)

#: What a caller who streams is told of a step, or what makes it; None for nothing.
Event: TypeAlias = ProgressEvent | Callable[[], ProgressEvent] | None


class LoopCancelled(BaseException):
    """Ends a loop whose request ended early, past the handlers of `Exception` that libraries have."""


class LibraryLoop(Generic[QuestionT, AnswerT, ResponseT]):
    """One request's library call, as far as it has come.

    Attributes:
        asked: What the loop asks of the model now; None where it stopped without a question.
        ended: Whether the library's call is over.
        total: Steps of the whole loop, as its backend said or corrected.
        taken: Steps taken.
        event: What the loop last told of its progress, or what makes it.
    """

    def __init__(
        self, run: Callable[[LibraryLoop[QuestionT, AnswerT, ResponseT]], ResponseT], total: int
    ) -> None:
        self.total = total
        self.taken = 0
        self.event: Event = None
        self.asked: QuestionT | None = None
        self.ended = False
        self._run = run
        self._outcome: ResponseT | BaseException | None = None
        self._cancelled = False
        #: Steps taken when the loop last told of one.
        self._told = 0
        # What a stopped loop goes on with, and word that it has stopped: at half the cost of semaphores.
        self._given: SimpleQueue[AnswerT | BaseException | None] = SimpleQueue()
        self._stopped: SimpleQueue[None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    # What the loop calls, on its own thread.

    def ask(self, question: QuestionT) -> AnswerT:
        """Stop, in the place of the model, until its answer is there; return it, or raise it."""
        self.asked = question
        return self._stop()  # type: ignore[return-value]  # who asks is given an answer

    def tell(self, event: Event) -> None:
        """Say that a step of the loop's is done. `event` is for a caller who streams; if a function, it is
        called for such a caller alone.

        A step for which the loop asked nothing stops here: others have their turn, and it can be cancelled.
        """
        if self.taken == self._told:
            self._stop()
        self.event, self._told = event, self.taken

    def _stop(self) -> AnswerT | None:
        if self._cancelled:
            raise LoopCancelled
        self._stopped.put(None)
        given = self._given.get()
        if isinstance(given, BaseException):
            raise given
        return given

    # What the lane calls.

    def begin(self) -> None:
        """Run the loop up to where it first stops; raises what the loop raises."""
        self._thread = threading.Thread(target=self._work, name="sheaf-loop", daemon=True)
        self._thread.start()
        self._stopped.get()
        if isinstance(self._outcome, BaseException):
            raise self._outcome

    def resume(self, given: AnswerT | Exception | None) -> Exception | None:
        """Give the model's answer, and run the loop up to where it next stops, or to its end.

        Args:
            given: None for a loop that asked nothing; an exception is raised where the loop asked.

        Returns:
            What the loop raised, if it did.
        """
        self.asked = None
        self.taken += 1
        if not self.ended:  # who cancelled it may not be the lane: a watchdog is another thread
            self._given.put(given)
            self._stopped.get()
        outcome = self._outcome
        if isinstance(outcome, INTERRUPTS):
            raise outcome
        return as_error(outcome) if isinstance(outcome, BaseException) else None

    def cancel(self) -> None:
        """Have the loop unwind from where it waits; returns at once."""
        self._cancelled = True
        self._given.put(LoopCancelled())

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
            self.asked, self.ended = None, True
            self._stopped.put(None)


class LoopBackend(
    StepwiseBackend[RequestT, ResponseT, LibraryLoop[QuestionT, AnswerT, ResponseT]],
    Generic[RequestT, ResponseT, QuestionT, AnswerT],
):
    """A model whose library brings its own loop: only what the loop asks of the model is batched."""

    @abstractmethod
    def run(self, request: RequestT, loop: LibraryLoop[QuestionT, AnswerT, ResponseT]) -> ResponseT:
        """Make the library's own call for one request, with `loop.ask` in the place of the model.

        Runs on a thread of the loop, while no other thread of this model runs. `loop.tell` says after a
        step what a caller who streams shall see.
        """

    @abstractmethod
    def forward(self, questions: Sequence[QuestionT]) -> Sequence[AnswerT | Exception]:
        """Answer what several loops ask, in as few passes as their shapes allow, in their order.

        An exception in the place of an answer is raised in that loop, where it asked.
        """

    def prepare(self, request: RequestT) -> LibraryLoop[QuestionT, AnswerT, ResponseT]:
        """Run the library's call up to where it first stops."""
        loop = LibraryLoop[QuestionT, AnswerT, ResponseT](
            lambda loop: self.run(request, loop), self.steps(request)
        )
        loop.begin()
        return loop

    def step(
        self, states: Sequence[LibraryLoop[QuestionT, AnswerT, ResponseT]]
    ) -> Sequence[Exception | None]:
        """One pass of the model for all who ask, then each loop's own work up to where it next stops."""
        asked = {state: state.asked for state in states if state.asked is not None}
        given: Sequence[AnswerT | Exception] = self.forward(list(asked.values())) if asked else ()
        answers = dict(zip(asked, given, strict=True))
        return [state.resume(answers.get(state)) for state in states]

    def remaining(self, state: LibraryLoop[QuestionT, AnswerT, ResponseT]) -> int:
        """Steps that are left: 0 only where the loop has ended, whatever was expected."""
        return 0 if state.ended else max(1, state.total - state.taken)

    def finish(self, state: LibraryLoop[QuestionT, AnswerT, ResponseT]) -> ResponseT:
        return state.result

    def progress(
        self,
        request: RequestT,  # noqa: ARG002 - for those who override it
        state: LibraryLoop[QuestionT, AnswerT, ResponseT],
    ) -> ProgressEvent | None:
        """The latest event of the loop, told once; None where it told nothing."""
        event, state.event = state.event, None
        return event() if callable(event) else event

    def discard(self, state: LibraryLoop[QuestionT, AnswerT, ResponseT]) -> None:
        if not state.ended:
            state.cancel()
