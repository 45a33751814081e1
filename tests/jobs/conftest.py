"""The queues that the tests of jobs run against, each in turn and empty."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.queues import Queues, RedisServer


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(params=["sqlite", "redis"])
def queues(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Queues]:
    """Each queue in turn, empty."""
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        server.clear()
        opened = Queues(server.url)
    else:
        opened = Queues(f"sqlite:///{tmp_path}/jobs.db")
    yield opened
    opened.close()
