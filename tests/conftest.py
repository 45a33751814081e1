"""What all tests share: one torch thread, no hub, requests, and a live server over a real model."""

from __future__ import annotations

import logging
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_agent_register_timeout_ms", "180000")
# Ray gives a proxy three times five seconds to start, which a busy machine may exceed.
os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")

# A shell that begins the tests in the background has them ignore Ctrl-C, and with them all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest

from sheaf.api.time_series import TimeSeriesRequest
from sheaf.embedded import EmbeddedServer
from sheaf.spec import ModelSpec

MakeRequest = Callable[..., TimeSeriesRequest]


def pytest_configure(config: pytest.Config) -> None:
    """Each family of backends has a mark of its name: `-m time_series`."""
    for folder in (Path(__file__).parent / "backends").glob("*/__init__.py"):
        family = folder.parent.name
        config.addinivalue_line("markers", f"{family}: tests of the backends in tests/backends/{family}")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse tests of one identifier where several processes share them: only one of each would be run."""
    if hasattr(config, "workerinput"):
        repeated = [nodeid for nodeid, times in Counter(item.nodeid for item in items).items() if times > 1]
        if repeated:
            raise pytest.UsageError(f"mark these as serial, for their identifiers repeat: {repeated}")


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Servers configure the logging of their process; a test that runs one in this process leaves nothing."""
    loggers = [logging.getLogger(), *map(logging.getLogger, ("sheaf", "sheaf_client"))]
    before = [(logger, logger.level, list(logger.handlers), logger.propagate) for logger in loggers]
    yield
    for logger, level, handlers, propagate in before:
        logger.setLevel(level)
        logger.handlers[:], logger.propagate = handlers, propagate


@pytest.fixture
def make_request() -> MakeRequest:
    """A small valid request; keywords replace its fields."""

    def make(value: float = 1.0, **fields: Any) -> TimeSeriesRequest:
        given = {"model_name": "echo", "history": [0.0, value], "horizon": 2, "frequency": "1h", **fields}
        return TimeSeriesRequest.model_validate(given)

    return make


@pytest.fixture(scope="session")
def live_server() -> Iterator[EmbeddedServer]:
    """The embedded server over the real `statsforecast` backend, on a free port.

    The models that the schema's other examples call are there too, by backends that answer from the contract.
    """
    from codegen.bundle import read_bundle
    from tests.contract.echo import EchoBackend

    bundle = read_bundle(Path(__file__).parents[1] / "schema")
    echoes = {
        example["model_name"]: ModelSpec(
            name=example["model_name"], backend_cls=EchoBackend.of(task.model_type)
        )
        for task in bundle.tasks
        for operation in task.operations
        for example in bundle.schemas[operation.request].body["examples"]
        if example["model_name"] != "statsforecast"
    }
    with EmbeddedServer(["statsforecast", *echoes.values()], port=0) as server:
        yield server
