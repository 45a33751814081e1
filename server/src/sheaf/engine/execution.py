"""Runs a batch so that a fault stays with the request that caused it.

If the model raises, the members run again in halves until the culprit stands alone; its neighbours are
answered. What the model raised is logged and kept as the error's cause, and never told to the caller.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import ValidationError

from sheaf.backends.base import BackendDiedError, ModelBackend
from sheaf.engine.jobs import PredictJob, StreamJob
from sheaf_client import ProblemError
from sheaf_client.contracts.base import BaseRequest, BaseResponse, Usage
from sheaf_client.contracts.events import ProgressEvent
from sheaf_client.errors import BackendError

log = logging.getLogger("sheaf.engine")


class Died(Exception):  # noqa: N818 - it is an event of the engine, told to nobody outside
    """The model cannot go on. `unanswered` were in the call that killed it, or had not run yet."""

    def __init__(self, reason: Exception, unanswered: Sequence[PredictJob]) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.unanswered = list(unanswered)


def run_batch(
    backend: ModelBackend, jobs: Sequence[PredictJob], *, clock: Callable[[], float]
) -> tuple[int, int]:
    """Answer every job, each with its response or its own error.

    Returns:
        How many jobs failed, and how many members the largest call had that the memory was enough for
        (all of them where it never ran out).

    Raises:
        Died: The model cannot go on; some jobs are unanswered.
    """
    started = clock()
    run = _Run(backend)
    try:
        run.predict(list(jobs))
    except Died:
        _answer(run.outcomes, clock() - started, len(jobs))
        raise
    return _answer(run.outcomes, clock() - started, len(jobs)), run.largest or len(jobs)


class _Run:
    """One batch on its way through the model, halved where it must be."""

    def __init__(self, backend: ModelBackend) -> None:
        self._backend = backend
        self.outcomes: list[tuple[PredictJob, BaseResponse | Exception]] = []
        #: Members of the largest call that fitted into memory, once one did not; else 0.
        self.largest = 0
        self._out_of_memory = False

    def predict(self, jobs: list[PredictJob]) -> None:
        requests = [job.request for job in jobs]
        try:
            outcomes = _checked(self._backend.batch_predict(requests), requests)
        except Exception as error:  # noqa: BLE001 - whatever a model raises, its neighbours are answered
            self._recover(jobs, error)
        else:
            if self._out_of_memory:
                self.largest = max(self.largest, len(jobs))
            self.outcomes += zip(jobs, outcomes, strict=True)

    def _recover(self, jobs: list[PredictJob], error: Exception) -> None:
        if isinstance(error, BackendDiedError) or self._backend.is_fatal(error):
            raise Died(error, jobs) from error
        if self._backend.is_out_of_memory(error):
            self._out_of_memory = True
            self._backend.free_memory()
        if len(jobs) == 1:
            self.outcomes.append((jobs[0], error))
            return
        middle = len(jobs) // 2
        try:
            self.predict(jobs[:middle])
        except Died as died:
            died.unanswered += jobs[middle:]
            raise
        self.predict(jobs[middle:])


def run_step(backend: ModelBackend, job: StreamJob, *, clock: Callable[[], float]) -> bool:
    """Run one step of a stream and hand out its event; True while there is more to come.

    Raises `Died` where the model cannot go on; the stream has then ended with an error.
    """
    started = clock()
    try:
        event = next(job.events, None) if job.events is not None else None
    except Exception as error:
        job.settle(as_problem(error, job.request))
        if isinstance(error, BackendDiedError) or backend.is_fatal(error):
            raise Died(error, []) from error
        return False
    job.compute_seconds += clock() - started
    if isinstance(event, ProgressEvent):
        if not job.settled:
            job.emit(event)
        return not job.settled
    if event is None:
        text = "The model's stream ended without a result."
        job.settle(BackendError(text, request_id=str(job.request.request_id)))
    else:
        _put_usage(event, job.compute_seconds, job.queue_seconds, 1)
        job.settle(event)
    return False


def as_problem(error: Exception, request: BaseRequest) -> ProblemError:
    """The error a caller may see; refusals pass, anything else becomes an opaque `BackendError`."""
    request_id = str(request.request_id)
    if isinstance(error, ProblemError):
        error.request_id = error.request_id or request_id
        return error
    facts = {"model": request.model_name, "request_id": request_id}
    log.error("model %s failed on request %s", *facts.values(), exc_info=error, extra=facts)
    breach = isinstance(error, ValidationError)
    text = "The model's answer breaks its contract." if breach else "The model failed on this request."
    problem = BackendError(text, request_id=request_id)
    problem.__cause__ = error
    return problem


def _answer(
    outcomes: Sequence[tuple[PredictJob, BaseResponse | Exception]], seconds: float, size: int
) -> int:
    failures = 0
    for job, outcome in outcomes:
        if isinstance(outcome, Exception):
            failures += 1
            job.settle(as_problem(outcome, job.request))
        else:
            _put_usage(outcome, seconds, job.queue_seconds, size)
            job.settle(outcome)
    return failures


def _checked(outcomes: list[Any], requests: list[BaseRequest]) -> list[BaseResponse | Exception]:
    """A response that belongs to another request, or too few of them, is a fault of the backend."""
    if len(outcomes) != len(requests):
        raise RuntimeError(f"backend gave {len(outcomes)} answers to {len(requests)} requests")
    for index, (outcome, request) in enumerate(zip(outcomes, requests, strict=True)):
        if isinstance(outcome, BaseResponse):
            if outcome.request_id != request.request_id:
                outcomes[index] = RuntimeError("backend answered with another request's identifier")
        elif not isinstance(outcome, Exception):
            outcomes[index] = TypeError(f"backend gave a {type(outcome).__name__} for a response")
    return outcomes


def _put_usage(response: BaseResponse, compute: float, queue: float, size: int) -> None:
    response.metadata.usage = Usage(compute_seconds=compute, queue_seconds=queue, batch_size=size)
