"""Streams over HTTP: events in order, a status where there is no stream, and an end that is told."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from sheaf.embedded import EmbeddedServer
from sheaf.spec import ModelSpec
from tests.echoes import Fragile, Stepping
from tests.http.conftest import GOOD


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    specs = [
        ModelSpec(name="fragile", backend_cls=Fragile),
        ModelSpec(name="steps", backend_cls=Stepping, backend_kwargs={"seconds": 0.01}),
    ]
    with EmbeddedServer(specs, port=0) as running:
        yield running


@pytest.fixture
def http(server: EmbeddedServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client
        assert client.post("/steps/predict", json=GOOD).status_code == 200, "the next request was not served"


def test_a_stream_gives_events_in_order(http: httpx.Client) -> None:
    with http.stream("POST", "/steps/stream", json={**GOOD, "horizon": 3}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        text = answer.read().decode()
    blocks = [
        dict(line.split(": ", 1) for line in block.splitlines())
        for block in text.replace("\r\n", "\n").strip().split("\n\n")
    ]
    assert [b["event"] for b in blocks] == ["progress"] * 3 + ["result"]
    assert [b["id"] for b in blocks] == ["0", "1", "2", "3"]
    last = json.loads(blocks[-1]["data"])
    assert (last["type"], last["done"], last["mean"]) == ("result", True, [2, 2, 2])


def test_an_event_is_one_line_however_lines_are_told_apart(http: httpx.Client) -> None:
    item = "a\nb\rc\x85d\u2028e\u2029f\x0b\x1c ä→𝄞"
    with http.stream("POST", "/steps/stream", json={**GOOD, "item_id": item}) as answer:
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
    assert json.loads(lines[-1])["item_id"] == item


def test_a_stream_that_is_refused_has_a_status(http: httpx.Client) -> None:
    assert http.post("/steps/stream", json={**GOOD, "horizon": 0}).status_code == 422
    assert http.post("/nobody/stream", json=GOOD).status_code == 404


def test_a_stream_that_fails_says_so_as_its_last_event(http: httpx.Client) -> None:
    text = http.post("/fragile/stream", json={**GOOD, "history": [666.0]}).text
    last = [
        line.removeprefix("data: ")
        for line in text.replace("\r\n", "\n").splitlines()
        if line.startswith("data: ")
    ][-1]
    event = json.loads(last)
    assert (event["type"], event["done"], event["problem"]["code"]) == ("error", True, "backend_failed")
    # Clients of the 0.x API read a text at `error`.
    assert event["error"] == event["problem"]["detail"] == "The model failed on this request."
    assert "secret" not in text


def test_leaving_a_stream_ends_its_work(http: httpx.Client, server: EmbeddedServer) -> None:
    backend = server._models.get("steps").backend
    assert isinstance(backend, Stepping)
    backend.closed.clear()
    with http.stream("POST", "/steps/stream", json={**GOOD, "horizon": 5000}) as answer:
        next(answer.iter_lines())
    assert backend.closed.wait(10)
