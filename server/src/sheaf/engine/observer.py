"""What the engine tells those who watch it; hosts turn it into metrics, logs and spans."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from sheaf.engine.delivery import Outcome
from sheaf_client.contracts.base import BaseRequest

log = logging.getLogger("sheaf.engine")

_FAILED = "an observer of the engine failed"


@dataclass(slots=True, eq=False)
class BatchRecord:
    """One call of a model, after it.

    Attributes:
        model: Name of the deployment.
        size: Requests in the batch.
        cost: Sum of their costs, in the backend's unit.
        padded_cost: What the model computed for it; above `cost` where members were padded.
        queue_seconds: How long each member had waited for this turn.
        seconds: How long the call took.
        ended: When it was over, by `time.time()`.
        failures: Members that the model failed on.
        tokens: What `Observer.began` gave for each member.
    """

    model: str
    size: int
    cost: float
    padded_cost: float
    queue_seconds: Sequence[float]
    seconds: float
    ended: float
    failures: int
    tokens: Sequence[Any]


class Observer:
    """Sees what happens in the engine. Every method may run on any thread and must be quick.

    This class does nothing; hosts override what they need.
    """

    def began(self, model: str, request: BaseRequest, *, streamed: bool) -> Any:  # noqa: ARG002
        """A request has come, in its caller's context; what is returned travels with it."""
        return None

    def ended(self, token: Any, outcome: Outcome | None) -> None:
        """A request has its answer or its error; None where the caller left. Once for each that began.

        Args:
            token: What `began` gave for it.
            outcome: What the caller is told.
        """

    def phase(self, token: Any, name: str) -> AbstractContextManager[None]:  # noqa: ARG002
        """Surrounds a part of a request's work outside of the model, such as `feast.resolve`."""
        return nullcontext()

    def executed(self, batch: BatchRecord) -> None:
        """A call of the model is over."""

    def cached(self, model: str, *, hit: bool) -> None:
        """The cache was asked; `hit` where no call of the model was needed."""

    def refused(self, model: str, code: str) -> None:
        """A request was refused before the model saw it, with the code of the problem."""

    def reloaded(self, model: str, reason: str) -> None:
        """A model died or hung and was loaded anew."""


class SafeObserver(Observer):
    """Another observer, whose mistakes are logged and cost no request its answer."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def began(self, model: str, request: BaseRequest, *, streamed: bool) -> Any:
        try:
            return self._observer.began(model, request, streamed=streamed)
        except Exception:
            log.exception(_FAILED)
            return None

    def ended(self, token: Any, outcome: Outcome | None) -> None:
        try:
            self._observer.ended(token, outcome)
        except Exception:
            log.exception(_FAILED)

    def phase(self, token: Any, name: str) -> AbstractContextManager[None]:
        try:
            return self._observer.phase(token, name)
        except Exception:
            log.exception(_FAILED)
            return nullcontext()

    def executed(self, batch: BatchRecord) -> None:
        try:
            self._observer.executed(batch)
        except Exception:
            log.exception(_FAILED)

    def cached(self, model: str, *, hit: bool) -> None:
        try:
            self._observer.cached(model, hit=hit)
        except Exception:
            log.exception(_FAILED)

    def refused(self, model: str, code: str) -> None:
        try:
            self._observer.refused(model, code)
        except Exception:
            log.exception(_FAILED)

    def reloaded(self, model: str, reason: str) -> None:
        try:
            self._observer.reloaded(model, reason)
        except Exception:
            log.exception(_FAILED)
