"""A server over steerable models, and what a test may ask of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from sheaf.cache import CacheConfig
from sheaf.embedded import EmbeddedServer
from sheaf.spec import ModelSpec
from tests.echoes import Echo, Fragile, Gated, Stepping

GOOD: dict[str, Any] = {"history": [1.0, 2.0], "horizon": 2, "frequency": "1h"}


class Breaking(Stepping):
    """Its streams fail after their first step."""

    def stream(self, request: Any) -> Iterator[Any]:
        yield next(iter(super().stream(request)))
        raise RuntimeError("secret: /etc/model/weights.bin")


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    """A server of its own for each test, so that its counts begin at zero."""
    specs = [
        ModelSpec(name="echo", backend_cls=Echo),
        ModelSpec(name="kept", backend_cls=Echo, cache=CacheConfig()),
        ModelSpec(name="fragile", backend_cls=Fragile),
        ModelSpec(name="steps", backend_cls=Stepping, backend_kwargs={"seconds": 0.01}),
        ModelSpec(name="breaking", backend_cls=Breaking),
        ModelSpec(name="gated", backend_cls=Gated),
    ]
    with EmbeddedServer(specs, port=0) as running:
        yield running
        gated(running).gate.set()


@pytest.fixture
def http(server: EmbeddedServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def gated(server: EmbeddedServer) -> Gated:
    backend = server._models.get("gated").backend
    assert isinstance(backend, Gated)
    return backend
