"""A key for some models is told the counts of those alone, and who asks for metrics holds nobody up."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from sheaf.http.keys import Access, ApiKey, hash_of
from sheaf.spec import ModelSpec
from tests.echoes import Echo
from tests.http.conftest import GOOD, Serve

KEYS = (
    ApiKey(name="all", sha256=hash_of("all")),
    ApiKey(name="some", sha256=hash_of("some"), models=("mine",)),
    ApiKey(name="none", sha256=hash_of("none"), models=()),
)
MODELS = [ModelSpec(name=name, backend_cls=Echo) for name in ("mine", "secret")]


@pytest.mark.parametrize("open_metrics", [False, True])
def test_metrics_tell_a_key_of_the_models_that_it_may_call(serve: Serve, *, open_metrics: bool) -> None:
    server = serve(MODELS, access=Access(keys=KEYS, open_metrics=open_metrics))
    for name in ("mine", "secret"):
        answer = httpx.post(f"{server.url}/{name}/predict", json=GOOD, headers={"x-api-key": "all"})
        assert answer.status_code == 200

    def told(key: str) -> tuple[set[str], set[str]]:
        """The models that metrics are told of, and the metrics that have a value."""
        answer = httpx.get(f"{server.url}/metrics", headers={"x-api-key": key})
        families = list(text_string_to_metric_families(answer.text))
        samples = [sample for family in families for sample in family.samples]
        return {s.labels.get("model", "") for s in samples} - {""}, {s.name for s in samples}

    everything = told("all")
    assert everything[0] == {"mine", "secret"}
    if open_metrics:
        assert told("some") == told("none") == everything
        return
    assert told("some")[0] == {"mine"}
    assert told("some")[1] == everything[1]
    assert told("none") == (set(), set())


class Told(Collector):
    """Notes the threads on which metrics are made."""

    def __init__(self) -> None:
        self.threads: list[str] = []

    def collect(self) -> Iterator[Metric]:
        self.threads.append(threading.current_thread().name)
        yield from ()


def test_metrics_are_made_on_no_event_loop(serve: Serve) -> None:
    server = serve()
    told = Told()
    server._models.telemetry.registry.register(told)
    told.threads.clear()
    assert httpx.get(f"{server.url}/metrics").status_code == 200
    assert told.threads
    assert "sheaf-http" not in told.threads
