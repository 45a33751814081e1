"""The embedded queue: one SQLite file, for the processes of one machine. Nothing to install or to run."""

from __future__ import annotations

import math
import sqlite3
import threading
import time
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from sheaf.worker.queue import (
    EXPIRED,
    UNREADABLE,
    Ended,
    Job,
    JobNotFoundError,
    JobPolicy,
    JobQueue,
    JobStatus,
    Lease,
    QueueBrokenError,
    QueueUnavailableError,
    key_reused,
)
from sheaf.worker.sqlite_schema import prepare
from sheaf.worker.sqlite_tidy import LAPSED, Tidying

_COLUMNS = "id, model, status, attempts, created, finished, outcome"
#: Seconds between two looks for work: SQLite tells nobody of what others write.
_POLL = 0.05
_WAITING = "status = 'queued' AND model = ?"
#: Jobs that have been tried before go first; none of them can hold up the line for longer than its attempts.
_TRIED = f"SELECT seq FROM jobs WHERE {_WAITING} AND due > 0 AND due <= ? ORDER BY due, seq LIMIT ?"  # noqa: S608
_NEW = f"SELECT seq FROM jobs WHERE {_WAITING} AND due <= 0 ORDER BY due, seq LIMIT ?"  # noqa: S608
#: Of a lost worker, and to be tried once more.
_LOST = f"SELECT seq FROM jobs WHERE {LAPSED} AND attempts < ? AND model IN ({{}}) ORDER BY due LIMIT 1"  # noqa: S608
_TAKE = (
    "UPDATE jobs SET status = 'running', attempts = attempts + 1, token = ?, since = ?, due = ? "
    "WHERE seq IN ({which}) RETURNING seq, id, model, body, attempts, expires"
)


