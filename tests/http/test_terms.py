"""On what terms a request is answered: its urgency, and whose share of the model's time it takes."""

from __future__ import annotations

import threading
from typing import Any

import httpx
import pytest

from sheaf.http.keys import Access, ApiKey, hash_of
from sheaf.spec import ModelSpec
from tests.echoes import Gated
from tests.http.conftest import GOOD, Serve
from tests.http.test_http import wait_for

ONE_BY_ONE = {"max_batch_size": 1, "tenant_weights": {}}


def gated_spec() -> ModelSpec:
    return ModelSpec.model_validate({"name": "gated", "backend_cls": Gated, "batch_policy": ONE_BY_ONE})


def order(url: str, runtime: Any, headers: list[dict[str, str]]) -> list[float]:
    """The order in which requests with these headers are run that wait together, by their number."""
    gated = runtime.backend
    gated.gate.clear()
    gated.entered.clear()
    gated.batches.clear()

    def ask(number: int, given: dict[str, str]) -> None:
        body = {**GOOD, "history": [float(number)]}
        assert httpx.post(f"{url}/gated/predict", json=body, headers=given, timeout=30).status_code == 200

    threads = [threading.Thread(target=ask, args=item) for item in enumerate([headers[0], *headers])]
    threads[0].start()
    assert gated.entered.wait(10)
    for waiting, thread in enumerate(threads[1:], 1):
        thread.start()
        wait_for(lambda many=waiting: runtime.depth == many)
    gated.gate.set()
    for thread in threads:
        thread.join(10)
    return [batch[0].history[0] for batch in gated.batches][1:]


def urgency(value: int, key: str = "") -> dict[str, str]:
    return {"x-sheaf-priority": str(value), **({"x-api-key": key} if key else {})}


def test_urgency_is_kept_up_to_what_is_allowed(serve: Serve) -> None:
    server = serve(gated_spec(), access=Access(max_priority=3))
    runtime = server._models.get("gated")
    assert order(server.url, runtime, [urgency(-5), {}, urgency(3), urgency(-10)]) == [3, 2, 1, 4]
    # Ten is lowered to three, so whoever came first goes first.
    assert order(server.url, runtime, [urgency(3), urgency(10)]) == [1, 2]


def test_without_leave_nobody_goes_before_others(serve: Serve) -> None:
    server = serve(gated_spec())
    runtime = server._models.get("gated")
    assert order(server.url, runtime, [{}, urgency(10), urgency(-1), urgency(0)]) == [1, 2, 4, 3]


def test_a_key_caps_urgency_for_its_bearer_alone(serve: Serve) -> None:
    keys = (
        ApiKey(name="ann", sha256=hash_of("a")),
        ApiKey(name="bob", sha256=hash_of("b"), max_priority=10),
    )
    server = serve(gated_spec(), access=Access(keys=keys, max_priority=10))
    runtime = server._models.get("gated")
    assert order(server.url, runtime, [urgency(0, "b"), urgency(10, "b")]) == [2, 1]
    assert order(server.url, runtime, [urgency(0, "a"), urgency(10, "a")]) == [1, 2]


def test_a_flood_of_one_key_does_not_hold_up_another(serve: Serve) -> None:
    keys = (ApiKey(name="ann", sha256=hash_of("a")), ApiKey(name="bob", sha256=hash_of("b")))
    server = serve(gated_spec(), access=Access(keys=keys))
    ran = order(server.url, server._models.get("gated"), [{"x-api-key": "a"}] * 8 + [{"x-api-key": "b"}])
    assert ran.index(9) < 4


@pytest.mark.parametrize("value", ["11", "-11", "1.5", "high", "+1", "٣", "1e1", "--1", "9" * 400])
def test_a_senseless_urgency_is_refused(serve: Serve, value: str) -> None:
    server = serve()
    headers = {b"x-sheaf-priority": value.encode()}
    answer = httpx.post(f"{server.url}/echo/predict", json=GOOD, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["code"] == "out_of_range"
