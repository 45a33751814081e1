"""What becomes of jobs in SQLite by the passing of time; a step costs by what it finds, not by what waits."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection

from sheaf.worker.queue import EXPIRED, LOST, UNREADABLE, JobPolicy

#: Most rows that one step changes, so that others are not kept from the file for long.
_SOME = 2000
#: Seconds by which clocks of processes that share a file may seem to differ.
_SLACK = 1.0

LAPSED = "status = 'running' AND due <= ?"
_FAIL = "UPDATE jobs SET status = 'failed', outcome = ?, finished = ?, body = NULL WHERE"
_BURY = "UPDATE jobs SET status = 'dead', outcome = ?, finished = ? WHERE"
#: Text and blobs come after all numbers.
_NO_NUMBER = "due >= ''"

LOSE = f"{_BURY} {LAPSED} AND attempts >= ?"
EXPIRE_LAPSED = f"{_FAIL} {LAPSED} AND expires <= ?"
EXPIRE = f"{_FAIL} seq IN (SELECT seq FROM jobs WHERE status = 'queued' AND expires <= ? LIMIT ?)"  # noqa: S608
BURY_WAITING = f"{_BURY} status = 'queued' AND model = ? AND {_NO_NUMBER}"
BURY_RUNNING = f"{_BURY} status = 'running' AND {_NO_NUMBER}"
FORGET_DONE = (
    "DELETE FROM jobs WHERE seq IN (SELECT seq FROM jobs WHERE status IN ('completed', 'failed') "
    "AND finished < ? LIMIT ?)"
)
FORGET_DEAD = (
    "DELETE FROM jobs WHERE seq IN (SELECT seq FROM jobs WHERE status = 'dead' AND finished < ? LIMIT ?)"
)
_MOVED = "UPDATE jobs SET due = due - since + ?, since = ? WHERE due > ? AND since > ? AND since < '' AND"
REDATE_RUNNING = f"{_MOVED} status = 'running'"
REDATE_WAITING = f"{_MOVED} status = 'queued' AND model = ?"


class Tidying:
    """Tidies a queue's table at intervals, whoever calls how often."""

    def __init__(self, policy: JobPolicy) -> None:
        self._policy = policy
        self._interval = min(1.0, policy.lease / 4, policy.keep / 2, policy.keep_dead / 2)
        self._next = 0.0
        #: What the clock was ahead of one that is never set; at first, jobs may be of a time before that.
        self._ahead = float("inf")

    @property
    def due(self) -> bool:
        """Whether it is time."""
        return time.monotonic() >= self._next

    def tidy(self, db: sqlite3.Connection, models: Collection[str], now: float) -> None:
        """End what is too late or cannot be read, and forget what was kept long enough; in a transaction.

        `models` are those whose jobs the caller takes.
        """
        self._next = time.monotonic() + self._interval
        if models:
            self._mind_the_clock(db, models, now)
        db.execute(EXPIRE_LAPSED, (EXPIRED, now, now, now))
        db.execute(LOSE, (LOST, now, now, self._policy.max_attempts))
        db.execute(EXPIRE, (EXPIRED, now, now, _SOME))
        db.execute(BURY_RUNNING, (UNREADABLE, now))
        for model in models:
            db.execute(BURY_WAITING, (UNREADABLE, now, model))
        db.execute(FORGET_DONE, (now - self._policy.keep, _SOME))
        db.execute(FORGET_DEAD, (now - self._policy.keep_dead, _SOME))

    def _mind_the_clock(self, db: sqlite3.Connection, models: Collection[str], now: float) -> None:
        """Where the clock was set back, let leases and pauses end as long after now as they were to last."""
        before, self._ahead = self._ahead, now - time.monotonic()
        if self._ahead > before - _SLACK:
            return
        moved = (now, now, now, now + _SLACK)
        db.execute(REDATE_RUNNING, moved)
        for model in models:
            db.execute(REDATE_WAITING, (*moved, model))
