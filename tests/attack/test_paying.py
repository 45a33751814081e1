"""Who uses a model's time pays for it: whether they wait for the answer, leave, or only share a call."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from sheaf.api.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf.cache import CacheConfig
from sheaf.embedded import EmbeddedServer
from sheaf.http.keys import Access, ApiKey, hash_of
from sheaf.spec import ModelSpec
from tests.echoes import Echo, Stepping
from tests.http.conftest import GOOD, Serve, connect, whole

#: Seconds of the model a day, less than one call takes.
QUOTA = 0.1
BEGAN, GATE = threading.Event(), threading.Event()


class Slow(Echo):
    """Takes 0.2 s for a call, whoever is in it; a request costs what its horizon is."""

    def batch_predict(self, requests: Sequence[TimeSeriesRequest]) -> list[TimeSeriesResponse | Exception]:
        BEGAN.set()
        time.sleep(0.2)
        return super().batch_predict(requests)

    def cost(self, request: TimeSeriesRequest) -> float:
        return float(request.horizon)


SLOW = ModelSpec(name="echo", backend_cls=Slow)
STEPS = ModelSpec(name="echo", backend_cls=Stepping, backend_kwargs={"seconds": 0.2})


@pytest.fixture(autouse=True)
def _not_begun() -> None:
    BEGAN.clear()


def access(*names: str) -> Access:
    keys = [ApiKey(name=name, sha256=hash_of(name), device_seconds_per_day=QUOTA) for name in names]
    return Access(keys=tuple(keys))


def may_ask(server: EmbeddedServer, name: str) -> bool:
    answer = httpx.get(f"{server.url}/models", headers={"x-api-key": name})
    assert answer.status_code in (200, 429)
    return answer.status_code == 200


def used_up(server: EmbeddedServer, name: str) -> bool:
    """Whether a key's time is used up, once the model has come to the end of what it does."""
    end = time.monotonic() + 20
    while may_ask(server, name):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_who_gives_up_waiting_pays(serve: Serve) -> None:
    server = serve(SLOW, access=access("ann"))
    assert may_ask(server, "ann")
    headers = {"x-api-key": "ann", "x-sheaf-timeout": "0.19"}
    answer = httpx.post(f"{server.url}/echo/predict", json=GOOD, headers=headers)
    assert answer.status_code == 504
    assert used_up(server, "ann")


def test_who_leaves_pays(serve: Serve) -> None:
    server = serve(SLOW, access=access("ann"))
    with connect(server) as connection:
        connection.sendall(whole(**{"x-api-key": "ann"}))
        assert BEGAN.wait(20)
    assert used_up(server, "ann")


def test_who_leaves_a_stream_pays_for_the_steps_until_then(serve: Serve) -> None:
    server = serve(STEPS, access=access("ann"))
    body = {**GOOD, "horizon": 1000}
    stream = httpx.stream("POST", f"{server.url}/echo/stream", json=body, headers={"x-api-key": "ann"})
    with stream as answer:
        assert next(answer.iter_lines())
    assert used_up(server, "ann")


def test_what_fails_is_paid_too(serve: Serve) -> None:
    class Failing(Slow):
        def answer(self, request: TimeSeriesRequest) -> TimeSeriesResponse:
            raise RuntimeError("no")

    server = serve(ModelSpec(name="echo", backend_cls=Failing), access=access("ann"))
    answer = httpx.post(f"{server.url}/echo/predict", json=GOOD, headers={"x-api-key": "ann"})
    assert answer.status_code == 500
    assert not may_ask(server, "ann")


class Held(Slow):
    """Its first call waits until `GATE` is open."""

    def batch_predict(self, requests: Sequence[TimeSeriesRequest]) -> list[TimeSeriesResponse | Exception]:
        BEGAN.set()
        assert GATE.wait(60)
        return super().batch_predict(requests)


def test_a_shared_call_is_paid_by_what_each_asked_for(serve: Serve) -> None:
    server = serve(
        ModelSpec(name="echo", backend_cls=Held),
        access=access("first", "heavy", "light").model_copy(update={"open_metrics": True}),
    )
    GATE.clear()

    def ask(name: str, horizon: int) -> int:
        body, headers = {**GOOD, "horizon": horizon}, {"x-api-key": name}
        return httpx.post(f"{server.url}/echo/predict", json=body, headers=headers, timeout=60).status_code

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(ask, "first", 1)
        assert BEGAN.wait(20)
        both = [pool.submit(ask, "heavy", 1000), pool.submit(ask, "light", 1)]
        while 'sheaf_queue_depth{model="echo"} 2' not in httpx.get(f"{server.url}/metrics").text:
            time.sleep(0.02)
        GATE.set()
        assert [call.result() for call in (first, *both)] == [200, 200, 200]
    assert [may_ask(server, name) for name in ("first", "heavy", "light")] == [False, False, True]


def test_a_kept_answer_costs_nothing(serve: Serve) -> None:
    spec = SLOW.model_copy(update={"cache": CacheConfig(shared=True)})
    server = serve(spec, access=access("ann", "bob"))
    for name, left in (("ann", False), ("bob", True)):
        headers = {"x-api-key": name}
        answer = httpx.post(f"{server.url}/echo/predict", json=GOOD, headers=headers)
        assert answer.status_code == 200
        assert may_ask(server, name) == left
