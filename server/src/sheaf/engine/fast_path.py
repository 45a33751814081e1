"""The fast path: a quick model's jobs run on the threads of their callers, still one call at a time.

To hand such a job to the lane's thread would cost more than to run it. The thread sleeps on meanwhile; where
anybody waits, or the thread is awake, the job goes into the line as any other.
"""

from __future__ import annotations

from collections.abc import Callable

from sheaf.engine.jobs import Job
from sheaf.engine.lane import Lane
from sheaf.engine.lane_model import LaneState, Running, fail_expired
from sheaf.scheduling.queue import Entry


class FastLane(Lane):
    """A lane whose model may be run by its callers, where it is free."""

    def run_here(self, entry: Entry[Job], before_waiting: Callable[[], object]) -> bool:
        """Run a lone job on the caller's thread; False where others wait or run, and nothing was done.

        `before_waiting` is called before the job comes back into the line, where it does.
        """
        with self._lock:
            if not self._sleeper.asleep or len(self._line):
                return False
            running = self._borrow([entry])
        self._run_borrowed(running, before_waiting)
        return True

    def run_waiting(self) -> None:
        """Run what waits on the caller's thread, where the lane's own sleeps; else that one has it."""
        while True:
            running: Running | None = None
            with self._lock:
                if not self._sleeper.asleep:
                    return
                now = self._clock()
                expired = self._schedule_cleanup(self._line.expire(now))
                seconds = self._line.wait_for(now)
                if seconds == 0 and self._state is LaneState.OPEN:
                    running = self._borrow(self._line.take(now, self._model.max_cost))
                elif seconds is not None:
                    self._sleeper.wake()
            fail_expired(expired)
            if running is None:
                return
            self._run_borrowed(running)

    def _borrow(self, batch: list[Entry[Job]]) -> Running:
        """Take the model for a batch; the lane's own thread, not woken, sleeps on meanwhile."""
        self._sleeper.asleep = False
        self._borrowed = True
        running = self._running = Running(self._clock(), batch, self._policy.call_timeout_s)
        return running

    def _run_borrowed(self, running: Running, before_waiting: Callable[[], object] | None = None) -> None:
        again: list[Entry[Job]] = []
        try:
            again = self._run_batch(running.batch)
            if again and before_waiting is not None:
                before_waiting()
        finally:
            with self._lock:
                if self._settle(running, again):
                    self._borrowed = False
                    self._sleeper.asleep = True
                    still_open = self._state is LaneState.OPEN and self._model.ready
                    if self._tasks or not still_open or len(self._line):
                        self._sleeper.wake()
