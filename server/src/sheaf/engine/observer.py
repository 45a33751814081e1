"""What the engine tells those who watch it; hosts turn it into metrics, logs and spans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sheaf_client.contracts.base import BaseRequest


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """One call of a model, after it.

    Attributes:
        model: Name of the deployment.
        size: Requests in the batch.
        cost: Sum of their costs, in the backend's unit.
        padded_cost: What the model computed for it; above `cost` where members were padded.
        queue_seconds: How long each member had waited.
        seconds: How long the call took.
        ended: When it was over, by `time.time()`.
        failures: Members that the model failed on.
        traces: What `Observer.trace` gave for each member.
    """

    model: str
    size: int
    cost: float
    padded_cost: float
    queue_seconds: Sequence[float]
    seconds: float
    ended: float
    failures: int
    traces: Sequence[Any]


class Observer:
    """Sees what happens in the engine. Every method may run on any thread and must be quick.

    This class does nothing; hosts override what they need.
    """

    def trace(self, request: BaseRequest) -> Any:  # noqa: ARG002 - for those who override it
        """What shall travel with a request through the line, such as the caller's span."""
        return None

    def executed(self, batch: BatchRecord) -> None:
        """A call of the model is over."""

    def cached(self, model: str, *, hit: bool) -> None:
        """The cache was asked; `hit` where no call of the model was needed."""

    def refused(self, model: str, code: str) -> None:
        """A request was refused before the model saw it, with the code of the problem."""

    def reloaded(self, model: str, reason: str) -> None:
        """A model died or hung and was loaded anew."""
