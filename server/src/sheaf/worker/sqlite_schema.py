"""The table of jobs in SQLite, its indices, and how a file of an earlier version comes to have them.

Each question that a queue asks has an index of its own, so that none depends on how many jobs wait:

    jobs_waiting    may a job of this model begin? Those that have been tried before, by the end of their
                    pause, then those that are new, in their order
    jobs_running    whose lease has ended?
    jobs_expiring   whose deadline has passed?
    jobs_done       which outcomes, and
    jobs_dead       which dead letters, have been kept long enough?
"""

from __future__ import annotations

import sqlite3

#: Of the indices; raised where they or the columns change.
VERSION = 1

#: `due` is when a queued job may begin, 0 where it is new, and when a running one's lease ends; `since` is
#: when that was said, by which a clock that was set back is noticed. `digest` is of a request with a key.
_TABLE = """
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
)
"""
_LATER_COLUMNS = {"since": "REAL", "digest": "BLOB"}
_INDICES = (
    "DROP INDEX IF EXISTS jobs_in_line",
    "DROP INDEX IF EXISTS jobs_with_deadline",
    "CREATE INDEX jobs_waiting ON jobs (model, due, seq) WHERE status = 'queued'",
    "CREATE INDEX jobs_running ON jobs (due) WHERE status = 'running'",
    "CREATE INDEX jobs_expiring ON jobs (expires) WHERE status = 'queued' AND expires IS NOT NULL",
    "CREATE INDEX jobs_done ON jobs (finished) WHERE status IN ('completed', 'failed')",
    "CREATE INDEX jobs_dead ON jobs (finished) WHERE status = 'dead'",
)


def prepare(db: sqlite3.Connection) -> None:
    """Make the table, or bring that of an earlier version up to date, in one step."""
    if _version(db) >= VERSION:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        if _version(db) < VERSION:  # nobody else did it meanwhile
            db.execute(_TABLE)
            there = {name for _, name, *_ in db.execute("PRAGMA table_info(jobs)")}
            for name, kind in _LATER_COLUMNS.items():
                if name not in there:
                    db.execute(f"ALTER TABLE jobs ADD COLUMN {name} {kind}")
            for statement in _INDICES:
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {VERSION}")
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])
