"""What waits in a model's line: a request with the place its answer goes to, or the next step of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from sheaf.engine.delivery import Outcome, Sink
from sheaf_client.contracts.base import BaseRequest, BaseResponse
from sheaf_client.contracts.events import ProgressEvent
from sheaf_client.errors import ProblemError
from sheaf_client.protocol import ResultEvent

if TYPE_CHECKING:
    from sheaf.backends.stepwise import StepwiseBackend

#: What a stream hands out: progress, then one result or one error.
StreamEvent: TypeAlias = ProgressEvent | ResultEvent[Any] | ProblemError


class _Job:
    """A request with one place for its outcome, used once: whoever comes later comes too late."""

    __slots__ = ("_sinks", "abandoned", "queue_seconds", "request", "token")

    def __init__(self, request: BaseRequest, sink: Sink, token: Any) -> None:
        self.request = request
        self.token = token
        self.queue_seconds = 0.0
        #: Whether its caller left, or was refused, before it had an answer.
        self.abandoned = False
        self._sinks = [sink]

    @property
    def settled(self) -> bool:
        return not self._sinks

    def settle(self, outcome: Outcome) -> bool:
        """Give the outcome to the caller; False where it had one, or has left."""
        try:
            sink = self._sinks.pop()  # one thread alone gets it
        except IndexError:
            return False
        if isinstance(outcome, ProblemError):
            outcome.request_id = outcome.request_id or str(self.request.request_id)
        sink(outcome)
        return True

    def abandon(self) -> None:
        """The caller has left: nobody is told, and no step of a stream follows."""
        try:
            self._sinks.pop()
        except IndexError:
            return  # it had its outcome
        self.abandoned = True

    def refuse(self, problem: ProblemError) -> None:
        """Tell its caller that there will be no answer: nobody waits for it from now on."""
        if self.settle(problem):
            self.abandoned = True

    @property
    def started(self) -> bool:
        """Whether the model holds something for it between two turns, which `close` lets go of."""
        return False

    def close(self) -> None:
        """Have the model let go of what it holds for this job; on the model's own thread."""


class PredictJob(_Job):
    """A request that shares batches."""

    __slots__ = ("retried",)

    def __init__(self, request: BaseRequest, sink: Sink, token: Any = None) -> None:
        super().__init__(request, sink, token)
        #: Whether it was in a batch that took the model down with it.
        self.retried = False


class StreamJob(_Job):
    """A stream with steps of its own: each turn in the line runs one step."""

    __slots__ = ("compute_seconds", "emit", "events", "failed", "owner")

    def __init__(self, request: BaseRequest, emit: Callable[[StreamEvent], None], token: Any = None) -> None:
        super().__init__(request, self._end, token)
        #: The model's own iterator, from its first step on, and the backend that gave it.
        self.events: Iterator[ProgressEvent | BaseResponse] | None = None
        self.owner: object = None
        self.emit = emit
        self.failed = False
        self.compute_seconds = 0.0

    @property
    def started(self) -> bool:
        return self.events is not None

    def close(self) -> None:
        """Let the model's own iterator clean up."""
        close = getattr(self.events, "close", None)
        if close is not None:
            close()

    def _end(self, outcome: Outcome) -> None:
        self.failed = isinstance(outcome, ProblemError)
        self.emit(outcome if isinstance(outcome, ProblemError) else ResultEvent(outcome))


class StepJob(_Job):
    """A request that the model answers step by step, each step with others at whatever step of theirs."""

    __slots__ = ("compute_seconds", "owner", "retried", "shared", "state", "tell", "told")

    def __init__(
        self,
        request: BaseRequest,
        sink: Sink,
        token: Any = None,
        tell: Callable[[ProgressEvent], None] | None = None,
    ) -> None:
        super().__init__(request, sink, token)
        #: The model's state for it, from its first turn on, and the backend that made it.
        self.state: Any = None
        self.owner: StepwiseBackend | None = None
        #: Where progress goes, and the last step that was told.
        self.tell = tell
        self.told = 0
        #: Whether it was in a step that took the model down with it.
        self.retried = False
        #: Most requests that shared a step with it.
        self.shared = 1
        self.compute_seconds = 0.0

    @property
    def started(self) -> bool:
        return self.owner is not None

    def begin(self, backend: StepwiseBackend) -> None:
        """Prepare its state; raises what that raises."""
        self.state = backend.prepare(self.request)
        self.owner = backend

    def end(self) -> None:
        """The model is done with its state."""
        self.owner = self.state = None

    def close(self) -> None:
        """Let the model discard its state: it begins anew, if it has another turn."""
        owner, state = self.owner, self.state
        self.end()
        if owner is not None:
            owner.discard(state)


Job: TypeAlias = PredictJob | StreamJob | StepJob
