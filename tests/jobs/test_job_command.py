"""`sheaf worker` where its queue is none: one line that says why, and no password or traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs.queues import RedisServer

SECRET = "hunter2"  # noqa: S105 - of nobody


def told(queue: str, *arguments: str) -> str:
    """What the command says before it ends with status 1."""
    command = [sys.executable, "-m", "sheaf", "worker", "statsforecast", "--queue", queue, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    said = done.stdout + done.stderr
    assert (done.returncode, SECRET in said, "Traceback" in said) == (1, False, False), said
    (line,) = done.stderr.splitlines()
    return line


def test_a_file_that_is_no_queue_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "jobs.db").write_bytes(b"this is no database, and longer than the head of one" * 100)
    assert told(f"sqlite:///{tmp_path}/jobs.db") == (
        f"sheaf: the queue's file {tmp_path}/jobs.db is broken: file is not a database"
    )


def test_a_file_that_cannot_be_opened_is_told_in_a_line(tmp_path: Path) -> None:
    assert "cannot be used: unable to open database file" in told(f"sqlite:///{tmp_path}/none/jobs.db")


def test_a_database_that_redis_does_not_have_is_told_in_a_line(redis_server: RedisServer) -> None:
    said = told(f"redis://:{SECRET}@127.0.0.1:{redis_server.port}/99")
    assert said.startswith("sheaf: Redis ")
    said = told(f"redis://127.0.0.1:{redis_server.port}/99")
    assert said == "sheaf: Redis refuses to be the queue: DB index is out of range"


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{SECRET}@127.0.0.1:none/0",
        f"redis://:{SECRET}/2@127.0.0.1:6379/0",
        f"redis://:{SECRET}@127.0.0.1:1/0?unknown=1",
        f"amqp://:{SECRET}@here",
        f"redis://:{SECRET}@127.0.0.1:1/0",
    ],
)
def test_a_url_is_refused_without_its_password(url: str) -> None:
    assert told(url).startswith("sheaf: ")


def test_a_policy_that_cannot_be_is_told_in_a_line(tmp_path: Path) -> None:
    said = told(f"sqlite:///{tmp_path}/jobs.db", "--max-attempts", "0")
    assert said == "sheaf: max_attempts must be 1 or more"
