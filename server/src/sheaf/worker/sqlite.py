"""The embedded queue: one SQLite file, for the processes of one machine. Nothing to install or to run."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from sheaf.worker.queue import (
    EXPIRED,
    LOST,
    Job,
    JobNotFoundError,
    JobPolicy,
    JobQueue,
    JobStatus,
    Lease,
    QueueUnavailableError,
)

#: `due` is when a queued job may begin, and when a running one's lease ends.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    key TEXT UNIQUE,
    model TEXT NOT NULL,
    body BLOB,
    status TEXT NOT NULL DEFAULT 'queued',
    attempts INTEGER NOT NULL DEFAULT 0,
    token TEXT,
    due REAL NOT NULL,
    expires REAL,
    created REAL NOT NULL,
    finished REAL,
    outcome BLOB
);
CREATE INDEX IF NOT EXISTS jobs_in_line ON jobs (status, model, seq);
CREATE INDEX IF NOT EXISTS jobs_with_deadline ON jobs (expires) WHERE expires IS NOT NULL;
"""
_COLUMNS = "id, model, status, attempts, created, finished, outcome"
#: Seconds between two looks for work: SQLite tells nobody of what others write.
_POLL = 0.05
#: Seconds between two removals of what has been kept long enough.
_PURGE = 60.0


