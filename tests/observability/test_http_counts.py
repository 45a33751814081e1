"""What `/metrics` tells of requests over HTTP: each once, by how it really ended."""

from __future__ import annotations

import json
import socket

import httpx
import pytest

from sheaf.embedded import EmbeddedServer
from sheaf.spec import ModelSpec
from tests.echoes import Echo
from tests.observability.conftest import GOOD, gated
from tests.observability.readings import eventually, scrape


def requests_of(server: EmbeddedServer, **labels: str) -> float:
    return scrape(server.url).of("sheaf_requests_total", **labels)


def wait_for(server: EmbeddedServer, **labels: str) -> None:
    eventually(lambda: requests_of(server, **labels) == 1)


@pytest.mark.parametrize(
    ("path", "route"),
    [("/echo/predict", "predict"), ("/echo/time_series/forecast", "operation")],
)
def test_an_answered_request_is_counted_under_its_route(
    server: EmbeddedServer, http: httpx.Client, path: str, route: str
) -> None:
    assert http.post(path, json=GOOD).status_code == 200
    wait_for(server, model="echo", route=route, status="200")
    now = scrape(server.url)
    assert now.total("sheaf_requests_total", model="echo") == 1
    assert now.of("sheaf_request_duration_seconds_count", model="echo", route=route) == 1
    assert now.of("sheaf_predictions_total", model="echo", mode="predict", outcome="ok") == 1


def test_what_is_refused_before_the_engine_is_counted_with_its_code(
    server: EmbeddedServer, http: httpx.Client
) -> None:
    assert http.post("/echo/predict", json={**GOOD, "horizon": 0}).status_code == 422
    assert http.post("/echo/predict", content=b"{", headers={"content-type": "application/json"}).is_error
    assert http.post("/nobody/predict", json=GOOD).status_code == 404
    eventually(lambda: scrape(server.url).total("sheaf_refused_total") == 3)
    now = scrape(server.url)
    assert now.of("sheaf_refused_total", model="echo", code="invalid") == 1
    assert now.of("sheaf_refused_total", model="echo", code="malformed") == 1
    assert now.of("sheaf_refused_total", model="", code="model_not_found") == 1
    assert now.of("sheaf_requests_total", model="echo", route="predict", status="422") == 1
    assert now.total("sheaf_predictions_total") == 0


def test_what_the_engine_refuses_is_counted_once(server: EmbeddedServer, http: httpx.Client) -> None:
    feature = {"feature_view": "v", "feature_name": "f", "entity_key": "id", "entity_value": "1"}
    asked = {"feature_ref": feature, "horizon": 1, "frequency": "1h"}
    assert http.post("/echo/predict", json=asked).status_code == 422
    wait_for(server, model="echo", route="predict", status="422")
    assert scrape(server.url).of("sheaf_refused_total", model="echo", code="invalid") == 1
    assert scrape(server.url).total("sheaf_refused_total") == 1


def test_a_batch_is_one_request_and_as_many_predictions_as_it_has_items(
    server: EmbeddedServer, http: httpx.Client
) -> None:
    items = [{**GOOD, "model_type": "time_series", "model_name": "echo"} for _ in range(3)]
    items.append({**items[0], "horizon": 0})
    assert http.post("/echo/batch", json={"requests": items}).status_code == 200
    wait_for(server, model="echo", route="batch", status="200")
    now = scrape(server.url)
    assert now.of("sheaf_predictions_total", model="echo", mode="predict", outcome="ok") == 3
    assert now.of("sheaf_refused_total", model="echo", code="invalid") == 1
    assert now.total("sheaf_requests_total", model="echo") == 1


def test_a_stream_is_counted_when_it_is_over(server: EmbeddedServer, http: httpx.Client) -> None:
    with http.stream("POST", "/steps/stream", json={**GOOD, "horizon": 100}) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert requests_of(server, model="steps", route="stream", status="200") == 0
        for _ in lines:
            pass
    wait_for(server, model="steps", route="stream", status="200")
    now = scrape(server.url)
    assert now.of("sheaf_predictions_total", model="steps", mode="stream", outcome="ok") == 1
    assert now.of("sheaf_request_duration_seconds_sum", model="steps", route="stream") >= 0.05


def test_a_stream_that_fails_on_its_way_is_not_counted_as_a_success(
    server: EmbeddedServer, http: httpx.Client
) -> None:
    with http.stream("POST", "/breaking/stream", json=GOOD) as answer:
        assert answer.status_code == 200
        assert "event: error" in answer.read().decode()
    wait_for(server, model="breaking", route="stream", status="500")
    now = scrape(server.url)
    assert now.total("sheaf_requests_total", model="breaking") == 1
    assert now.of("sheaf_failures_total", model="breaking") == 1


def test_a_client_that_leaves_while_it_waits_is_counted_as_499(server: EmbeddedServer) -> None:
    body = json.dumps(GOOD).encode()
    head = (
        f"POST /gated/predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(head.encode() + body)
        assert gated(server).entered.wait(10)
    wait_for(server, model="gated", route="predict", status="499")
    now = scrape(server.url)
    assert now.total("sheaf_requests_total", model="gated") == 1
    assert now.of("sheaf_predictions_total", model="gated", mode="predict", outcome="cancelled") == 1
    assert now.total("sheaf_refused_total") == 0


def test_a_client_that_leaves_a_stream_is_counted_as_499(server: EmbeddedServer) -> None:
    with (
        httpx.Client(base_url=server.url) as client,
        client.stream("POST", "/steps/stream", json={**GOOD, "horizon": 5000}) as answer,
    ):
        next(answer.iter_lines())
    wait_for(server, model="steps", route="stream", status="499")
    now = scrape(server.url)
    assert now.total("sheaf_requests_total", model="steps") == 1
    assert now.of("sheaf_predictions_total", model="steps", mode="stream", outcome="cancelled") == 1


def test_a_model_that_fails_is_counted_as_500_without_a_refusal(
    server: EmbeddedServer, http: httpx.Client
) -> None:
    assert http.post("/fragile/predict", json={**GOOD, "history": [666.0]}).status_code == 500
    wait_for(server, model="fragile", route="predict", status="500")
    now = scrape(server.url)
    assert now.of("sheaf_failures_total", model="fragile") == 1
    assert now.total("sheaf_refused_total") == 0


def test_no_word_of_a_stranger_becomes_a_label(server: EmbeddedServer, http: httpx.Client) -> None:
    http.post("/zzz-stranger/predict", json=GOOD)
    http.get("/zzz-stranger/else/where")
    http.request("ZZZSTRANGER", "/echo/predict")
    http.post("/echo/predict", json={**GOOD, "model_name": "zzz-stranger"})
    http.post("/echo/zzz-stranger/zzz-stranger", json=GOOD, headers={"x-request-id": "zzz-stranger"})
    eventually(lambda: scrape(server.url).total("sheaf_requests_total") >= 5)
    text = http.get("/metrics").text
    assert "zzz" not in text.lower()


def test_two_servers_of_one_process_count_apart(server: EmbeddedServer, http: httpx.Client) -> None:
    http.post("/echo/predict", json=GOOD)
    wait_for(server, model="echo", route="predict", status="200")
    with EmbeddedServer(ModelSpec(name="echo", backend_cls=Echo), port=0) as other:
        assert scrape(other.url).total("sheaf_requests_total", model="echo") == 0
        assert scrape(other.url).labels("model") == {"echo", ""}
