"""Who sends much holds nobody up: what a backend checks in a large request is not done on the event loop."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from sheaf.api.time_series import TimeSeriesRequest
from sheaf.spec import ModelSpec
from sheaf_client.contracts.problem import Fault
from sheaf_client.errors import InvalidRequestError
from tests.echoes import Stepping
from tests.http.conftest import GOOD, Serve

CHECKING, SEEN = threading.Event(), threading.Event()
LARGE: dict[str, Any] = {**GOOD, "history": [0.125] * 60_000}


class Thorough(Stepping):
    """Checks a long history until somebody else was answered meanwhile, and refuses one that ends in 13."""

    def check(self, request: TimeSeriesRequest) -> None:
        if len(request.history or ()) < 1000:
            return
        CHECKING.set()
        assert SEEN.wait(20), "nobody else was served"
        if request.history and request.history[-1] == 13:
            fault = Fault(code="unsupported", path="/history", message="Thirteen is refused.")
            raise InvalidRequestError("Refused.", errors=[fault])


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    CHECKING.clear()
    SEEN.clear()
    yield
    SEEN.set()


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("route", ["predict", "batch", "stream"])
@pytest.mark.parametrize("refused", [False, True])
def test_others_are_served_while_a_large_request_is_checked(
    serve: Serve, route: str, *, cached: bool, refused: bool
) -> None:
    server = serve(
        ModelSpec.model_validate({"name": "echo", "backend_cls": Thorough, "cache": {} if cached else None})
    )
    body = {**LARGE, "history": [*LARGE["history"], 13.0 if refused else 7.0]}
    sent = {"requests": [body, GOOD]} if route == "batch" else body
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(httpx.post, f"{server.url}/echo/{route}", json=sent, timeout=30)
        assert CHECKING.wait(20)
        assert httpx.get(f"{server.url}/echo/health", timeout=10).status_code == 200
        assert httpx.post(f"{server.url}/echo/predict", json=GOOD, timeout=10).json()["mean"] == [2, 2]
        SEEN.set()
        answer = asking.result()
    if route == "batch":
        first, other = answer.json()["responses"]
        assert other["mean"] == [2, 2]
        assert (first.get("status"), first.get("mean")) == ((422, None) if refused else (None, [7, 7]))
    elif refused:
        assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "/history")
    else:
        assert answer.status_code == 200
        assert "7.0,7.0" in answer.text.replace(" ", "")


def test_who_leaves_while_a_request_is_checked_has_no_place_in_line(serve: Serve) -> None:
    server = serve(ModelSpec(name="echo", backend_cls=Thorough))
    with pytest.raises(httpx.TimeoutException):
        httpx.post(f"{server.url}/echo/batch", json={"requests": [LARGE, GOOD]}, timeout=1)
    assert CHECKING.wait(20)
    SEEN.set()
    assert httpx.post(f"{server.url}/echo/predict", json=LARGE, timeout=10).status_code == 200
    text = httpx.get(f"{server.url}/metrics").text
    assert 'sheaf_queue_depth{model="echo"} 0.0' in text
