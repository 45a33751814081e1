"""The queue in a file: what it asks SQLite, rows that nobody could have written, clocks, files of old."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sheaf.worker import JobPolicy, JobQueue, JobStatus, QueueBrokenError, SheafWorker, SqliteQueue
from sheaf.worker import sqlite as queries
from sheaf.worker import sqlite_tidy as statements
from sheaf.worker.sqlite_tidy import Tidying
from sheaf_client.errors import MalformedRequestError
from tests.conftest import MakeRequest
from tests.jobs.queues import until
from tests.jobs.test_job_queues import BAD, GOOD, take, take_one
from tests.jobs.test_job_worker import echo, working


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@contextmanager
def changing(file: Path) -> Iterator[sqlite3.Connection]:
    """The file as a stranger has it, who knows nothing of queues."""
    db = sqlite3.connect(file)
    with db:
        yield db
    db.close()


def plan_of(file: Path, statement: str) -> list[str]:
    values = (1.0,) * statement.count("?")
    with changing(file) as db:
        return [detail for *_, detail in db.execute(f"EXPLAIN QUERY PLAN {statement}", values)]


STATEMENTS = {
    "tried": (queries._TRIED, "jobs_waiting (model=? AND due>? AND due<?)"),
    "new": (queries._NEW, "jobs_waiting (model=? AND due<?)"),
    "lost": (queries._lost_of(["m"]), "jobs_running (due<?)"),
    "used up": (statements.LOSE, "jobs_running (due<?)"),
    "late while lost": (statements.EXPIRE_LAPSED, "jobs_running (due<?)"),
    "late": (statements.EXPIRE, "jobs_expiring (expires<?)"),
    "unreadable": (statements.BURY_WAITING, "jobs_waiting (model=? AND due>?)"),
    "unreadable lease": (statements.BURY_RUNNING, "jobs_running (due>?)"),
    "outcomes": (statements.FORGET_DONE, "jobs_done (finished<?)"),
    "letters": (statements.FORGET_DEAD, "jobs_dead (finished<?)"),
    "clock, leases": (statements.REDATE_RUNNING, "jobs_running (due>?)"),
    "clock, pauses": (statements.REDATE_WAITING, "jobs_waiting (model=? AND due>?)"),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_question_depends_on_how_many_jobs_wait(file: Path, name: str) -> None:
    statement, index = STATEMENTS[name]
    SqliteQueue(file).close()
    plan = plan_of(file, statement)
    assert any(index in step for step in plan), plan
    assert not any(step.startswith("SCAN") or "TEMP B-TREE" in step for step in plan), plan


def test_jobs_that_pause_or_expire_are_not_looked_through(file: Path, make_request: MakeRequest) -> None:
    """Counted in steps of SQLite's machine, which do not depend on who else uses the computer."""
    steps = []
    for count in (100, 10_000):
        with SqliteQueue(file, policy=JobPolicy(lease=3600)) as queue:
            with changing(file) as db:
                columns = "(id, model, body, due, expires, created)"
                later = time.time() + 3600
                row = f"INSERT INTO jobs {columns} VALUES (?, 'echo', '', ?, ?, 0)"  # noqa: S608
                db.executemany(row, ((f"{count}-{n}", later, later) for n in range(count)))
            take(queue, wait=0)  # tidies
            counted = [0]
            queue._db.set_progress_handler(lambda counted=counted: counted.__setitem__(0, counted[0] + 1), 1)
            job = queue.enqueue(make_request())
            assert take_one(queue).id == job
            assert take(queue, wait=0) == []
            steps.append(counted[0])
    assert steps[1] < 1.5 * steps[0], steps


#: As the version before this one made it.
OLD = """
CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, key TEXT UNIQUE, model TEXT NOT NULL, body BLOB,
    status TEXT NOT NULL DEFAULT 'queued', attempts INTEGER NOT NULL DEFAULT 0, token TEXT, due REAL NOT NULL,
    expires REAL, created REAL NOT NULL, finished REAL, outcome BLOB
);
CREATE INDEX jobs_in_line ON jobs (status, model, seq);
CREATE INDEX jobs_with_deadline ON jobs (expires) WHERE expires IS NOT NULL;
"""


