"""Answers the jobs of a queue with models of this process, and survives what happens to the queue.

Three threads: the caller's takes jobs and hands them to the engine, which batches them; one gives signs of
life for those held; one writes outcomes down. The model's own thread never waits for the queue.
"""

from __future__ import annotations

import logging
import queue as queues
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar
from uuid import NAMESPACE_OID, uuid5

from sheaf.contract.decoding import decode_line
from sheaf.local import LocalModels
from sheaf.spec import SpecLike, hosted_specs
from sheaf.worker.queue import (
    Ended,
    JobQueue,
    JobStatus,
    Lease,
    QueueBrokenError,
    QueueUnavailableError,
    outcome_of,
)
from sheaf.worker.urls import open_queue
from sheaf_client.contracts.base import BaseResponse
from sheaf_client.errors import (
    BackendError,
    InternalServerError,
    MalformedRequestError,
    ProblemError,
    UnavailableError,
)

log = logging.getLogger("sheaf.worker")

T = TypeVar("T")
#: Seconds that one look for jobs may wait; so long may a stop go unnoticed.
_WAIT = 0.5
#: Seconds after which a worker that holds jobs looks again where there was nothing for it.
_PAUSE = 0.05
#: Most outcomes that are written down in one step, and about how many bytes of them.
_TOGETHER = 256
_TOGETHER_BYTES = 8 * 2**20
#: Errors of a reachable queue after which a job is left to lapse, lest it keep all others waiting.
_FAILURES = 5


@dataclass(eq=False)
class _Held:
    """A job of this worker, from its lease until its outcome is written down."""

    lease: Lease
    answer: Future[Any] = field(default_factory=Future[Any])


