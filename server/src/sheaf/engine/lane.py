"""The one thread of a model: it alone touches the loaded model, and it is never idle while work waits.

Callers put jobs into the waiting line under one lock; the thread schedules a batch, runs it, settles it, and
schedules the next. Streams share the lane step by step, so state such as an active adapter cannot leak
between calls. A thread whose call, or load of a model anew, does not come back is given up, and another takes
its place.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any

from sheaf.engine.jobs import Job
from sheaf.engine.lane_model import (
    Idle,
    LaneModel,
    LaneState,
    LaneTask,
    Running,
    fail_expired,
    fail_stopped,
    stopping,
)
from sheaf.engine.process import PATIENCE, break_off, stop_at_the_end
from sheaf.engine.sleeping import Sleeper
from sheaf.interrupts import ProcessEnds
from sheaf.scheduling.batch import BatchPolicy
from sheaf.scheduling.drain_rate import DrainRate
from sheaf.scheduling.queue import Entry, WaitingLine
from sheaf_client.errors import InternalServerError, OverloadedError

log = logging.getLogger("sheaf.engine")


class Lane:
    """Runs one model's jobs, batch after batch, on a thread of its own."""

    def __init__(
        self, name: str, model: LaneModel, policy: BatchPolicy, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._model = model
        self._line: WaitingLine[Job] = WaitingLine(policy, padded=model.padded)
        self._policy = policy
        self._clock = clock
        self._drain_rate = DrainRate()
        # Re-entrant: settling a job runs its caller's callbacks, which may discard another.
        self._lock = threading.RLock()
        self._sleeper = Sleeper(self._lock)
        self._tasks: list[LaneTask] = []
        self._state = LaneState.OPEN
        self._closing = threading.Event()
        self._ended = threading.Event()
        self._running: Running | None = None
        #: Whether what runs does so on a caller's thread.
        self._borrowed = False
        self._aborted = False
        self._thread = self._make_thread()
        self._given_up: list[threading.Thread] = []
        self._watchdog: threading.Thread | None = None

    def start(self) -> None:
        stop_at_the_end(self)
        self._thread.start()
        limits = [s for s in (self._policy.call_timeout_s, self._policy.load_timeout_s) if s is not None]
        if limits:
            watchdog = threading.Thread(target=self._watch, args=(min(limits),), daemon=True)
            watchdog.name = f"sheaf-watch-{self._name}"
            watchdog.start()
            self._watchdog = watchdog

    @property
    def depth(self) -> int:
        """Jobs that wait."""
        return len(self._line)

    def submit(self, entry: Entry[Job], *, wake: bool = True) -> None:
        """Put a job in line; raises `OverloadedError` over the limit and `UnavailableError` once closed.

        Without `wake` a lane that sleeps goes on to do so, until the caller calls `wake` or `run_waiting`.
        """
        with self._lock:
            if self._state is not LaneState.OPEN:
                raise stopping()
            full, expired = self._look_for_room()
            if not full:
                self._line.add(entry)
                if wake:
                    self._sleeper.wake()
        fail_expired(expired)
        if full:
            raise self._overloaded()

    def wake(self) -> None:
        """Have the thread look for work."""
        with self._lock:
            self._sleeper.wake()

    def check_room(self) -> None:
        """Raise `OverloadedError` where a job would find no place now."""
        if len(self._line) < self._policy.max_queue:
            return
        with self._lock:
            full, expired = self._look_for_room()
        fail_expired(expired)
        if full:
            raise self._overloaded()

    def _look_for_room(self) -> tuple[bool, list[Entry[Job]]]:
        """Whether the line is full, after those whose deadline has passed have left it; and who they are."""
        expired: list[Entry[Job]] = []
        if len(self._line) >= self._policy.max_queue:
            # They hold no place against those that can still be served.
            expired = self._schedule_cleanup(self._line.expire(self._clock()))
        return len(self._line) >= self._policy.max_queue, expired

    def _overloaded(self) -> OverloadedError:
        most = self._policy.max_queue
        text = f"{most} requests are waiting; this is the limit."
        return OverloadedError(text, retry_after=self._drain_rate.seconds_for(most))

    def discard(self, entry: Entry[Job]) -> bool:
        """Take a job that still waits out of the line."""
        with self._lock:
            waited = self._line.discard(entry)
            if waited:
                self._schedule_cleanup([entry])
            return waited

    def run_on_thread(self, function: Callable[[], Any]) -> Future[Any]:
        """Run a function on the lane's thread between two batches (loading, unloading)."""
        future: Future[Any] = Future()
        with self._lock:
            if self._state is LaneState.CLOSED:
                raise stopping()
            self._tasks.append(LaneTask(function, future))
            self._sleeper.wake()
        return future

    def refuse(self) -> None:
        """Take no more jobs, and refuse those that wait and those that run; nothing is waited for.

        Who is refused is gone from what runs, so a `close` that follows waits for no call that hangs.
        """
        with self._lock:
            if self._state is not LaneState.CLOSED:
                self._state = LaneState.REFUSING
            refused = self._take_refused()
            running = () if self._running is None else self._running.batch
            self._closing.set()
            self._sleeper.wake()
        fail_stopped(refused)
        for entry in running:
            entry.item.refuse(stopping())

    def close(self, *, drain: bool) -> None:
        """Take no more jobs; finish what waits, or with `drain=False` refuse it; then unload and end.

        A call whose callers have all left is not waited for: its thread unloads when it comes back.
        """
        with self._lock:
            if self._state is LaneState.OPEN or (self._state is LaneState.DRAINING and not drain):
                self._state = LaneState.DRAINING if drain else LaneState.REFUSING
            refused = self._take_refused()
            self._closing.set()
            self._sleeper.wake()
        fail_stopped(refused)
        if threading.current_thread() is not self._thread:
            while not self._ended.wait(PATIENCE):
                with self._lock:
                    if self._is_deserted():
                        return
            for thread in (self._thread, self._watchdog):
                if thread is not None and thread is not threading.current_thread():
                    thread.join(1)  # it is at its end, and holds the model until then

    def abort(self) -> None:
        """The process ends: take no more jobs, and break off what runs; the model is not unloaded."""
        with self._lock:
            if self._state is LaneState.CLOSED:
                return
            self._state = LaneState.REFUSING
            self._closing.set()
            if self._running is not None and not self._borrowed:
                self._aborted = True
                break_off(self._thread.ident)
                self._sleeper.wake()  # it may have come back meanwhile

    @property
    def at_work(self) -> bool:
        """Whether a thread may be in the model: once aborted until its thread has ended."""
        busy = self._thread.is_alive() if self._aborted else self._running is not None
        return busy or any(thread.is_alive() for thread in self._given_up)

    def orphan(self) -> None:
        """This process is a fork, without the lane's thread: nothing is waited for."""
        self._lock, self._ended = threading.RLock(), threading.Event()
        self._sleeper = Sleeper(self._lock)
        self._state, self._running = LaneState.CLOSED, None
        self._ended.set()

    # What the thread does.

    def _run(self) -> None:
        try:
            self._loop()
        except ProcessEnds:
            if not self._aborted:
                raise
        finally:
            if self._aborted:
                with self._lock:
                    self._state, self._running = LaneState.CLOSED, None
                    refused = self._schedule_cleanup(self._line.clear())
                fail_stopped(refused)
                self._ended.set()

    def _loop(self) -> None:
        """Schedule, run, settle; until the lane closes, or this thread was given up while it ran."""
        while self._thread is threading.current_thread() and not self._aborted:
            if not self._model.ready and not self._reload_until_ready():
                continue
            work = self._schedule()
            if isinstance(work, Running):
                again = self._run_batch(work.batch)
                with self._lock:
                    self._settle(work, again)
            elif isinstance(work, LaneTask):
                with self._watched(work.limit, work.future):
                    work.run()
            elif work is not None:
                self._sleeper.sleep(work.seconds)
            elif self._state is LaneState.CLOSED:
                with self._watched(self._policy.load_timeout_s):
                    self._model.unload()
                self._ended.set()
                return

    def _schedule(self) -> Running | LaneTask | Idle | None:
        """What to do now; None to look again, where somebody was refused or the lane has closed."""
        with self._lock:
            refused = self._take_refused()
            now = self._clock()
            expired = self._schedule_cleanup(self._line.expire(now))
            work: Running | LaneTask | Idle | None = self._next(now)
            if isinstance(work, Idle):
                if expired or refused:
                    work = None
                elif work.seconds is None and self._state is not LaneState.OPEN:
                    self._state, work = LaneState.CLOSED, None
            self._sleeper.asleep = isinstance(work, Idle)
        fail_stopped(refused)
        fail_expired(expired)
        return work

    def _next(self, now: float) -> Running | LaneTask | Idle:
        """A function of the host, else the batch whose time has come."""
        if self._tasks:
            return self._tasks.pop(0)
        seconds = self._line.wait_for(now)
        if seconds is None:
            return Idle(None)
        if seconds > 0 and self._state is LaneState.OPEN:
            # Deadlines are kept while a window is open, too.
            return Idle(min(seconds, self._line.next_deadline - now))
        # Once closed, nothing waits for its window.
        batch = self._line.take(now if seconds == 0 else math.inf, self._model.max_cost)
        running = self._running = Running(now, batch, self._policy.call_timeout_s)
        return running

    def _run_batch(self, batch: Sequence[Entry[Job]]) -> list[Entry[Job]]:
        """Have the model run it; gives back what shall run again."""
        try:
            return self._model.run(batch)
        except BaseException as error:
            if self._aborted:
                fail_stopped(batch)
                return []
            log.exception("a job broke out of its lane")
            for entry in batch:
                entry.item.settle(InternalServerError("The engine failed on this request."))
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is not self._thread:
                raise  # it is for the caller whose thread this is
            return []

    def _settle(self, running: Running, again: Sequence[Entry[Job]]) -> bool:
        """Book what ran; False where it was given up as hung meanwhile, and counts no more."""
        if not self._is_running(running):
            return False
        self._running = None
        now = self._clock()
        seconds = now - running.since
        done = len(running.batch) - len(again)
        self._drain_rate.observe(done, seconds)
        if self._policy.linger:
            self._line.expect(done, now, seconds)
        self._line.charge(running.batch, seconds)
        for entry in again:
            self._line.come_back(entry, now)
        return True

    def _take_refused(self) -> list[Entry[Job]]:
        """What waits and will not be served any more."""
        return self._schedule_cleanup(self._line.clear()) if self._state is LaneState.REFUSING else []

    def _schedule_cleanup(self, entries: list[Entry[Job]]) -> list[Entry[Job]]:
        """Have the model let go of jobs that left the line between two steps, on the lane's thread."""
        for entry in entries:
            if entry.item.started:
                self._tasks.append(LaneTask(entry.item.close, Future(), self._policy.call_timeout_s))
                self._sleeper.wake()
        return entries

    # What happens where the model dies or hangs.

    def _reload_until_ready(self) -> bool:
        """Load the model anew where it died, as often as it takes; nothing is lost of what waits.

        False where this thread was given up meanwhile.
        """
        while not self._model.ready:
            pause = self._model.pause
            if pause is not None and self._wait_before_retry(pause):
                break
            with self._watched(self._policy.load_timeout_s) as attempt:
                loaded = self._model.reload(partial(self._is_running, attempt))
                with self._lock:
                    late = not self._is_running(attempt)
                    if not late:
                        self._model.adopt(loaded)
            if late:
                if loaded is not None:
                    self._model.unload_backend(loaded)
                return False
        return True

    def _wait_before_retry(self, seconds: float) -> bool:
        """Wait while the model cannot run, and tell those whose time runs out; True once the lane closes."""
        end = self._clock() + seconds
        while True:
            with self._lock:
                now = self._clock()
                expired = self._schedule_cleanup(self._line.expire(now))
                until = min(end, self._line.next_deadline)
            fail_expired(expired)
            if self._closing.wait(max(0.0, until - now)):
                return True
            if now >= end:
                return False

    def _is_deserted(self) -> bool:
        """Whether the lane closes, and nobody waits for what runs or for what is in line."""
        running = self._running
        if self._state is LaneState.OPEN or running is None or not running.abandoned:
            return False
        return all(entry.item.settled for entry in self._line)

    def _is_running(self, running: Running) -> bool:
        """Whether it was not given up."""
        return self._running is running

    @contextmanager
    def _watched(self, limit: float | None, future: Future[Any] | None = None) -> Generator[Running]:
        """What is done inside of it is given up where it takes longer than the limit."""
        with self._lock:
            running = self._running = Running(self._clock(), (), limit, future)
        try:
            yield running
        finally:
            with self._lock:
                if self._is_running(running):
                    self._running = None

    def _make_thread(self) -> threading.Thread:
        return threading.Thread(target=self._run, name=f"sheaf-{self._name}", daemon=True)

    def _watch(self, shortest: float) -> None:
        """Give up on a thread that takes longer for something than its limit."""
        while not self._ended.wait(min(shortest / 8, 5.0)):
            with self._lock:
                running = self._running
                limit = None if running is None else running.limit
                if running is None or limit is None or self._clock() - running.since < limit:
                    continue
                if self._is_deserted():
                    continue  # nobody needs another in its place
                self._running = None
                over = self._state is LaneState.CLOSED
                if not self._borrowed:
                    self._given_up.append(self._thread)
                thread = None if self._borrowed or over else self._make_thread()
                self._thread = thread or self._thread
                self._borrowed = False
            if over:
                log.error("model %s could not be unloaded within %.0f s", self._name, limit)
                self._ended.set()
                return
            log.error("model %s has not come back for %.0f s; loading it anew", self._name, limit)
            self._model.hung(running.batch, limit)
            if thread is not None:
                thread.start()
            else:  # a caller hangs in its own thread; the lane's sleeps
                self._sleeper.wake_another()