def test_a_file_of_the_version_before_goes_on(file: Path, make_request: MakeRequest) -> None:
    body, now = make_request(5.0).model_dump_json(), time.time()
    rows = [
        ("waits", None, "queued", 0, None, now - 5, None, None),
        ("pauses", None, "queued", 1, "t", now + 3600, None, None),
        ("was held", None, "running", 1, "t", now - 1, None, None),
        ("done", "k", "completed", 1, "t", now, now, GOOD),
    ]
    with changing(file) as db:
        db.executescript(OLD)
        columns = "id, key, status, attempts, token, due, finished, outcome, model, body, created"
        db.executemany(
            f"INSERT INTO jobs ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'echo', ?, ?)",  # noqa: S608
            ((*row, body, now) for row in rows),
        )
    with SqliteQueue(file) as one, SqliteQueue(file) as two:
        assert (one.depth(), two.get("done").outcome) == (2, GOOD)
        assert one.enqueue(make_request(), idempotency_key="k") == "done", "its request is not known"
        new = one.enqueue(make_request())
        (alone,) = take(two, 8)
        assert (alone.id, alone.alone, alone.attempt) == ("was held", True, 2)
        assert [lease.id for lease in take(one, 8)] == ["waits", new]
    with changing(file) as db:
        indices = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    assert {name for name in indices if name.startswith("jobs_")} == {
        f"jobs_{name}" for name in ("waiting", "running", "expiring", "done", "dead")
    }


@pytest.mark.parametrize("value", ["soon", b"\xff\x00", ""])
@pytest.mark.parametrize("column", ["due", "expires", "attempts", "body"])
def test_a_row_that_nobody_can_read_stops_nobody(
    file: Path, make_request: MakeRequest, column: str, value: Any
) -> None:
    policy = JobPolicy(lease=0.2, backoff=0.01, max_backoff=0.01)
    with SqliteQueue(file, policy=policy) as queue:
        jobs = [queue.enqueue(make_request(float(number))) for number in range(4)]
        with changing(file) as db:
            db.execute(f"UPDATE jobs SET {column} = ? WHERE id = ?", (value, jobs[1]))  # noqa: S608
        with working(queue):
            ends = [queue.wait(job, 60) for job in (jobs[0], jobs[2], jobs[3])]
            until(lambda: queue.get(jobs[1]).status.final)
    assert [end.result().mean[0] for end in ends] == [0.0, 2.0, 3.0]


@pytest.mark.parametrize("column", ["due", "expires"])
def test_a_row_without_a_readable_time_is_a_dead_letter(
    file: Path, make_request: MakeRequest, column: str
) -> None:
    with SqliteQueue(file, policy=JobPolicy(lease=0.05)) as queue:
        jobs = [queue.enqueue(make_request(), timeout=60) for _ in range(2)]
        held = queue.enqueue(make_request(model_name="held"))
        (lease,) = queue.lease({"held": 1}, 10)
        with changing(file) as db:
            db.execute(f"UPDATE jobs SET {column} = 'soon' WHERE id IN (?, ?)", (jobs[0], held))  # noqa: S608
        assert take_one(queue).id == jobs[1]
        until(lambda: queue.lease({"echo": 1, "held": 1}, 0) is not None and queue.get(jobs[0]).status.final)
        dead = queue.get(jobs[0])
        assert dead.status is JobStatus.DEAD
        assert isinstance(dead.problem, MalformedRequestError)
        if column == "due":
            assert queue.get(held).status is JobStatus.DEAD, "a lease without an end"
            assert not queue.finish(lease, JobStatus.COMPLETED, GOOD)


