"""The one thread of a model: it alone touches the loaded model, and it is never idle while work waits.

Callers put jobs into the waiting line under one lock; the thread takes a batch, runs it, and takes the
next. Streams share the lane step by step, so state such as an active adapter cannot leak between calls.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from sheaf.backends.base import ModelBackend
from sheaf.engine.execution import run_batch, run_step
from sheaf.engine.jobs import Job, PredictJob, StreamJob
from sheaf.scheduling.batch import BatchPolicy
from sheaf.scheduling.queue import Entry, WaitingLine
from sheaf_client.errors import DeadlineExceededError, OverloadedError, UnavailableError

log = logging.getLogger("sheaf.engine")


class Lane:
    """Runs one backend's jobs, batch after batch, on a thread of its own."""

    def __init__(
        self,
        name: str,
        backend: ModelBackend,
        policy: BatchPolicy,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.backend = backend
        self._line: WaitingLine[Job] = WaitingLine(policy)
        self._policy = policy
        self._clock = clock
        self._changed = threading.Condition()
        self._calls: list[tuple[Callable[[], Any], Future[Any]]] = []
        self._state = "open"
        self._batch_seconds = 0.0
        self._thread = threading.Thread(target=self._run, name=f"sheaf-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def depth(self) -> int:
        """Jobs that wait."""
        return len(self._line)

    def submit(self, entry: Entry[Job]) -> None:
        """Put a job in line; raises `OverloadedError` over the limit and `UnavailableError` once closed."""
        with self._changed:
            if self._state != "open":
                raise UnavailableError("The model is stopping.")
            if len(self._line) >= self._policy.max_queue:
                # Requests whose deadline has passed hold no place against those that can still be served.
                self._drop_expired()
            if len(self._line) >= self._policy.max_queue:
                raise OverloadedError(
                    f"{len(self._line)} requests are waiting; this is the limit.",
                    retry_after=self._drain_seconds(),
                )
            self._line.add(entry)
            self._changed.notify()

    def discard(self, entry: Entry[Job]) -> bool:
        """Take a job that still waits out of the line."""
        with self._changed:
            return self._line.discard(entry)

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """Run a function on the lane's thread between two batches (loading, unloading)."""
        future: Future[Any] = Future()
        with self._changed:
            if self._state == "closed":
                raise UnavailableError("The model has stopped.")
            self._calls.append((function, future))
            self._changed.notify()
        return future

    def close(self, *, drain: bool) -> None:
        """Take no more jobs; finish what waits, or with `drain=False` refuse it; then end the thread."""
        with self._changed:
            if self._state == "open":
                self._state = "draining"
            refused = [] if drain else self._line.clear()
            self._changed.notify()
        for entry in refused:
            entry.item.fail(UnavailableError("The model was stopped."))
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                work = self._next()
            if work is None:
                return
            try:
                self._do(work)
            except BaseException:
                log.exception("a job broke out of its lane")

    def _next(self) -> tuple[Callable[[], Any], Future[Any]] | list[Entry[Job]] | None:
        """Wait for a call or a batch; None when the lane has closed and nothing is left."""
        while True:
            if self._calls:
                return self._calls.pop(0)
            self._drop_expired()
            seconds = self._line.wait_for(self._clock())
            if seconds is None:
                if self._state != "open":
                    self._state = "closed"
                    return None
                self._changed.wait()
            elif seconds == 0 or self._state != "open":
                return self._line.take()
            else:
                self._changed.wait(seconds)

    def _do(self, work: tuple[Callable[[], Any], Future[Any]] | list[Entry[Job]]) -> None:
        if isinstance(work, tuple):
            function, future = work
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - handed to the one who asked
                future.set_exception(error)
            return
        now = self._clock()
        predictions: list[PredictJob] = []
        for entry in work:
            job = entry.item
            if isinstance(job, StreamJob):
                job.queue_seconds += now - entry.arrived
                self._step(entry, job)
            elif job.future.set_running_or_notify_cancel():
                job.queue_seconds = now - entry.arrived
                predictions.append(job)
        if predictions:
            run_batch(self.backend, predictions)
            self._batch_seconds = 0.8 * self._batch_seconds + 0.2 * (self._clock() - now)

    def _step(self, entry: Entry[Job], job: StreamJob) -> None:
        if not job.cancelled.is_set() and run_step(job):
            entry.arrived = self._clock()
            with self._changed:
                self._line.add(entry)
        else:
            close = getattr(job.events, "close", None)
            if close is not None:
                close()

    def _drop_expired(self) -> None:
        for entry in self._line.expire(self._clock()):
            entry.item.fail(DeadlineExceededError("The deadline passed before the model could begin."))

    def _drain_seconds(self) -> float:
        """How long the line takes to empty at the pace of the last batches."""
        batches = len(self._line) / self._policy.max_batch_size
        return max(0.1, round(batches * self._batch_seconds, 2))
