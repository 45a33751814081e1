"""What waits in a model's line: a request with the place its answer goes to, or one step of a stream."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sheaf_client import ProblemError, ResultEvent
from sheaf_client.contracts.base import BaseRequest, BaseResponse
from sheaf_client.contracts.events import ProgressEvent

#: What a stream hands out: progress, then one result or one error.
StreamEvent: TypeAlias = ProgressEvent | ResultEvent[Any] | ProblemError


@dataclass(eq=False, slots=True)
class PredictJob:
    """A request that shares batches; its future is answered exactly once."""

    request: BaseRequest
    future: Future[BaseResponse]
    queue_seconds: float = 0.0

    def fail(self, error: BaseException) -> None:
        with contextlib.suppress(InvalidStateError):  # the caller left first
            self.future.set_exception(error)

    def answer(self, response: BaseResponse) -> None:
        with contextlib.suppress(InvalidStateError):
            self.future.set_result(response)


@dataclass(eq=False, slots=True)
class StreamJob:
    """A stream with steps of its own: each turn in the line runs one step."""

    request: BaseRequest
    events: Iterator[ProgressEvent | BaseResponse]
    emit: Callable[[StreamEvent], None]
    cancelled: threading.Event = field(default_factory=threading.Event)
    compute_seconds: float = 0.0
    queue_seconds: float = 0.0

    def fail(self, error: BaseException) -> None:
        if not self.cancelled.is_set() and isinstance(error, ProblemError):
            self.emit(error)
        self.cancelled.set()


Job: TypeAlias = PredictJob | StreamJob
