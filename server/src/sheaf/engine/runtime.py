"""One loaded model behind its contract: what every host holds, and the order of things written once.

admit (checks, deadline) → schedule → execute → respond
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

from sheaf.backends.base import ModelBackend
from sheaf.engine.execution import as_problem
from sheaf.engine.jobs import Job, PredictJob, StreamEvent, StreamJob
from sheaf.engine.lane import Lane
from sheaf.engine.streams import Event, aiterate, iterate
from sheaf.operations import operation_of, refuse_unserved
from sheaf.scheduling.batch import bucket_value
from sheaf.scheduling.queue import Entry
from sheaf.spec import ModelSpec
from sheaf_client import ProblemError, ResultEvent
from sheaf_client.contracts.base import BaseRequest, BaseResponse
from sheaf_client.contracts.events import ProgressEvent
from sheaf_client.contracts.problem import Fault
from sheaf_client.errors import DeadlineExceededError, InvalidRequestError, UnavailableError


class ModelRuntime:
    """Owns one model. `start` loads it; then `predict`, `predict_many` and `stream` answer until `stop`.

    The asynchronous methods serve hosts with an event loop; `submit` and `iter_stream` are the same for
    threads. All raise the classes of `sheaf_client.errors`.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.backend: ModelBackend = spec.make_backend()
        self._lane: Lane | None = None

    @property
    def ready(self) -> bool:
        """Whether the model is loaded and accepts requests."""
        return self._lane is not None

    @property
    def depth(self) -> int:
        """Requests that wait."""
        return self._lane.depth if self._lane else 0

    def start(self) -> None:
        """Load the model; raises what its loading raises. A second call does nothing."""
        if self._lane is not None:
            return
        lane = Lane(self.spec.name, self.backend, self.spec.batch_policy)
        lane.start()
        try:
            lane.call(self._load).result()
        except BaseException:
            lane.close(drain=False)
            raise
        self._lane = lane

    def _load(self) -> None:
        self.backend.load()
        self.backend.warm_up()

    def stop(self, *, drain: bool = True) -> None:
        """Take no more requests, finish those that wait (or refuse them), let go of the model."""
        lane, self._lane = self._lane, None
        if lane is not None:
            lane.close(drain=drain)
            self.backend.unload()

    def submit(self, request: BaseRequest, *, timeout: float | None = None) -> Future[Any]:
        """Put a request in line; its future holds the response. Cancelling it frees the place.

        Args:
            request: A request of this model's contract.
            timeout: Seconds within which the model must have begun.

        Raises:
            InvalidRequestError: This model cannot serve the request.
            OverloadedError: Too many requests are waiting.
            UnavailableError: The model is not loaded.
        """
        lane = self._admit(request)
        future: Future[BaseResponse] = Future()
        entry = self._entry(request, PredictJob(request, future), timeout)
        lane.submit(entry)
        future.add_done_callback(lambda done: lane.discard(entry) if done.cancelled() else None)
        return future

    def predict_now(self, request: BaseRequest, *, timeout: float | None = None) -> Any:
        """Answer one request, waiting in this thread."""
        future = self.submit(request, timeout=timeout)
        try:
            return future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise _late(request) from None

    async def predict(self, request: BaseRequest, *, timeout: float | None = None) -> Any:
        """Answer one request; cancelling the caller frees its place."""
        future = asyncio.wrap_future(self.submit(request, timeout=timeout))
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            raise _late(request) from None

    async def predict_many(
        self, requests: Sequence[BaseRequest], *, timeout: float | None = None
    ) -> list[Any | ProblemError]:
        """Answer or refuse each request by itself, in their order."""
        calls = (self.predict(request, timeout=timeout) for request in requests)
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, ProblemError):
                raise outcome
        return list(outcomes)

    def stream(self, request: BaseRequest, *, timeout: float | None = None) -> AsyncGenerator[Event, None]:
        """Progress events, then the result; leaving the iteration cancels the work between two steps."""
        return aiterate(lambda emit: self._open_stream(request, emit, timeout), timeout)

    def iter_stream(self, request: BaseRequest, *, timeout: float | None = None) -> Iterator[Event]:
        """`stream` for threads."""
        return iterate(lambda emit: self._open_stream(request, emit, timeout), timeout)

    def _open_stream(
        self, request: BaseRequest, emit: Callable[[StreamEvent], None], timeout: float | None
    ) -> Callable[[], object]:
        if self.backend.streams():
            lane = self._admit(request)
            job = StreamJob(request, self.backend.stream(request), emit)
            entry = self._entry(request, job, timeout)
            entry.key = job  # a step runs alone
            lane.submit(entry)
            return job.cancelled.set

        def finish(done: Future[Any]) -> None:
            if not done.cancelled():
                error = done.exception()
                emit(
                    ResultEvent(done.result()) if error is None else as_problem(_as_exception(error), request)
                )

        future = self.submit(request, timeout=timeout)
        emit(ProgressEvent(step=0, total_steps=1))
        future.add_done_callback(finish)
        return future.cancel

    def _entry(self, request: BaseRequest, job: Job, timeout: float | None) -> Entry[Job]:
        now = time.monotonic()
        bucket = bucket_value(request, self.spec.batch_policy.bucket_by)
        key = (operation_of(request), self.backend.batch_key(request), bucket)
        deadline = None if timeout is None else now + timeout
        return Entry(job, key, self.backend.cost(request), arrived=now, deadline=deadline)

    def _admit(self, request: BaseRequest) -> Lane:
        """Refuse what this model cannot serve, before it takes a place in line."""
        lane = self._lane
        if lane is None:
            raise UnavailableError("The model is not loaded.", retry_after=1)
        if request.model_type != self.spec.model_type:
            fault = Fault(
                code="mismatch", path="/model_type", message=f"This model serves {self.spec.model_type}."
            )
            raise InvalidRequestError("The request is for another model type.", errors=[fault])
        refuse_unserved(type(self.backend), request)
        if getattr(request, "feature_ref", None) is not None:
            fault = Fault(
                code="no_feature_store", path="/feature_ref", message="This deployment has no feature store."
            )
            raise InvalidRequestError("The feature reference cannot be looked up.", errors=[fault])
        try:
            self.backend.check(request)
        except Exception as error:  # noqa: BLE001 - a backend's mistake must not look like the caller's
            problem = as_problem(error, request)
            raise problem from problem.__cause__
        return lane


def _as_exception(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else RuntimeError(repr(error))


def _late(request: BaseRequest) -> DeadlineExceededError:
    return DeadlineExceededError(
        "The deadline passed before the answer was ready.", request_id=str(request.request_id)
    )
