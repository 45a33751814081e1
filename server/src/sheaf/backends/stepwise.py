"""What a backend that works in steps is: diffusion, relaxation, roll-outs, sound made piece by piece.

The engine batches at the boundaries between steps: requests join a running batch when there is room and leave
it when they are done, and between two steps cancellation, deadlines and priorities act. A step costs the same
whoever takes it, so `cost` is that of one step.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, Generic

from typing_extensions import TypeVar

from sheaf.backends.base import ModelBackend, RequestT, ResponseT
from sheaf_client.contracts.events import ProgressEvent
from sheaf_client.errors import InvalidRequestError

StateT = TypeVar("StateT", default=Any)
#: Most requests under way at a time without an engine: an engine's `max_batch_size` by default.
MOST_TOGETHER = 32


class StepwiseBackend(ModelBackend[RequestT, ResponseT], Generic[RequestT, ResponseT, StateT]):
    """A model whose answer is the end of many steps; requests of equal `batch_key` step together, of whatever
    operation they are.

    All methods but `steps` run on the model's own thread. A step that raises must leave its states as they
    were: the engine takes it again in halves, until the culprit stands alone.
    """

    @abstractmethod
    def steps(self, request: RequestT) -> int:
        """About how many steps the request takes; 0 for one that `batch_predict` answers in a single call.

        Must be quick, and may run on any thread. It orders requests where the shortest goes first.
        """

    @abstractmethod
    def prepare(self, request: RequestT) -> StateT:
        """Do what comes before the first step, and return the state that the steps change."""

    @abstractmethod
    def step(self, states: Sequence[StateT]) -> Sequence[Exception | None]:
        """Take one step of every state, in one pass where they allow it.

        Returns:
            For each state, in their order, None, or the exception that ends this request alone.
        """

    @abstractmethod
    def remaining(self, state: StateT) -> int:
        """Steps that are left; at 0 `finish` follows."""

    @abstractmethod
    def finish(self, state: StateT) -> ResponseT:
        """The response at the end of the steps."""

    def progress(self, request: RequestT, state: StateT) -> ProgressEvent | None:
        """What to tell a caller who streams, after a step; None for nothing."""
        total = self.steps(request)
        return ProgressEvent(step=max(0, total - self.remaining(state)), total_steps=total)

    def discard(self, state: StateT) -> None:
        """Let go of a state whose request ended early. Must not block: the model may be hanging."""

    def batch_predict(self, requests: Sequence[RequestT]) -> list[ResponseT | Exception]:
        """Answer requests from the first step to the last, those of equal `batch_key` together.

        As many are under way at a time as an engine would let by default; a state may be a thread, or fill
        the memory. The engine does not call it for requests that have `steps`; it is there for callers
        without one.
        """
        answers: list[ResponseT | Exception | None] = [None] * len(requests)
        groups: dict[Hashable, deque[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(self.batch_key(request), deque()).append(index)
        for waiting in groups.values():
            self._run(requests, waiting, answers)
        return [answer or RuntimeError("the steps ended without an answer") for answer in answers]

    def _run(
        self, requests: Sequence[RequestT], waiting: deque[int], answers: list[ResponseT | Exception | None]
    ) -> None:
        """Answer those of one key, who take each other's places."""
        running: dict[int, StateT] = {}
        try:
            while waiting or running:
                while waiting and len(running) < MOST_TOGETHER:
                    index = waiting.popleft()
                    try:
                        running[index] = self.prepare(requests[index])
                    except InvalidRequestError as error:
                        answers[index] = error
                if running:
                    self._step(running, answers)
        finally:
            for state in running.values():
                self.discard(state)

    def _step(self, running: dict[int, StateT], answers: list[ResponseT | Exception | None]) -> None:
        """Let those who are under way take a step, and those who are done go."""
        stepping = [index for index, state in running.items() if self.remaining(state)]
        ends = self.step([running[index] for index in stepping]) if stepping else ()
        for index, error in zip(stepping, ends, strict=True):
            if error is not None:
                answers[index] = error
                self.discard(running.pop(index))
        for index in [i for i, state in running.items() if not self.remaining(state)]:
            answers[index] = self.finish(running[index])
            del running[index]

    def stream(self, request: RequestT) -> Iterator[ProgressEvent | ResponseT]:
        """Yield progress after each step, and last the response.

        The engine does not call it; it is there for callers without one.
        """
        if not self.steps(request):
            (answer,) = self.batch_predict([request])
            if isinstance(answer, Exception):
                raise answer
            yield answer
            return
        state = self.prepare(request)
        try:
            while self.remaining(state):
                (error,) = self.step([state])
                if error is not None:
                    raise error
                event = self.progress(request, state)
                if event is not None:
                    yield event
            answer = self.finish(state)
        except BaseException:
            self.discard(state)
            raise
        yield answer

    @classmethod
    def streams(cls) -> bool:
        """Every step can be told."""
        return True
