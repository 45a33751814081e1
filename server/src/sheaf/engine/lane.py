"""The one thread of a model: it alone touches the loaded model, and it is never idle while work waits.

Callers put jobs into the waiting line under one lock; the thread takes a batch, runs it, and takes the
next. Streams share the lane step by step, so state such as an active adapter cannot leak between calls.
A thread whose call, or load of a model anew, does not come back is given up, and another takes its place.
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
from sheaf.engine.process import PATIENCE, break_off, stop_at_the_end
from sheaf.engine.turns import Call, Model, Running, stopping, tell_late, tell_stopped
from sheaf.interrupts import ProcessEnds
from sheaf.scheduling.batch import BatchPolicy
from sheaf.scheduling.pace import Pace
from sheaf.scheduling.queue import Entry, WaitingLine
from sheaf_client.errors import InternalServerError, OverloadedError

log = logging.getLogger("sheaf.engine")


class Lane:
    """Runs one model's jobs, batch after batch, on a thread of its own."""

    def __init__(
        self, name: str, model: Model, policy: BatchPolicy, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._model = model
        self._line: WaitingLine[Job] = WaitingLine(policy, padded=model.padded)
        self._policy = policy
        self._clock = clock
        self._pace = Pace()
        # Re-entrant: settling a job runs its caller's callbacks, which may discard another.
        self._lock = threading.RLock()
        # Sleeping on a plain lock wakes faster than a condition; it is held while the thread is awake.
        self._wake = threading.Lock()
        self._wake.acquire()
        self._asleep = False
        self._calls: list[Call] = []
        self._state = "open"
        self._closing = threading.Event()
        self._ended = threading.Event()
        self._running: Running | None = None
        self._guest = False
        self._aborted = False
        self._thread = self._make_thread()
        self._given_up: list[threading.Thread] = []
        self._watcher: threading.Thread | None = None

    def start(self) -> None:
        stop_at_the_end(self)
        self._thread.start()
        limits = [s for s in (self._policy.call_timeout_s, self._policy.load_timeout_s) if s is not None]
        if limits:
            watch = threading.Thread(target=self._watch, args=(min(limits),), daemon=True)
            watch.name = f"sheaf-watch-{self._name}"
            watch.start()
            self._watcher = watch

    @property
    def depth(self) -> int:
        """Jobs that wait."""
        return len(self._line)

    def submit(self, entry: Entry[Job], *, rouse: bool = True) -> None:
        """Put a job in line; raises `OverloadedError` over the limit and `UnavailableError` once closed.

        Without `rouse` a lane that sleeps goes on to do so: the caller is to call `run_waiting` soon.
        """
        with self._lock:
            if self._state != "open":
                raise stopping()
            full, late = self._look_for_room()
            if not full:
                self._line.add(entry)
                if rouse:
                    self._rouse()
        tell_late(late)
        if full:
            raise self._overloaded()

    def check_room(self) -> None:
        """Raise `OverloadedError` where a job would find no place now."""
        if len(self._line) < self._policy.max_queue:
            return
        with self._lock:
            full, late = self._look_for_room()
        tell_late(late)
        if full:
            raise self._overloaded()

    def _look_for_room(self) -> tuple[bool, list[Entry[Job]]]:
        """Whether the line is full, after those whose deadline has passed have left it; and who they are."""
        late: list[Entry[Job]] = []
        if len(self._line) >= self._policy.max_queue:
            # They hold no place against those that can still be served.
            late = self._let_go(self._line.expire(self._clock()))
        return len(self._line) >= self._policy.max_queue, late

    def _overloaded(self) -> OverloadedError:
        most = self._policy.max_queue
        text = f"{most} requests are waiting; this is the limit."
        return OverloadedError(text, retry_after=self._pace.seconds_for(most))

    def discard(self, entry: Entry[Job]) -> bool:
        """Take a job that still waits out of the line."""
        with self._lock:
            waited = self._line.discard(entry)
            if waited:
                self._let_go([entry])
            return waited

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """Run a function on the lane's thread between two batches (loading, unloading)."""
        future: Future[Any] = Future()
        with self._lock:
            if self._state == "closed":
                raise stopping()
            self._calls.append(Call(function, future))
            self._rouse()
        return future

    def refuse(self) -> None:
        """Take no more jobs, and refuse those that wait and those that run; nothing is waited for.

        Who is refused is gone from what runs, so a `close` that follows waits for no call that hangs.
        """
        with self._lock:
            if self._state != "closed":
                self._state = "refusing"
            refused = self._refused()
            running = () if self._running is None else self._running.batch
            self._closing.set()
            self._rouse()
        tell_stopped(refused)
        for entry in running:
            entry.item.refuse(stopping())

    def close(self, *, drain: bool) -> None:
        """Take no more jobs; finish what waits, or with `drain=False` refuse it; then unload and end.

        A call whose callers have all left is not waited for: its thread unloads when it comes back.
        """
        with self._lock:
            if self._state == "open" or (self._state == "draining" and not drain):
                self._state = "draining" if drain else "refusing"
            refused = self._refused()
            self._closing.set()
            self._rouse()
        tell_stopped(refused)
        if threading.current_thread() is not self._thread:
            while not self._ended.wait(PATIENCE):
                with self._lock:
                    if self._is_left():
                        return
            for thread in (self._thread, self._watcher):
                if thread is not None and thread is not threading.current_thread():
                    thread.join(1)  # it is at its end, and holds the model until then

    def abort(self) -> None:
        """The process ends: take no more jobs, and break off what runs; the model is not unloaded."""
        with self._lock:
            if self._state == "closed":
                return
            self._state = "refusing"
            self._closing.set()
            if self._running is not None and not self._guest:
                self._aborted = True
                break_off(self._thread.ident)
                self._rouse()  # it may have come back meanwhile

    @property
    def at_work(self) -> bool:
        """Whether a thread may be in the model: once aborted until its thread has ended."""
        busy = self._thread.is_alive() if self._aborted else self._running is not None
        return busy or any(thread.is_alive() for thread in self._given_up)

    def orphan(self) -> None:
        """This process is a fork, without the lane's thread: nothing is waited for."""
        self._lock, self._ended = threading.RLock(), threading.Event()
        self._state, self._running, self._asleep = "closed", None, False
        self._ended.set()

    def run_here(self, entry: Entry[Job], waits: Callable[[], None]) -> bool:
        """Run a lone job on the caller's thread; False where others wait or run, and nothing was done.

        `waits` is called before the job comes back into the line, where it does.
        """
        with self._lock:
            if not self._asleep or len(self._line):
                return False
            running = self._let_in([entry])
        self._run_as_guest(running, waits)
        return True

    def run_waiting(self) -> None:
        """Run what waits on the caller's thread, where the lane's own sleeps; else that one has it."""
        while True:
            running: Running | None = None
            with self._lock:
                if not self._asleep:
                    return
                now = self._clock()
                late = self._let_go(self._line.expire(now))
                seconds = self._line.wait_for(now)
                if seconds == 0 and self._state == "open":
                    running = self._let_in(self._line.take(now, self._model.max_cost))
                elif seconds is not None:
                    self._rouse()
            tell_late(late)
            if running is None:
                return
            self._run_as_guest(running)

    def _let_in(self, batch: list[Entry[Job]]) -> Running:
        """Have a guest run a batch; the lane's own thread, not roused, sleeps on meanwhile."""
        self._asleep = False
        self._guest = True
        running = self._running = Running(self._clock(), batch, self._policy.call_timeout_s)
        return running

    def _run_as_guest(self, running: Running, waits: Callable[[], None] | None = None) -> None:
        again: list[Entry[Job]] = []
        try:
            again = self._run_batch(running.batch)
            if again and waits is not None:
                waits()
        finally:
            with self._lock:
                if self._settle(running, again):
                    self._guest = False
                    self._asleep = True
                    if self._calls or self._state != "open" or not self._model.ready or len(self._line):
                        self._rouse()

    def _run(self) -> None:
        try:
            self._run_turns()
        except ProcessEnds:
            if not self._aborted:
                raise
        finally:
            if self._aborted:
                with self._lock:
                    self._state, self._running = "closed", None
                    refused = self._let_go(self._line.clear())
                tell_stopped(refused)
                self._ended.set()

    def _run_turns(self) -> None:
        while self._thread is threading.current_thread():  # else it was given up while it ran
            if self._aborted:
                return
            if not self._model.ready and not self._mend():
                continue
            with self._lock:
                refused = self._refused()
                now = self._clock()
                late = self._let_go(self._line.expire(now))
                work, seconds = self._next(now)
                idle = work is None and not late and not refused
                over = idle and seconds is None and self._state != "open"
                if over:
                    self._state = "closed"
                else:
                    self._asleep = idle
            tell_stopped(refused)
            tell_late(late)
            if over:
                with self._watched(self._policy.load_timeout_s):
                    self._model.unload()
                self._ended.set()
                return
            if isinstance(work, Running):
                again = self._run_batch(work.batch)
                with self._lock:
                    self._settle(work, again)
            elif work is not None:
                with self._watched(work.limit, work.future):
                    work.make()
            elif idle:
                self._sleep(seconds)

    def _next(self, now: float) -> tuple[Running | Call | None, float | None]:
        """What to do now; or nothing, and the seconds until there may be something."""
        if self._calls:
            return self._calls.pop(0), None
        seconds = self._line.wait_for(now)
        if seconds is None or (seconds > 0 and self._state == "open"):
            # Deadlines are kept while a window is open, too.
            return None, None if seconds is None else min(seconds, self._line.next_deadline - now)
        # Once closed, nothing waits for its window.
        batch = self._line.take(now if seconds == 0 else math.inf, self._model.max_cost)
        self._running = Running(now, batch, self._policy.call_timeout_s)
        return self._running, None

    def _mend(self) -> bool:
        """Load the model anew where it died, as often as it takes; nothing is lost of what waits.

        False where this thread was given up meanwhile.
        """
        while not self._model.ready:
            pause = self._model.pause
            if pause is not None and self._rest(pause):
                break
            with self._watched(self._policy.load_timeout_s) as attempt:
                loaded = self._model.reload(partial(self._is_running, attempt))
                with self._lock:
                    late = not self._is_running(attempt)
                    if not late:
                        self._model.adopt(loaded)
            if late:
                if loaded is not None:
                    self._model.let_go(loaded)
                return False
        return True

    def _is_left(self) -> bool:
        """Whether the lane closes, and nobody waits for what runs or for what is in line."""
        running = self._running
        if self._state == "open" or running is None or not running.abandoned:
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

    def _run_batch(self, batch: Sequence[Entry[Job]]) -> list[Entry[Job]]:
        try:
            return self._model.run(batch)
        except BaseException as error:
            if self._aborted:
                tell_stopped(batch)
                return []
            log.exception("a job broke out of its lane")
            for entry in batch:
                entry.item.settle(InternalServerError("The engine failed on this request."))
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is not self._thread:
                raise  # the guest's own
            return []

    def _settle(self, running: Running, again: Sequence[Entry[Job]]) -> bool:
        """Book what ran; False where it was given up as hung meanwhile, and counts no more."""
        if not self._is_running(running):
            return False
        self._running = None
        now = self._clock()
        seconds = now - running.since
        done = len(running.batch) - len(again)
        self._pace.observe(done, seconds)
        if self._policy.linger:
            self._line.expect(done, now, seconds)
        self._line.charge(running.batch, seconds)
        for entry in again:
            self._line.come_back(entry, now)
        return True

    def _refused(self) -> list[Entry[Job]]:
        """What waits and will not be served any more."""
        return self._let_go(self._line.clear()) if self._state == "refusing" else []

    def _let_go(self, entries: list[Entry[Job]]) -> list[Entry[Job]]:
        """Have the model let go of jobs that left the line between two turns, on the lane's thread."""
        for entry in entries:
            if entry.item.started:
                self._calls.append(Call(entry.item.close, Future(), self._policy.call_timeout_s))
                self._rouse()
        return entries

    def _rest(self, seconds: float) -> bool:
        """Wait while the model cannot run, and tell those whose time runs out; True once the lane closes."""
        end = self._clock() + seconds
        while True:
            with self._lock:
                now = self._clock()
                late = self._let_go(self._line.expire(now))
                until = min(end, self._line.next_deadline)
            tell_late(late)
            if self._closing.wait(max(0.0, until - now)):
                return True
            if now >= end:
                return False

    def _sleep(self, seconds: float | None) -> None:
        if self._wake.acquire(timeout=-1 if seconds is None else min(seconds, threading.TIMEOUT_MAX)):
            return
        with self._lock:
            if self._asleep:
                self._asleep = False
                return
        # Roused between the time-out and here; or a guest is at work, who rouses this thread after it.
        self._wake.acquire()

    def _rouse(self) -> None:
        if self._asleep:
            self._asleep = False
            self._wake.release()

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
                if self._is_left():
                    continue  # nobody needs another in its place
                self._running = None
                over = self._state == "closed"
                if not self._guest:
                    self._given_up.append(self._thread)
                thread = None if self._guest or over else self._make_thread()
                self._thread = thread or self._thread
                self._guest = False
            if over:
                log.error("model %s could not be unloaded within %.0f s", self._name, limit)
                self._ended.set()
                return
            log.error("model %s has not come back for %.0f s; loading it anew", self._name, limit)
            self._model.hung(running.batch, limit)
            if thread is not None:
                thread.start()
            else:  # a caller hangs in its own thread; the lane's sleeps
                self._wake.release()
