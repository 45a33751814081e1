"""What all tests share: one torch thread, no hub, requests, and a live server over a real model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_agent_register_timeout_ms", "180000")

import pytest

from sheaf.api.time_series import TimeSeriesRequest
from sheaf.embedded import EmbeddedServer

MakeRequest = Callable[..., TimeSeriesRequest]


@pytest.fixture
def make_request() -> MakeRequest:
    """A small valid request; keywords replace its fields."""

    def make(value: float = 1.0, **fields: Any) -> TimeSeriesRequest:
        given = {"model_name": "echo", "history": [0.0, value], "horizon": 2, "frequency": "1h", **fields}
        return TimeSeriesRequest.model_validate(given)

    return make


@pytest.fixture(scope="session")
def live_server() -> Iterator[EmbeddedServer]:
    """The embedded server over the real `statsforecast` backend, on a free port."""
    with EmbeddedServer(["statsforecast"], port=0) as server:
        yield server
