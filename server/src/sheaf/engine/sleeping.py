"""Lets a lane's thread sleep until somebody wakes it."""

from __future__ import annotations

import threading


class Sleeper:
    """The sleep of one thread; all but `sleep` under the lane's lock.

    A plain lock wakes faster than a condition: it is held while the thread is awake, and released to wake it.
    """

    __slots__ = ("_gate", "_lock", "asleep")

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._gate = threading.Lock()
        self._gate.acquire()
        #: Whether the thread sleeps or is about to, and nobody has woken it.
        self.asleep = False

    def wake(self) -> None:
        """Wake the thread where it sleeps."""
        if self.asleep:
            self.asleep = False
            self._gate.release()

    def wake_another(self) -> None:
        """Let the thread go on although another was woken in its place."""
        self._gate.release()

    def sleep(self, seconds: float | None) -> None:
        """Sleep until woken, or for so many seconds; `asleep` was set before, under the lock."""
        if self._gate.acquire(timeout=-1 if seconds is None else min(seconds, threading.TIMEOUT_MAX)):
            return
        with self._lock:
            if self.asleep:
                self.asleep = False
                return
        # Woken between the time-out and here; or a caller's thread is at work, which wakes this one after it.
        self._gate.acquire()