class SheafWorker:
    """Runs the jobs of a queue.

        SheafWorker(["statsforecast"], "sqlite:///jobs.db").run()

    It holds as many jobs of a model as one batch of it takes. A refusal is the job's outcome; a fault of
    the model, or a refusal that may pass, is tried again until the attempts are used up.

    Args:
        models: Specs, or names of backends whose defaults will do; it takes jobs for these alone.
        queue: The queue, or its URL.
    """

    def __init__(self, models: Iterable[SpecLike] | SpecLike, queue: JobQueue | str) -> None:
        self._models = LocalModels(hosted_specs(models))
        self._queue = open_queue(queue) if isinstance(queue, str) else queue
        self._own_queue = isinstance(queue, str)
        self._changed = threading.Condition()
        self._held: set[_Held] = set()
        self._ended: queues.SimpleQueue[_Held | None] = queues.SimpleQueue()
        self._stopping = threading.Event()
        self._stopped_at = float("inf")
        self._drained = threading.Event()
        self._broken: QueueBrokenError | None = None

    @property
    def held(self) -> int:
        """Jobs in this worker's hands."""
        return len(self._held)

    def run(self) -> None:
        """Load the models and work until `stop`; raises what their loading raises, and `QueueBrokenError`."""
        threads: list[threading.Thread] = []
        try:
            for runtime in self._models.runtimes.values():
                runtime.start()
            for work in (self._write_down, self._keep_alive):
                threads.append(
                    threading.Thread(target=work, name=f"sheaf-worker{work.__name__}", daemon=True)
                )
                threads[-1].start()
            log.info("waiting for jobs of %s", ", ".join(self._models.runtimes))
            self._take_jobs()
        finally:
            self.stop()
            self._end_work()
            self._ended.put(None)
            self._drained.set()
            for thread in threads:
                thread.join()
            if self._own_queue:
                self._queue.close()
        if self._broken is not None:
            raise self._broken

    def stop(self) -> None:
        """Take no more jobs: `run` finishes those that the model has begun, gives back the rest, and returns.

        May be called from any thread and from a signal's handler.
        """
        if not self._stopping.is_set():
            self._stopped_at = time.monotonic()
            self._stopping.set()

    def _take_jobs(self) -> None:
        while not self._stopping.is_set():
            wanted = self._free()
            if not wanted:
                with self._changed:
                    self._changed.wait_for(lambda: self._stopping.is_set() or self._free(), _WAIT)
                continue
            holding = bool(self._held)
            look = partial(self._queue.lease, wanted, _WAIT, holding=holding)
            leases = self._insist(look) or []
            for lease in leases:
                self._begin(lease)
            if holding and not leases:
                self._await_fewer()

    def _await_fewer(self) -> None:
        """A job may wait until this worker holds no other: wait for one to end, as long as for a job."""
        held = len(self._held)
        with self._changed:
            self._changed.wait_for(lambda: self._stopping.is_set() or len(self._held) < held, _PAUSE)

    def _free(self) -> dict[str, int]:
        """For how many more jobs of each model there is room; none while a model cannot answer.

        None either beside a job that may be what killed its last worker.
        """
        jobs = list(self._held)
        if any(held.lease.alone for held in jobs):
            return {}
        held = Counter(held.lease.model for held in jobs)
        ready = ((name, runtime) for name, runtime in self._models.runtimes.items() if runtime.ready)
        room = {name: runtime.spec.batch_policy.max_batch_size - held[name] for name, runtime in ready}
        return {name: count for name, count in room.items() if count > 0}

    def _begin(self, lease: Lease) -> None:
        """Hand a job to the engine. Whatever is wrong with it is its outcome, and never this worker's end."""
        held = _Held(lease)
        runtime = self._models.runtimes[lease.model]
        try:
            try:
                spec, made_up = runtime.spec, uuid5(NAMESPACE_OID, lease.id)
                request = decode_line(lease.body, spec.model_type, spec.name, made_up)
            except ProblemError as error:
                self._models.telemetry.refused(lease.model, error.code)
                raise
            held.answer = runtime.submit(request, timeout=lease.remaining)
        except Exception as error:  # noqa: BLE001 - the model's own checks may raise anything
            held.answer.set_exception(error)
        with self._changed:
            self._held.add(held)
        held.answer.add_done_callback(lambda _: self._ended.put(held))

    def _write_down(self) -> None:
        """Write the outcomes down as they come, on a thread of its own."""
        while ended := self._some_ended():
            self._settle(ended)
            with self._changed:
                self._held.difference_update(ended)
                self._changed.notify_all()

    def _some_ended(self) -> list[_Held]:
        """What has ended, waiting for the first; empty when there is no more to come."""
        ended: list[_Held] = []
        while len(ended) < _TOGETHER:
            try:
                held = self._ended.get(block=not ended)
            except queues.Empty:
                break
            if held is None:
                self._ended.put(None)  # for the next call
                break
            ended.append(held)
        return ended

    def _settle(self, ended: list[_Held]) -> None:
        """Write down what became of jobs; those that are finished share a step, as far as they are small."""
        finished: list[Ended] = []
        size = 0
        for held in ended:
            word = self._word(held)
            if not isinstance(word, Ended):
                self._say([held.lease], partial(_alone, word))
                continue
            finished.append(word)
            size += len(word.outcome)
            if size > _TOGETHER_BYTES:
                self._finish(finished)
                finished, size = [], 0
        if finished:
            self._finish(finished)

    def _word(self, held: _Held) -> Ended | Callable[[], bool]:
        """What is to be written down of a job: its outcome, or what else to call."""
        lease = held.lease
        try:
            response: BaseResponse = held.answer.result()
            return self._completed(lease, outcome_of(response))  # or it cannot be written
        except CancelledError:
            return partial(self._queue.give_back, lease)
        except MalformedRequestError as error:
            return Ended(lease, JobStatus.DEAD, outcome_of(error))
        except ProblemError as error:
            if isinstance(error, UnavailableError) and self._stopping.is_set():
                return partial(self._queue.give_back, lease)
            if error.retryable or isinstance(error, InternalServerError):
                return partial(self._queue.retry, lease, outcome_of(error))
            return Ended(lease, JobStatus.FAILED, outcome_of(error))
        except Exception as error:
            log.exception("job %s could not be run", lease.id)
            return partial(self._queue.retry, lease, outcome_of(error))

    def _completed(self, lease: Lease, outcome: bytes) -> Ended:
        """A response's outcome; it would be as large the next time, so one that is too large is not tried."""
        most = self._queue.most_bytes
        if len(outcome) <= most:
            return Ended(lease, JobStatus.COMPLETED, outcome)
        error = BackendError(f"The answer has {len(outcome)} bytes; a queue keeps {most} at most.")
        return Ended(lease, JobStatus.DEAD, outcome_of(error))

    def _finish(self, ended: list[Ended]) -> None:
        self._say([end.lease for end in ended], partial(self._finish_all, ended))

    def _finish_all(self, ended: list[Ended]) -> list[bool]:
        try:
            return self._queue.finish_all(ended)
        except (QueueUnavailableError, QueueBrokenError):
            raise
        except Exception:
            if len(ended) == 1:
                raise
            log.exception("the queue failed; the outcomes are written one by one")
        for end in ended:
            self._finish([end])
        return [True] * len(ended)

    def _say(self, leases: list[Lease], call: Callable[[], list[bool]]) -> None:
        for lease, kept in zip(leases, self._insist(call) or (), strict=False):
            if not kept:
                log.warning("job %s was another worker's by the time it ended here", lease.id)

    def _keep_alive(self) -> None:
        """Give signs of life; a job that has become another's leaves the line here, if it still waits."""
        while not self._drained.wait(self._queue.policy.lease / 3):
            everything = list(self._held)
            try:
                alive = self._queue.extend([held.lease for held in everything])
            except Exception as error:  # noqa: BLE001 - the next sign of life may get through
                log.warning("no sign of life could be given: %s", error)
                continue
            for held, still in zip(everything, alive, strict=True):
                if not still:
                    held.answer.cancel()

    def _end_work(self) -> None:
        """Let the models finish what they have begun and refuse the rest, which is given back."""
        runtimes = self._models.runtimes.values()
        with ThreadPoolExecutor(len(runtimes)) as pool:
            stopped = [pool.submit(runtime.stop, drain=False) for runtime in runtimes]
        with self._changed:
            self._changed.wait_for(lambda: not self._held)
        for stop in stopped:
            stop.result()

    def _insist(self, call: Callable[[], T]) -> T | None:
        """Call until the queue can be reached.

        None once a stopping worker's leases must have lapsed, or where the queue was reached and failed. A
        broken one ends this worker.
        """
        pause, failures = 0.05, 0
        while True:
            try:
                return call()
            except QueueUnavailableError as error:
                log.warning("%s; trying again", error)
            except QueueBrokenError as error:
                self._broken = error
                self.stop()
                return None
            except Exception:
                log.exception("the queue failed")
                failures += 1
            if failures == _FAILURES or time.monotonic() > self._stopped_at + self._queue.policy.lease:
                return None
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads retries, guards nothing
            pause = min(5.0, 2 * pause)


def _alone(say: Callable[[], bool]) -> list[bool]:
    return [say()]