class SqliteQueue(JobQueue):
    """A queue in a file; made where it is not there.

    Args:
        path: The file. It must lie on a disk of this machine, since SQLite's locks fail on network mounts.
        policy: Leases, attempts and how long outcomes are kept.
    """

    def __init__(self, path: str | Path, *, policy: JobPolicy | None = None) -> None:
        super().__init__(policy)
        self._lock = threading.Lock()
        self._tidying = Tidying(self.policy)
        with _told(path):
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            # Text that is none is no reason to read nothing else.
            self._db.text_factory = partial(str, encoding="utf-8", errors="replace")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            prepare(self._db)
        self._path = path

    def get(self, job: str) -> Job:
        with self._reading() as db:
            row = db.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (job,)).fetchone()  # noqa: S608
        if row is None:
            raise JobNotFoundError(f"no job {job}")
        return _job(row)

    def depth(self, model: str | None = None) -> int:
        query = "SELECT count(*) FROM jobs WHERE status = 'queued'"
        with self._reading() as db:
            found = db.execute(query) if model is None else db.execute(f"{query} AND model = ?", (model,))
            return int(found.fetchone()[0])

    def dead_letters(self, limit: int = 100) -> list[Job]:
        query = f"SELECT {_COLUMNS} FROM jobs WHERE status = 'dead' ORDER BY finished DESC LIMIT ?"  # noqa: S608
        with self._reading() as db:
            return [_job(row) for row in db.execute(query, (limit,))]

    def requeue(self, job: str) -> None:
        with self._writing() as db:
            done = db.execute(
                "UPDATE jobs SET status = 'queued', attempts = 0, due = 0, since = NULL, expires = NULL, "
                "finished = NULL, outcome = NULL WHERE id = ? AND status = 'dead'",
                (job,),
            )
        if done.rowcount == 0:
            raise JobNotFoundError(f"no dead job {job}")

    def lease(self, wanted: Mapping[str, int], wait: float, *, holding: bool = False) -> list[Lease]:
        end = time.monotonic() + wait
        while True:
            leases, blocked = self._look(wanted, holding=holding)
            left = end - time.monotonic()
            if leases or blocked or left <= 0:
                return leases
            time.sleep(min(_POLL, left))

    def _look(self, wanted: Mapping[str, int], *, holding: bool) -> tuple[list[Lease], bool]:
        """The jobs that are there; and whether one of them must wait until the caller holds no other."""
        now = time.time()
        with self._reading() as db:
            lost, waiting = self._has_lost(db, wanted, now), _has_waiting(db, wanted, now)
        if not (lost or waiting or self._tidying.due):
            return [], False
        token = uuid4().hex
        with self._writing() as db:
            if self._tidying.due:
                self._tidying.tidy(db, wanted, now)
            if lost and (lost := self._has_lost(db, wanted, now)) and holding:
                return [], True
            if lost:
                found = (now, self.policy.max_attempts, *wanted)
                return self._take(db, _lost_of(wanted), found, token, now, alone=True), False
            return [
                lease for model, count in wanted.items() for lease in self._next(db, model, count, token, now)
            ], False

    def _next(self, db: sqlite3.Connection, model: str, count: int, token: str, now: float) -> list[Lease]:
        leases = self._take(db, _TRIED, (model, now, count), token, now)
        if left := count - len(leases):
            leases += self._take(db, _NEW, (model, left), token, now)
        return leases

    def _has_lost(self, db: sqlite3.Connection, models: Collection[str], now: float) -> bool:
        return db.execute(_lost_of(models), (now, self.policy.max_attempts, *models)).fetchone() is not None

    def _take(
        self,
        db: sqlite3.Connection,
        which: str,
        found: Sequence[Any],
        token: str,
        now: float,
        *,
        alone: bool = False,
    ) -> list[Lease]:
        """Lease jobs; ends those that are too late or that nobody can read, and looks for others then."""
        leases: list[Lease] = []
        take, due = _TAKE.format(which=which), now + self.policy.lease
        while not leases and (rows := db.execute(take, (token, now, due, *found)).fetchall()):
            for _, job, model, body, attempt, expires in sorted(rows, key=lambda row: row[0]):
                lease = Lease(job, model, _bytes(body), attempt, token, _seconds(expires, now), alone)
                if isinstance(expires, str | bytes):
                    _end(db, Ended(lease, JobStatus.DEAD, UNREADABLE), now)
                elif lease.remaining is not None and lease.remaining <= 0:
                    _end(db, Ended(lease, JobStatus.FAILED, EXPIRED), now)
                else:
                    leases.append(lease)
        return leases

    def extend(self, leases: Sequence[Lease]) -> list[bool]:
        now = time.time()
        with self._writing() as db:
            return [
                _touched(db, "since = ?, due = ?", lease, now, now + self.policy.lease) for lease in leases
            ]

    def finish_all(self, ended: Sequence[Ended]) -> list[bool]:
        now = time.time()
        with self._writing() as db:
            return [_end(db, end, now) for end in ended]

    def retry(self, lease: Lease, outcome: bytes) -> bool:
        if lease.attempt >= self.policy.max_attempts:
            return self.finish(lease, JobStatus.DEAD, outcome)
        now = time.time()
        change = "status = 'queued', outcome = ?, since = ?, due = ?"
        with self._writing() as db:
            return _touched(db, change, lease, outcome, now, now + self.policy.pause(lease.attempt))

    def give_back(self, lease: Lease) -> bool:
        change = "status = 'queued', attempts = attempts - 1, since = NULL, due = 0"
        with self._writing() as db:
            return _touched(db, change, lease)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _add(
        self, job: str, model: str, body: bytes, key: str | None, digest: bytes, timeout: float | None
    ) -> str:
        now = time.time()
        expires = None if timeout is None else now + timeout
        with self._writing() as db:
            if self._tidying.due:
                self._tidying.tidy(db, (), now)
            if key is not None:
                known = db.execute("SELECT id, digest FROM jobs WHERE key = ?", (key,)).fetchone()
                if known is not None:
                    return _same(key, known, digest)
            db.execute(
                "INSERT INTO jobs (id, key, digest, model, body, due, expires, created) "
                "VALUES (?, ?, ?, ?, ?, 0, ?, ?)",
                (job, key, digest or None, model, body, expires, now),
            )
        return job

    @contextmanager
    def _reading(self) -> Generator[sqlite3.Connection]:
        with self._lock, _told(self._path):
            yield self._db

    @contextmanager
    def _writing(self) -> Generator[sqlite3.Connection]:
        with self._lock, _told(self._path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")


def _has_waiting(db: sqlite3.Connection, models: Collection[str], now: float) -> bool:
    query = f"SELECT EXISTS (SELECT 1 FROM jobs WHERE {_WAITING} AND due <= ?)"  # noqa: S608
    return any(db.execute(query, (model, now)).fetchone()[0] for model in models)


def _lost_of(models: Collection[str]) -> str:
    return _LOST.format(", ".join("?" * len(models)))


def _touched(db: sqlite3.Connection, change: str, lease: Lease, *values: Any) -> bool:
    """Change a job that is still this lease's; whether it was."""
    update = f"UPDATE jobs SET {change} WHERE id = ? AND token = ? AND status = 'running'"  # noqa: S608
    return db.execute(update, (*values, lease.id, lease.token)).rowcount > 0


def _end(db: sqlite3.Connection, end: Ended, now: float) -> bool:
    """Keep an outcome where the lease holds, or has ended in this way already."""
    lease, status = end.lease, end.status.value
    # Only the dead keep their request, which may be put in line again.
    kept = "" if end.status is JobStatus.DEAD else ", body = NULL"
    if _touched(db, f"status = ?, outcome = ?, finished = ?{kept}", lease, status, end.outcome, now):
        return True
    said = "SELECT 1 FROM jobs WHERE id = ? AND token = ? AND status = ?"
    return db.execute(said, (lease.id, lease.token, status)).fetchone() is not None


def _same(key: str, known: tuple[Any, ...], digest: bytes) -> str:
    """The job of a key, if it is of the same request; jobs of earlier versions do not tell."""
    job, earlier = known
    if earlier is not None and earlier != digest:
        raise key_reused(key, job)
    return str(job)


def _job(row: tuple[Any, ...]) -> Job:
    job, model, status, attempts, created, finished, outcome = row
    return Job(job, model, JobStatus(status), attempts, created, finished, outcome)


def _bytes(body: Any) -> bytes:
    """The body; a stranger may have written text, a number or nothing."""
    return body if isinstance(body, bytes) else str(body or "").encode()


def _seconds(expires: Any, now: float) -> float | None:
    """How long from now until then; None for never, and for what is no time."""
    if not isinstance(expires, int | float) or expires == math.inf:
        return None
    return expires - now


@contextmanager
def _told(path: str | Path) -> Generator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise QueueUnavailableError(f"the queue's file {path} cannot be used: {error}") from error
    except sqlite3.DatabaseError as error:
        if type(error) is not sqlite3.DatabaseError:  # of a statement, not of the file
            raise
        raise QueueBrokenError(f"the queue's file {path} is broken: {error}") from error