class SqliteQueue(JobQueue):
    """A queue in a file; made where it is not there.

    Args:
        path: The file. It must lie on a disk of this machine, since SQLite's locks fail on network mounts.
        policy: Leases, attempts and how long outcomes are kept.
    """

    def __init__(self, path: str | Path, *, policy: JobPolicy | None = None) -> None:
        super().__init__(policy)
        self._lock = threading.Lock()
        self._purged = 0.0
        with _unavailable():
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(_SCHEMA)

    def get(self, job: str) -> Job:
        with self._reading() as db:
            row = db.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (job,)).fetchone()  # noqa: S608
        if row is None:
            raise JobNotFoundError(f"no job {job}")
        return _job(row)

    def depth(self, model: str | None = None) -> int:
        with self._reading() as db:
            found = db.execute(
                "SELECT count(*) FROM jobs WHERE status = 'queued' AND coalesce(model = ?, 1)", (model,)
            )
            return int(found.fetchone()[0])

    def dead_letters(self, limit: int = 100) -> list[Job]:
        query = f"SELECT {_COLUMNS} FROM jobs WHERE status = 'dead' ORDER BY finished DESC LIMIT ?"  # noqa: S608
        with self._reading() as db:
            return [_job(row) for row in db.execute(query, (limit,))]

    def requeue(self, job: str) -> None:
        with self._writing() as db:
            done = db.execute(
                "UPDATE jobs SET status = 'queued', attempts = 0, due = ?, expires = NULL, finished = NULL, "
                "outcome = NULL WHERE id = ? AND status = 'dead'",
                (time.time(), job),
            )
        if done.rowcount == 0:
            raise JobNotFoundError(f"no dead job {job}")

    def lease(self, wanted: Mapping[str, int], wait: float) -> list[Lease]:
        end = time.monotonic() + wait
        while True:
            leases = self._lease(wanted) if self._has_due(wanted) else []
            left = end - time.monotonic()
            if leases or left <= 0:
                return leases
            time.sleep(min(_POLL, left))

    def _has_due(self, models: Collection[str]) -> bool:
        """A look that locks nothing: most of them find nothing."""
        mine = ", ".join("?" * len(models))
        query = (
            "SELECT EXISTS (SELECT 1 FROM jobs WHERE status IN ('queued', 'running') "  # noqa: S608
            f"AND due <= ? AND model IN ({mine}))"
        )
        with self._reading() as db:
            return bool(db.execute(query, (time.time(), *models)).fetchone()[0])

    def _lease(self, wanted: Mapping[str, int]) -> list[Lease]:
        token, now = uuid4().hex, time.time()
        leases: list[Lease] = []
        with self._writing() as db:
            self._tidy(db, now)
            for model, count in wanted.items():
                rows = db.execute(
                    "UPDATE jobs SET status = 'running', attempts = attempts + 1, token = ?, due = ? "
                    "WHERE seq IN (SELECT seq FROM jobs WHERE status = 'queued' AND model = ? AND due <= ? "
                    "ORDER BY seq LIMIT ?) RETURNING seq, id, body, attempts, expires",
                    (token, now + self.policy.lease, model, now, count),
                ).fetchall()
                leases += [
                    Lease(
                        job, model, _bytes(body), attempt, token, None if expires is None else expires - now
                    )
                    for _, job, body, attempt, expires in sorted(rows, key=lambda row: row[0])
                ]
        return leases

    def _tidy(self, db: sqlite3.Connection, now: float) -> None:
        """Take back what lost workers held, end what is too late, and forget what was kept long enough."""
        lapsed = "status = 'running' AND due <= ?"
        db.execute(
            f"UPDATE jobs SET status = 'dead', outcome = ?, finished = ? WHERE {lapsed} AND attempts >= ?",  # noqa: S608
            (LOST, now, now, self.policy.max_attempts),
        )
        db.execute(f"UPDATE jobs SET status = 'queued' WHERE {lapsed}", (now,))  # noqa: S608
        db.execute(
            "UPDATE jobs SET status = 'failed', outcome = ?, finished = ?, body = NULL "
            "WHERE status = 'queued' AND expires <= ?",
            (EXPIRED, now, now),
        )
        if now - self._purged > min(_PURGE, self.policy.keep):
            self._purged = now
            db.execute(
                "DELETE FROM jobs WHERE finished < CASE status WHEN 'dead' THEN ? ELSE ? END",
                (now - self.policy.keep_dead, now - self.policy.keep),
            )

    def extend(self, leases: Sequence[Lease]) -> list[bool]:
        due = time.time() + self.policy.lease
        with self._writing() as db:
            return [_touched(db, "due = ?", lease, due) for lease in leases]

    def finish(self, lease: Lease, status: JobStatus, outcome: bytes) -> bool:
        # Only the dead keep their request, which may be put in line again.
        kept = "" if status is JobStatus.DEAD else ", body = NULL"
        change = f"status = ?, outcome = ?, finished = ?{kept}"
        with self._writing() as db:
            if _touched(db, change, lease, status.value, outcome, time.time()):
                return True
            said = "SELECT 1 FROM jobs WHERE id = ? AND token = ? AND status = ?"
            return db.execute(said, (lease.id, lease.token, status.value)).fetchone() is not None

    def retry(self, lease: Lease, outcome: bytes) -> bool:
        if lease.attempt >= self.policy.max_attempts:
            return self.finish(lease, JobStatus.DEAD, outcome)
        due = time.time() + self.policy.pause(lease.attempt)
        with self._writing() as db:
            return _touched(db, "status = 'queued', outcome = ?, due = ?", lease, outcome, due)

    def give_back(self, lease: Lease) -> bool:
        with self._writing() as db:
            return _touched(db, "status = 'queued', attempts = attempts - 1, due = ?", lease, time.time())

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _add(self, job: str, model: str, body: bytes, key: str | None, timeout: float | None) -> str:
        now = time.time()
        with self._writing() as db:
            self._tidy(db, now)
            known = db.execute("SELECT id FROM jobs WHERE key = ?", (key,)).fetchone()
            if known is not None:
                return str(known[0])
            db.execute(
                "INSERT INTO jobs (id, key, model, body, due, expires, created) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (job, key, model, body, now, None if timeout is None else now + timeout, now),
            )
        return job

    @contextmanager
    def _reading(self) -> Generator[sqlite3.Connection]:
        with self._lock, _unavailable():
            yield self._db

    @contextmanager
    def _writing(self) -> Generator[sqlite3.Connection]:
        with self._lock, _unavailable():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")


def _touched(db: sqlite3.Connection, change: str, lease: Lease, *values: Any) -> bool:
    """Change a job that is still this lease's; whether it was."""
    update = f"UPDATE jobs SET {change} WHERE id = ? AND token = ? AND status = 'running'"  # noqa: S608
    return db.execute(update, (*values, lease.id, lease.token)).rowcount > 0


def _job(row: tuple[Any, ...]) -> Job:
    job, model, status, attempts, created, finished, outcome = row
    return Job(job, model, JobStatus(status), attempts, created, finished, outcome)


def _bytes(body: Any) -> bytes:
    """The body; a stranger may have written text, a number or nothing."""
    return body if isinstance(body, bytes) else str(body or "").encode()


@contextmanager
def _unavailable() -> Generator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise QueueUnavailableError(f"the queue's file cannot be used: {error}") from error
