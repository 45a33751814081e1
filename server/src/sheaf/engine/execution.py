"""Runs a batch, or one step of several requests, so that a fault stays with the request that caused it.

If the model raises, the members run again in halves until the culprit stands alone; its neighbours are
answered. What the model raised is logged and kept as the error's cause, and never told to the caller.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from sheaf.backends.base import ModelBackend
from sheaf.engine.faults import diagnose, problem_for
from sheaf.engine.jobs import Job, PredictJob, StepJob, StreamJob
from sheaf.interrupts import INTERRUPTS, as_error
from sheaf_client.contracts.base import BaseRequest, BaseResponse, Usage
from sheaf_client.contracts.events import ProgressEvent
from sheaf_client.errors import BackendError

log = logging.getLogger("sheaf.engine")

JobT = TypeVar("JobT", PredictJob, StepJob)
OutcomeT = TypeVar("OutcomeT")


class ModelDied(Exception):  # noqa: N818 - it is an event of the engine, told to nobody outside
    """The model cannot go on. `unanswered` were in the call that killed it, or had not run yet."""

    def __init__(self, reason: Exception, unanswered: Sequence[Job]) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.unanswered = list(unanswered)


def run_batch(
    backend: ModelBackend,
    jobs: Sequence[PredictJob],
    *,
    clock: Callable[[], float],
    spent: Callable[[float], None] = lambda _: None,
) -> tuple[int, list[list[PredictJob]] | None]:
    """Answer every job, each with its response or its own error.

    `spent` takes the seconds that the model worked, before anybody is told.

    Returns:
        How many jobs failed; and, where memory ran out, the jobs of each call that fitted after that
        (None where it never ran out).

    Raises:
        ModelDied: The model cannot go on; some jobs are unanswered.
    """

    def predict(jobs: list[PredictJob]) -> list[BaseResponse | Exception]:
        requests = [job.request for job in jobs]
        return checked(backend.batch_predict(requests), requests)

    started, failures = clock(), 0
    bisection: Bisection[PredictJob, BaseResponse] = Bisection(backend, predict)
    try:
        bisection.run(list(jobs))
    finally:
        seconds = clock() - started
        spent(seconds)
        for job, outcome in bisection.outcomes:
            failures += not settle(job, outcome, seconds, len(jobs))
        bisection.outcomes.clear()  # errors hold this frame
    return failures, bisection.fitted


class Bisection(Generic[JobT, OutcomeT]):
    """Several jobs on their way through one call of the model, in halves where it must be."""

    def __init__(
        self, backend: ModelBackend, call: Callable[[list[JobT]], Sequence[OutcomeT | Exception]]
    ) -> None:
        self._backend = backend
        self._call: Callable[[list[JobT]], Sequence[OutcomeT | Exception]] = call
        self.outcomes: list[tuple[JobT, OutcomeT | Exception]] = []
        #: The calls that fitted into memory, once one did not.
        self.fitted: list[list[JobT]] | None = None

    def run(self, jobs: list[JobT]) -> None:
        """Have the model called; raises `ModelDied` where it cannot go on."""
        try:
            outcomes = self._call(jobs)
        except INTERRUPTS:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a model raises, its neighbours are answered
            self._recover(jobs, as_error(error))
        else:
            if self.fitted is not None:
                self.fitted.append(jobs)
            self.outcomes += zip(jobs, outcomes, strict=True)

    def _recover(self, jobs: list[JobT], error: Exception) -> None:
        dead, out_of_memory = diagnose(self._backend, error)
        if dead:
            raise ModelDied(error, jobs) from error
        if out_of_memory and self.fitted is None:
            self.fitted = []
        if len(jobs) == 1:
            self.outcomes.append((jobs[0], error))
            return
        middle = len(jobs) // 2
        try:
            self.run(jobs[:middle])
        except ModelDied as died:
            died.unanswered += jobs[middle:]
            raise
        self.run(jobs[middle:])


def step_stream(backend: ModelBackend, job: StreamJob, *, clock: Callable[[], float]) -> bool:
    """Run one step of a stream and hand out its event; True while there is more to come.

    Raises `ModelDied` where the model cannot go on; the stream has then ended with an error.
    """
    started = clock()
    try:
        if job.events is None:
            job.events, job.owner = iter(backend.stream(job.request)), backend
        event = next(job.events, None)
    except INTERRUPTS:
        raise
    except BaseException as raised:  # noqa: BLE001 - as above
        error = as_error(raised)
        job.settle(problem_for(error, job.request))
        if diagnose(backend, error)[0]:
            raise ModelDied(error, []) from error
        return False
    job.compute_seconds += clock() - started
    if isinstance(event, ProgressEvent):
        if not job.settled:
            job.emit(event)
        return not job.settled
    if event is None:
        job.settle(BackendError("The model's stream ended without a result."))
    else:
        settle(job, checked([event], [job.request])[0], job.compute_seconds, 1)
    return False


def settle(job: Job, outcome: BaseResponse | Exception, seconds: float, size: int) -> bool:
    """Tell a job's caller; False where there was no answer to tell."""
    if not isinstance(outcome, Exception):
        try:
            usage = Usage(compute_seconds=seconds, queue_seconds=job.queue_seconds, batch_size=size)
            outcome.metadata.usage = usage
        except Exception as error:  # noqa: BLE001 - a response that was made past its own validation
            outcome = error
        else:
            job.settle(outcome)
            return True
    job.settle(problem_for(outcome, job.request))
    return False


def checked(outcomes: list[Any], requests: list[BaseRequest]) -> list[BaseResponse | Exception]:
    """A response that belongs to another request, or too few of them, is a fault of the backend."""
    if len(outcomes) != len(requests):
        raise RuntimeError(f"backend gave {len(outcomes)} answers to {len(requests)} requests")
    for index, (outcome, request) in enumerate(zip(outcomes, requests, strict=True)):
        if isinstance(outcome, BaseResponse):
            # Most backends hand on the identifier itself; to compare two takes a call.
            if outcome.request_id is not request.request_id and outcome.request_id != request.request_id:
                outcomes[index] = RuntimeError("backend answered with another request's identifier")
        elif not isinstance(outcome, Exception):
            outcomes[index] = TypeError(f"backend gave a {type(outcome).__name__} for a response")
    return outcomes
