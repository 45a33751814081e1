"""The queues that job tests run against: a file, and a real Redis on a port of its own."""

from __future__ import annotations

import shutil
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from sheaf.worker import JobPolicy, JobQueue, open_queue


class RedisServer:
    """A Redis that keeps what it was told before it replies, so that it may be killed at any moment."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("redis-server") is None:
            pytest.skip("redis-server is missing: apt-get install redis-server")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._folder = folder
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        durable = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")
        self._process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--dir", str(self._folder), *durable],
            stdout=subprocess.DEVNULL,
        )
        client = redis.Redis(port=self.port)
        for _ in range(500):
            try:
                client.ping()
                return
            except redis.ConnectionError:
                time.sleep(0.02)
        raise RuntimeError("redis-server did not come up")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def clear(self) -> None:
        redis.Redis(port=self.port).flushall()


class Queues:
    """Opens queues over one store, and writes into it what no queue would."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._open: list[JobQueue] = []

    def __call__(self, **policy: Any) -> JobQueue:
        self._open.append(open_queue(self.url, policy=JobPolicy(**policy)))
        return self._open[-1]

    def close(self) -> None:
        for queue in self._open:
            queue.close()

    def write_malformed(self) -> None:
        """A job for the model `echo` that nobody can read."""
        if self.url.startswith("sqlite"):
            with sqlite3.connect(self.url.removeprefix("sqlite:///")) as db:
                columns = "(id, model, body, due, created)"
                db.execute(f"INSERT INTO jobs {columns} VALUES ('strange', 'echo', '{{what', 0, 0)")  # noqa: S608
            db.close()
        else:
            redis.Redis.from_url(self.url).xadd("sheaf:jobs:echo", {"what": "is this"})


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for what another thread or process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)