def test_text_that_is_none_is_a_body_like_others(file: Path, make_request: MakeRequest) -> None:
    with SqliteQueue(file) as queue:
        with changing(file) as db:
            columns = "(id, model, body, due, created)"
            db.execute(f"INSERT INTO jobs {columns} VALUES ('s', 'echo', CAST(x'ff' AS TEXT), 0, 0)")  # noqa: S608
        good = queue.enqueue(make_request(2.0))
        with working(queue):
            assert queue.wait(good, 60).result().mean == [2.0, 2.0]
            assert queue.wait("s", 60).status is JobStatus.DEAD


def test_outcomes_go_by_time_where_nobody_enqueues(file: Path, make_request: MakeRequest) -> None:
    with SqliteQueue(file, policy=JobPolicy(keep=0.5, keep_dead=0.5, max_attempts=1)) as queue:
        done, dead = queue.enqueue(make_request()), queue.enqueue(make_request())
        first, second = take(queue, 2)
        queue.finish(first, JobStatus.COMPLETED, GOOD)
        queue.retry(second, BAD)
        assert {queue.get(done).status, queue.get(dead).status} == {JobStatus.COMPLETED, JobStatus.DEAD}
        with working(queue), changing(file) as db:
            until(lambda: db.execute("SELECT count(*) FROM jobs").fetchone() == (0,))


def set_back(file: Path, seconds: float) -> None:
    """All times of the file as if they had been written before the clock was set back."""
    with changing(file) as db:
        db.execute("UPDATE jobs SET due = due + ? WHERE due > 0", (seconds,))
        db.execute("UPDATE jobs SET since = since + ?, created = created + ?", (seconds, seconds))


def test_a_clock_that_is_set_back_keeps_no_job_waiting(file: Path, make_request: MakeRequest) -> None:
    policy = JobPolicy(lease=0.5, backoff=0.2, max_backoff=0.2)
    with SqliteQueue(file, policy=policy) as before:
        new, lost, pausing = (before.enqueue(make_request()) for _ in range(3))
        leases = {lease.id: lease for lease in take(before, 3)}
        before.give_back(leases[new])
        before.retry(leases[pausing], BAD)
    set_back(file, 3600)
    with SqliteQueue(file, policy=policy) as after:
        assert take_one(after).id == new
        got: list[str] = []
        until(lambda: got.extend(lease.id for lease in take(after, 8, wait=0)) or {lost, pausing} <= {*got})


def test_a_clock_that_is_set_back_meanwhile_moves_leases_and_pauses(
    file: Path, make_request: MakeRequest
) -> None:
    with SqliteQueue(file, policy=JobPolicy(lease=30, backoff=60)) as queue:
        for _ in range(2):
            queue.enqueue(make_request())
        held, pausing = take(queue, 2)
        queue.retry(pausing, BAD)
        now = time.time()
        times = "SELECT due - since, since FROM jobs ORDER BY seq"
        lengths = [length for length, _ in queue._db.execute(times)]
        tidying = Tidying(queue.policy)
        for clock, moved in ((now, False), (now + 5, False), (now - 3600, True), (now - 3590, False)):
            before = queue._db.execute(times).fetchall()
            tidying.tidy(queue._db, ["echo"], clock)
            after = queue._db.execute(times).fetchall()
            assert (before != after) is moved
            assert [length for length, _ in after] == pytest.approx(lengths)
        assert [since for _, since in after] == pytest.approx([now - 3600] * 2)
        assert queue.finish(held, JobStatus.COMPLETED, GOOD), "the lease holds on"


def test_a_file_that_breaks_while_it_is_used_ends_the_worker(file: Path, make_request: MakeRequest) -> None:
    queue: JobQueue = SqliteQueue(file)
    queue.enqueue(make_request())
    queue.close()
    pages = file.read_bytes()
    file.write_bytes(pages[:4096] + b"\xff" * (len(pages) - 4096))
    with SqliteQueue(file) as broken, pytest.raises(QueueBrokenError, match="malformed"):
        SheafWorker(echo(), broken).run()
