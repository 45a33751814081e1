"""Runs a batch, or one step of several requests, so that a fault stays with the request that caused it.

If the model raises, the members run again in halves until the culprit stands alone; its neighbours are
answered. What the model raised is logged and kept as the error's cause, and never told to the caller.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from sheaf.backends.base import BackendDiedError, ModelBackend
from sheaf.engine.jobs import Job, PredictJob, StepJob, StreamJob
from sheaf.interrupts import INTERRUPTS, as_error
from sheaf_client.contracts.base import BaseRequest, BaseResponse, Usage
from sheaf_client.contracts.events import ProgressEvent
from sheaf_client.errors import BackendError, ProblemError

log = logging.getLogger("sheaf.engine")

JobT = TypeVar("JobT", PredictJob, StepJob)
OutcomeT = TypeVar("OutcomeT")


class Died(Exception):  # noqa: N818 - it is an event of the engine, told to nobody outside
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
        Died: The model cannot go on; some jobs are unanswered.
    """

    def predict(jobs: list[PredictJob]) -> list[BaseResponse | Exception]:
        requests = [job.request for job in jobs]
        return checked(backend.batch_predict(requests), requests)

    started, failures = clock(), 0
    run: Halving[PredictJob, BaseResponse] = Halving(backend, predict)
    try:
        run.through(list(jobs))
    finally:
        seconds = clock() - started
        spent(seconds)
        for job, outcome in run.outcomes:
            failures += not settle(job, outcome, seconds, len(jobs))
        run.outcomes.clear()  # errors hold this frame
    return failures, run.fitted


class Halving(Generic[JobT, OutcomeT]):
    """Several jobs on their way through one call of the model, in halves where it must be."""

    def __init__(
        self, backend: ModelBackend, call: Callable[[list[JobT]], Sequence[OutcomeT | Exception]]
    ) -> None:
        self._backend = backend
        self._call: Callable[[list[JobT]], Sequence[OutcomeT | Exception]] = call
        self.outcomes: list[tuple[JobT, OutcomeT | Exception]] = []
        #: The calls that fitted into memory, once one did not.
        self.fitted: list[list[JobT]] | None = None

    def through(self, jobs: list[JobT]) -> None:
        """Have the model called; raises `Died` where it cannot go on."""
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
            raise Died(error, jobs) from error
        if out_of_memory and self.fitted is None:
            self.fitted = []
        if len(jobs) == 1:
            self.outcomes.append((jobs[0], error))
            return
        middle = len(jobs) // 2
        try:
            self.through(jobs[:middle])
        except Died as died:
            died.unanswered += jobs[middle:]
            raise
        self.through(jobs[middle:])


def run_step(backend: ModelBackend, job: StreamJob, *, clock: Callable[[], float]) -> bool:
    """Run one step of a stream and hand out its event; True while there is more to come.

    Raises `Died` where the model cannot go on; the stream has then ended with an error.
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
        job.settle(as_problem(error, job.request))
        if diagnose(backend, error)[0]:
            raise Died(error, []) from error
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


def diagnose(backend: ModelBackend, error: Exception) -> tuple[bool, bool]:
    """Whether the model died of an error, and whether memory ran out; what that left is given back."""
    try:
        died = isinstance(error, BackendDiedError) or backend.is_fatal(error)
        out_of_memory = not died and backend.is_out_of_memory(error)
    except INTERRUPTS:
        raise
    except BaseException:
        log.exception("a backend could not say what its error means")
        return False, False
    try:
        if out_of_memory:
            backend.free_memory()
    except INTERRUPTS:
        raise
    except BaseException:
        log.exception("a backend could not give back its memory; loading it anew")
        died = True
    return died, out_of_memory


def as_problem(error: BaseException, request: BaseRequest) -> ProblemError:
    """The error a caller may see; refusals pass, anything else becomes an opaque `BackendError`."""
    request_id = str(request.request_id)
    if isinstance(error, ProblemError):
        if error.request_id not in {None, request_id}:
            return readdressed(error, request)  # one error for several requests
        error.request_id = request_id
        return error
    facts = {"model": request.model_name, "request_id": request_id}
    log.error("model %s failed on request %s", *facts.values(), exc_info=error, extra=facts)
    breach = isinstance(error, ValidationError)
    text = "The model's answer breaks its contract." if breach else "The model failed on this request."
    problem = BackendError(text, request_id=request_id)
    problem.__cause__ = error
    return problem


def readdressed(error: ProblemError, request: BaseRequest) -> ProblemError:
    """An error for one caller of several; an exception must not be raised in two threads."""
    own = type(error)(
        error.detail, errors=error.errors, retry_after=error.retry_after, request_id=str(request.request_id)
    )
    own.__cause__ = error.__cause__
    return own


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
    job.settle(as_problem(outcome, job.request))
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
