"""One step of requests that work in steps: who is new is prepared, all take a step, who is done is answered.

A fault stays with its request here too. What a step raises is met by halving, as in a batch; what comes
before the first step and after the last runs for one request alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sheaf.backends.stepwise import StepwiseBackend
from sheaf.engine.execution import Bisection, ModelDied, checked, settle
from sheaf.engine.faults import diagnose, problem_for
from sheaf.engine.jobs import Job, StepJob
from sheaf.interrupts import INTERRUPTS, as_error
from sheaf_client.contracts.base import BaseResponse

log = logging.getLogger("sheaf.engine")


@dataclass(slots=True)
class StepOutcome:
    """What came of a step that several requests took together.

    Attributes:
        stepped: Jobs that were to take the step.
        seconds: How long the step itself took, without what came before the first and after the last.
        failures: Jobs that the model failed on.
        fitted: Where memory ran out, the jobs of each call that fitted after that.
    """

    stepped: Sequence[StepJob] = ()
    seconds: float = 0.0
    failures: int = 0
    fitted: Sequence[Sequence[StepJob]] | None = None


def step_together(
    backend: StepwiseBackend, jobs: Sequence[StepJob], *, clock: Callable[[], float]
) -> StepOutcome:
    """Let every job take a step; those that are not settled after it have another to take.

    Raises:
        ModelDied: The model cannot go on, and all states are lost.
    """
    outcome = StepOutcome()
    running = [job for job in jobs if job.started]
    stepping = list(running)
    for job in jobs:
        if job.started or job.settled:  # where another's beginning hung, all were told so
            continue
        began = clock()
        try:
            job.begin(backend)
            done = not backend.remaining(job.state)
        except INTERRUPTS:
            raise
        except BaseException as raised:  # noqa: BLE001 - whatever a model raises, its neighbours go on
            error = as_error(raised)
            if _diagnosed(backend, job, error) and running:
                outcome.fitted = [running]  # it begins when others are done
            else:
                outcome.failures += _fail(job, error)
            continue
        job.compute_seconds += clock() - began
        if job.settled:  # meanwhile: nobody else lets go of what it holds by now
            discard_state(job)
        elif not done:
            stepping.append(job)
        else:
            outcome.failures += not _advance(backend, job, clock)
    stepping = [job for job in stepping if not job.settled]
    if stepping:
        _step(backend, stepping, outcome, clock)
    return outcome


def _step(
    backend: StepwiseBackend, jobs: list[StepJob], outcome: StepOutcome, clock: Callable[[], float]
) -> None:
    def step(jobs: list[StepJob]) -> Sequence[Exception | None]:
        given = backend.step([job.state for job in jobs])
        if len(given) != len(jobs):
            raise RuntimeError(f"backend gave {len(given)} outcomes of a step of {len(jobs)} requests")
        return [_as_said(one) for one in given]

    started = clock()
    bisection: Bisection[StepJob, None] = Bisection(backend, step)
    bisection.run(jobs)
    outcome.stepped, outcome.seconds = jobs, clock() - started
    outcome.fitted = outcome.fitted or bisection.fitted
    for job, error in bisection.outcomes:
        job.compute_seconds += outcome.seconds
        job.shared = max(job.shared, len(jobs))
        if error is None:
            outcome.failures += not _advance(backend, job, clock)
        else:
            _diagnosed(backend, job, error)
            outcome.failures += _fail(job, error)
    bisection.outcomes.clear()  # errors hold the frames that hold them


def _as_said(outcome: object) -> Exception | None:
    if outcome is None or isinstance(outcome, Exception):
        return outcome
    return TypeError(f"backend gave a {type(outcome).__name__} for the outcome of a step")


def _advance(backend: StepwiseBackend, job: StepJob, clock: Callable[[], float]) -> bool:
    """Tell of the step, and answer a job that has taken its last; False where the model failed on it."""
    began = clock()
    outcome: BaseResponse | Exception
    try:
        if job.tell is not None and not job.settled:
            event = backend.progress(job.request, job.state)
            if event is not None and event.step > job.told:  # it may have begun anew
                job.told = event.step
                job.tell(event)
        if backend.remaining(job.state):
            return True
        outcome = checked([backend.finish(job.state)], [job.request])[0]
        job.end()
    except INTERRUPTS:
        raise
    except BaseException as raised:  # noqa: BLE001 - as above
        outcome = as_error(raised)
        _diagnosed(backend, job, outcome)
    discard_state(job)
    job.compute_seconds += clock() - began
    return settle(job, outcome, job.compute_seconds, job.shared)


def _diagnosed(backend: StepwiseBackend, job: StepJob, error: Exception) -> bool:
    """Whether memory ran out; raises `ModelDied` where the model cannot go on."""
    died, out_of_memory = diagnose(backend, error)
    if died:
        raise ModelDied(error, [job]) from error
    return out_of_memory


def _fail(job: StepJob, error: Exception) -> bool:
    discard_state(job)
    return job.settle(problem_for(error, job.request))


def discard_state(job: Job) -> None:
    """Have the model discard what it holds for a job; what that raises is logged."""
    try:
        job.close()
    except INTERRUPTS:
        raise
    except BaseException:
        log.exception("a backend could not discard a state")
