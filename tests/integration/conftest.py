"""What is costly to make and shared by test files: queues, and diffusion checkpoints with adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.integration.adapter_cases import Studio
from tests.integration.queues import Queues, RedisServer


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


@pytest.fixture(scope="session")
def studio_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Studio]:
    """The small checkpoint of a family of diffusion models with its LoRA files, made when first wanted."""
    return cache(lambda family: Studio(family, tmp_path_factory.mktemp("studio")))
