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

from sheaf.local import LocalModels
from sheaf.records import read_request
from sheaf.spec import SpecLike, hosted_specs
from sheaf.worker.queue import (
    JobQueue,
    JobStatus,
    Lease,
    QueueUnavailableError,
    outcome_of,
)
from sheaf.worker.urls import open_queue
from sheaf_client import ProblemError
from sheaf_client.contracts.base import BaseResponse
from sheaf_client.errors import InternalServerError, MalformedRequestError, UnavailableError

log = logging.getLogger("sheaf.worker")

T = TypeVar("T")
#: Seconds that one look for jobs may wait; so long may a stop go unnoticed.
_WAIT = 0.5
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

    @property
    def held(self) -> int:
        """Jobs in this worker's hands."""
        return len(self._held)

    def run(self) -> None:
        """Load the models and work until `stop`; raises what their loading raises."""
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
            for lease in self._insist(partial(self._queue.lease, wanted, _WAIT)) or ():
                self._begin(lease)

    def _free(self) -> dict[str, int]:
        """For how many more jobs of each model there is room; none while a model cannot answer."""
        held = Counter(held.lease.model for held in list(self._held))
        ready = ((name, runtime) for name, runtime in self._models.runtimes.items() if runtime.ready)
        room = {name: runtime.spec.batch_policy.max_batch_size - held[name] for name, runtime in ready}
        return {name: count for name, count in room.items() if count > 0}

    def _begin(self, lease: Lease) -> None:
        """Hand a job to the engine. Whatever is wrong with it is its outcome, and never this worker's end."""
        held = _Held(lease)
        runtime = self._models.runtimes[lease.model]
        try:
            try:
                request = read_request(lease.body, runtime.spec, uuid5(NAMESPACE_OID, lease.id))
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
        while (held := self._ended.get()) is not None:
            if self._insist(partial(self._settle, held)) is False:
                log.warning("job %s was another worker's by the time it ended here", held.lease.id)
            with self._changed:
                self._held.discard(held)
                self._changed.notify_all()

    def _settle(self, held: _Held) -> bool:
        lease = held.lease
        try:
            response: BaseResponse = held.answer.result()
        except CancelledError:
            return self._queue.give_back(lease)
        except MalformedRequestError as error:
            return self._queue.finish(lease, JobStatus.DEAD, outcome_of(error))
        except ProblemError as error:
            if isinstance(error, UnavailableError) and self._stopping.is_set():
                return self._queue.give_back(lease)
            if error.retryable or isinstance(error, InternalServerError):
                return self._queue.retry(lease, outcome_of(error))
            return self._queue.finish(lease, JobStatus.FAILED, outcome_of(error))
        except Exception as error:
            log.exception("job %s could not be run", lease.id)
            return self._queue.retry(lease, outcome_of(error))
        return self._queue.finish(lease, JobStatus.COMPLETED, outcome_of(response))

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

        None once a stopping worker's leases must have lapsed, or where the queue was reached and failed.
        """
        pause, failures = 0.05, 0
        while True:
            try:
                return call()
            except QueueUnavailableError as error:
                log.warning("%s; trying again", error)
            except Exception:
                log.exception("the queue failed")
                failures += 1
            if failures == _FAILURES or time.monotonic() > self._stopped_at + self._queue.policy.lease:
                return None
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads retries, guards nothing
            pause = min(5.0, 2 * pause)
