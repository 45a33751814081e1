"""Runs a batch so that a fault stays with the request that caused it.

If the model raises, the members run again in halves until the culprit stands alone; its neighbours are
answered. What the model raised is logged and kept as the error's cause, and never told to the caller.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from sheaf.backends.base import ModelBackend
from sheaf.engine.jobs import PredictJob, StreamJob
from sheaf_client import ProblemError, ResultEvent
from sheaf_client.contracts.base import BaseRequest, BaseResponse, Usage
from sheaf_client.contracts.events import ProgressEvent
from sheaf_client.errors import BackendError

log = logging.getLogger("sheaf.engine")


def run_batch(backend: ModelBackend, jobs: Sequence[PredictJob]) -> None:
    """Answer every job, each with its response or its own error; never raises."""
    started = time.perf_counter()
    outcomes = _predict(backend, [job.request for job in jobs])
    seconds = time.perf_counter() - started
    for job, outcome in zip(jobs, outcomes, strict=True):
        if isinstance(outcome, Exception):
            job.fail(as_problem(outcome, job.request))
        else:
            _put_usage(outcome, seconds, job.queue_seconds, len(jobs))
            job.answer(outcome)


def run_step(job: StreamJob) -> bool:
    """Run one step of a stream and hand out its event; True while there is more to come."""
    started = time.perf_counter()
    try:
        event = next(job.events, None)
    except Exception as error:  # noqa: BLE001 - whatever a model raises becomes the end of its stream
        job.fail(as_problem(error, job.request))
        return False
    job.compute_seconds += time.perf_counter() - started
    if isinstance(event, ProgressEvent):
        job.emit(event)
        return not job.cancelled.is_set()
    if event is None:
        job.fail(
            BackendError("The model's stream ended without a result.", request_id=str(job.request.request_id))
        )
    else:
        _put_usage(event, job.compute_seconds, job.queue_seconds, 1)
        job.emit(ResultEvent(event))
    return False


def as_problem(error: Exception, request: BaseRequest) -> ProblemError:
    """The error a caller may see; refusals pass, anything else becomes an opaque `BackendError`."""
    request_id = str(request.request_id)
    if isinstance(error, ProblemError):
        error.request_id = error.request_id or request_id
        return error
    log.error("model %s failed on request %s", request.model_name, request_id, exc_info=error)
    breach = isinstance(error, ValidationError)
    text = "The model's answer breaks its contract." if breach else "The model failed on this request."
    problem = BackendError(text, request_id=request_id)
    problem.__cause__ = error
    return problem


def _predict(backend: ModelBackend, requests: list[BaseRequest]) -> list[BaseResponse | Exception]:
    try:
        return _checked(backend.batch_predict(requests), requests)
    except Exception as error:  # noqa: BLE001 - whatever a model raises, its neighbours are answered
        if len(requests) == 1:
            return [error]
        middle = len(requests) // 2
        return _predict(backend, requests[:middle]) + _predict(backend, requests[middle:])


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
