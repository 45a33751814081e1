"""The HTTP surface under good and hostile requests: each gets its answer, and the next is served."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest
import zstandard

from sheaf.embedded import EmbeddedServer
from sheaf.http.app import Limits
from sheaf.openapi import generate
from sheaf.spec import ModelSpec
from sheaf_client.contracts.problem import Problem
from tests.echoes import Echo, Fragile, Gated, NotANumber, Stepping

GOOD: dict[str, Any] = {"history": [1.0, 2.0], "horizon": 2, "frequency": "1h"}
JSON = {"content-type": "application/json"}
MIB = 2**20


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    specs = [
        ModelSpec(name="echo", backend_cls=Echo),
        ModelSpec(name="fragile", backend_cls=Fragile),
        ModelSpec(name="nan", backend_cls=NotANumber),
        ModelSpec(name="steps", backend_cls=Stepping),
        ModelSpec(name="gated", backend_cls=Gated, batch_policy={"max_queue": 1}),  # type: ignore[arg-type]
    ]
    with EmbeddedServer(specs, port=0, limits=Limits(max_body=MIB)) as running:
        yield running
        gated(running).gate.set()


def gated(server: EmbeddedServer) -> Gated:
    backend = server._models.get("gated").backend
    assert isinstance(backend, Gated)
    return backend


@pytest.fixture
def http(server: EmbeddedServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client
        answer = client.post("/echo/predict", json=GOOD)
        assert answer.status_code == 200, "the next request was not served"


def problem(response: httpx.Response) -> Problem:
    assert response.headers["content-type"] == "application/problem+json"
    document = Problem.model_validate_json(response.content, strict=True)
    assert document.status == response.status_code
    assert document.type == f"/problems/{document.code}"
    assert document.request_id == response.headers["x-request-id"]
    assert "Traceback" not in response.text
    assert len(response.content) < 20_000
    return document


def faults(response: httpx.Response) -> list[tuple[str, str]]:
    return [(fault.code, fault.path) for fault in problem(response).errors]


@pytest.mark.parametrize("path", ["/echo/predict", "/echo/time_series/forecast"])
def test_both_routes_give_the_typed_answer(http: httpx.Client, path: str) -> None:
    answer = http.post(path, json=GOOD)
    assert answer.status_code == 200
    body = answer.json()
    assert (body["mean"], body["horizon"], body["model_name"]) == ([2, 2], 2, "echo")
    assert body["metadata"]["usage"]["batch_size"] == 1
    assert answer.headers["x-request-id"] == body["request_id"]


@pytest.mark.parametrize("label", ["other", "org/model v2", ""])
def test_what_a_body_calls_the_model_is_a_label(http: httpx.Client, label: str) -> None:
    """The URL says which model answers: the published wire format compares the body's name with nothing."""
    body = {**GOOD, "model_name": label}
    one = http.post("/echo/predict", json=body)
    many = http.post("/echo/batch", json={"requests": [body, GOOD]})
    stream = http.post("/echo/stream", json=body)
    last = json.loads(stream.text.rpartition("data: ")[2])
    assert (one.status_code, many.status_code, stream.status_code, last["type"]) == (200, 200, 200, "result")
    for answer in (one.json(), *many.json()["responses"], last):
        assert (answer["mean"], answer["model_name"]) == ([2, 2], "echo")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"history": [1, None]}, [("missing", "/horizon"), ("missing", "/frequency")]),
        ({**GOOD, "history": []}, [("too_short", "/history")]),
        ({**GOOD, "history": None}, [("exactly_one_of", "")]),
        ({**GOOD, "history": [[1, 2], [3]]}, [("rectangular", "/history/1")]),
        ({**GOOD, "history": [[1, 2], [3, "x"]]}, [("wrong_type", "/history/1/1")]),
        ({**GOOD, "history": ["1", 2]}, [("wrong_type", "/history/0")]),
        ({**GOOD, "horizon": 0}, [("out_of_range", "/horizon")]),
        ({**GOOD, "horizon": 10**9}, [("out_of_range", "/horizon")]),
        ({**GOOD, "horizon": "12"}, [("wrong_type", "/horizon")]),
        ({**GOOD, "horizn": 1}, [("unknown_field", "/horizn")]),
        ({**GOOD, "frequency": "2h"}, [("not_allowed", "/frequency")]),
        ({**GOOD, "quantile_levels": [0.5, 1.5]}, [("out_of_range", "/quantile_levels/1")]),
        ({**GOOD, "num_samples": -1}, [("out_of_range", "/num_samples")]),
        ({**GOOD, "model_name": 3}, [("wrong_type", "/model_name")]),
        ({**GOOD, "model_name": "other", "horizon": 0}, [("out_of_range", "/horizon")]),
        ({**GOOD, "model_type": "tabular"}, [("not_allowed", "/model_type")]),
        ([], [("wrong_type", "")]),
        ("text", [("wrong_type", "")]),
    ],
    ids=str,
)
def test_bad_input_is_told_with_code_and_path(
    http: httpx.Client, body: Any, expected: list[tuple[str, str]]
) -> None:
    answer = http.post("/echo/predict", json=body)
    assert answer.status_code == 422
    assert faults(answer) == expected


@pytest.mark.parametrize("route", ["/echo/predict", "/echo/time_series/forecast", "/echo/stream"])
def test_a_body_of_another_model_type_has_one_fault(http: httpx.Client, route: str) -> None:
    body = {"model_type": "tabular", "context_X": [[1]], "context_y": [1], "query_X": [[1]], "task": "x"}
    problem = http.post(route, json=body)
    assert problem.status_code == 422
    assert [(f["path"], f["code"], f["message"]) for f in problem.json()["errors"]] == [
        ("/model_type", "not_allowed", "This model serves time_series.")
    ]


def test_a_not_a_number_on_the_wire_is_told(http: httpx.Client) -> None:
    for text in ("NaN", "Infinity", "1e999"):
        answer = http.post("/echo/predict", content=json.dumps(GOOD).replace("1.0", text), headers=JSON)
        assert answer.status_code == 422
        assert faults(answer) == [("not_finite", "/history/0")]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"history": [1,}', b"\xff\xfe", b"[" * 50_000, b'{"a": "\\ud800"}', b"nul"],
    ids=lambda c: repr(c[:12]),
)
def test_malformed_json_is_400(http: httpx.Client, content: bytes) -> None:
    answer = http.post("/echo/predict", content=content, headers=JSON)
    assert answer.status_code == 400
    assert problem(answer).code == "malformed"


@pytest.mark.parametrize(
    "headers",
    [{"content-type": "text/plain"}, {"content-type": ""}, {**JSON, "content-encoding": "br"}],
    ids=str,
)
def test_another_content_type_or_encoding_is_415(http: httpx.Client, headers: dict[str, str]) -> None:
    answer = http.post("/echo/predict", content=json.dumps(GOOD).encode(), headers=headers)
    assert answer.status_code == 415
    assert problem(answer).code == "unsupported_media_type"


def test_a_body_over_the_limit_is_413_declared_or_not(http: httpx.Client) -> None:
    declared = http.post("/echo/predict", content=b" " * (MIB + 1), headers=JSON)
    assert declared.status_code == 413
    chunked = http.post("/echo/predict", content=(b" " * 65536 for _ in range(17)), headers=JSON)
    assert chunked.status_code == 413
    assert problem(declared).code == problem(chunked).code == "too_large"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/nobody/predict", 404, "model_not_found"),
        ("GET", "/nobody/health", 404, "model_not_found"),
        ("POST", "/..%2F..%2Fetc/predict", 404, "not_found"),
        ("POST", "/echo/tabular/predict", 404, "not_found"),
        ("POST", "/echo/time_series/backcast", 404, "not_found"),
        ("GET", "/echo", 404, "not_found"),
        ("GET", "/echo/predict", 405, "method_not_allowed"),
        ("DELETE", "/models", 405, "method_not_allowed"),
    ],
)
def test_wrong_addresses(http: httpx.Client, method: str, path: str, status: int, code: str) -> None:
    answer = http.request(method, path, content=b"{}" if method == "POST" else None, headers=JSON)
    assert answer.status_code == status
    assert problem(answer).code == code


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "soon", "1e9"])
def test_a_senseless_deadline_is_refused(http: httpx.Client, seconds: str) -> None:
    answer = http.post("/echo/predict", json=GOOD, headers={"x-sheaf-timeout": seconds})
    assert answer.status_code == 422


def test_what_the_model_raises_stays_inside(http: httpx.Client) -> None:
    answer = http.post("/fragile/predict", json={**GOOD, "history": [666.0]})
    assert answer.status_code == 500
    assert problem(answer).code == "backend_failed"
    assert "secret" not in answer.text
    assert problem(http.post("/nan/predict", json=GOOD)).code == "backend_failed"


def test_a_batch_answers_or_refuses_each(http: httpx.Client) -> None:
    items = [
        GOOD,
        {**GOOD, "horizon": 0},
        {**GOOD, "history": [666.0]},
        {**GOOD, "history": [13.0]},
        {**GOOD, "history": [5.0]},
    ]
    answer = http.post("/fragile/batch", json={"requests": items})
    assert answer.status_code == 200
    got = [item.get("code") or item["mean"] for item in answer.json()["responses"]]
    assert got == [[2, 2], "invalid", "backend_failed", "invalid", [5, 5]]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, ("missing", "/requests")),
        ([GOOD], ("missing", "/requests")),
        ({"requests": []}, ("too_short", "/requests")),
        ({"requests": {}}, ("wrong_type", "/requests")),
        ({"requests": [GOOD], "x": 1}, ("unknown_field", "/x")),
        ({"requests": [GOOD], "a/b": 1}, ("unknown_field", "/a~1b")),
        ({"requests": [GOOD] * 1025}, ("too_long", "/requests")),
    ],
    ids=lambda v: str(v)[:40],
)
def test_a_batch_that_is_none_is_refused(http: httpx.Client, body: Any, expected: tuple[str, str]) -> None:
    assert faults(http.post("/echo/batch", json=body)) == [expected]


def test_request_ids_go_in_and_out(http: httpx.Client) -> None:
    given = http.post("/echo/predict", json=GOOD, headers={"x-request-id": "order-66"})
    assert given.headers["x-request-id"] == "order-66"
    hostile = http.post("/echo/predict", json={}, headers={"x-request-id": "a" * 500})
    assert hostile.headers["x-request-id"] != "a" * 500
    body_id = "11111111-2222-4333-8444-555555555555"
    assert http.post("/echo/predict", json={**GOOD, "request_id": body_id}).headers["x-request-id"] == body_id


def test_overload_is_refused_at_once_with_a_hint(http: httpx.Client, server: EmbeddedServer) -> None:
    gate = gated(server)
    answers: list[int] = []

    def ask() -> None:
        answers.append(httpx.post(server.url + "/gated/predict", json=GOOD, timeout=30).status_code)

    threads = []
    for running in range(2):  # one at work, one in line
        threads.append(threading.Thread(target=ask))
        threads[-1].start()
        assert gate.entered.wait(10)
        wait_for(lambda line=running: server._models.get("gated").depth == line)
    refused = http.post("/gated/predict", json=GOOD)
    assert refused.status_code == 503
    assert problem(refused).code == "overloaded"
    assert int(refused.headers["retry-after"]) >= 1
    gate.gate.set()
    for thread in threads:
        thread.join(10)
    assert answers == [200, 200]


def test_the_deadline_header_is_kept(http: httpx.Client, server: EmbeddedServer) -> None:
    gated(server).gate.clear()
    late = http.post("/gated/predict", json=GOOD, headers={"x-sheaf-timeout": "0.1"})
    gated(server).gate.set()
    assert late.status_code == 504
    assert problem(late).code == "deadline_exceeded"


def test_a_client_that_leaves_frees_its_place(http: httpx.Client, server: EmbeddedServer) -> None:
    gate, runtime = gated(server), server._models.get("gated")
    gate.gate.clear()
    gate.entered.clear()
    blocker = threading.Thread(
        target=lambda: httpx.post(server.url + "/gated/predict", json=GOOD, timeout=30)
    )
    blocker.start()
    assert gate.entered.wait(10)
    body = json.dumps(GOOD).encode()
    with socket.create_connection(("127.0.0.1", server._port)) as leaver:
        leaver.sendall(
            b"POST /gated/predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(body), body)
        )
        wait_for(lambda: runtime.depth == 1)
    wait_for(lambda: runtime.depth == 0)
    gate.gate.set()
    blocker.join(10)


def test_the_server_says_what_it_holds(http: httpx.Client) -> None:
    models = http.get("/models").json()["models"]
    assert [m["name"] for m in models] == ["echo", "fragile", "gated", "nan", "steps"]
    assert models[0] == {
        "name": "echo",
        "model_type": "time_series",
        "backend": "Echo",
        "operations": ["/echo/time_series/forecast"],
        "ready": True,
        "title": None,
        "streams": False,
        "adapters": False,
        "contexts": False,
    }
    assert models[-1]["streams"] is True
    assert http.get("/echo/health").json() == {"status": "ok"}
    assert http.get("/echo/ready").json() == {"status": "ready", "model": "echo"}


def test_metrics_count_without_a_strangers_words(http: httpx.Client) -> None:
    http.post("/echo/predict", json=GOOD)
    http.post("/zzz-stranger/predict", json=GOOD)
    text = http.get("/metrics").text
    assert 'sheaf_requests_total{model="echo",route="predict",status="200"}' in text
    assert "zzz-stranger" not in text


def test_pages_of_other_origins_may_call_only_where_they_are_let() -> None:
    asked = {"origin": "https://app.example.org"}
    preflight = {
        **asked,
        "access-control-request-method": "POST",
        "access-control-request-headers": "x-sheaf-timeout",
    }
    spec = ModelSpec(name="echo", backend_cls=Echo)
    with EmbeddedServer(spec, port=0, limits=Limits(origins=("https://app.example.org",))) as let:
        assert httpx.options(f"{let.url}/echo/predict", headers=preflight).status_code == 200
        answer = httpx.post(f"{let.url}/echo/predict", json={**GOOD, "horizon": 0}, headers=asked)
        assert answer.status_code == 422
        assert answer.headers["access-control-allow-origin"] == "https://app.example.org"
        other = httpx.post(f"{let.url}/echo/predict", json=GOOD, headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers
    with EmbeddedServer(spec, port=0) as closed:
        answer = httpx.post(f"{closed.url}/echo/predict", json=GOOD, headers=asked)
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_compressed_bodies_are_read_within_a_ratio(http: httpx.Client, encoding: str) -> None:
    squeeze = {"gzip": gzip.compress, "zstd": zstandard.compress}[encoding]
    headers = {**JSON, "content-encoding": encoding}
    body = squeeze(json.dumps(GOOD).encode())
    assert http.post("/echo/predict", content=body, headers=headers).json()["mean"] == [2, 2]
    bomb = http.post("/echo/predict", content=squeeze(b" " * 50 * MIB), headers=headers)
    assert (bomb.status_code, problem(bomb).code) == (413, "too_large")
    broken = http.post("/echo/predict", content=b"\x00" + body[1:], headers=headers)
    assert (broken.status_code, problem(broken).code) == (400, "malformed")


def test_bodies_go_as_messagepack_both_ways(http: httpx.Client) -> None:
    packed = {"content-type": "application/msgpack", "accept": "application/msgpack, application/json;q=0.9"}
    answer = http.post("/echo/predict", content=msgspec.msgpack.encode(GOOD), headers=packed)
    assert answer.headers["content-type"] == "application/msgpack"
    assert msgspec.msgpack.decode(answer.content)["mean"] == [2, 2]
    refused = http.post(
        "/echo/predict", content=msgspec.msgpack.encode({**GOOD, "horizon": "2"}), headers=packed
    )
    assert faults(refused) == [("wrong_type", "/horizon")]
    broken = http.post("/echo/predict", content=b"\xc1", headers=packed)
    assert (broken.status_code, problem(broken).code) == (400, "malformed")
    many = msgspec.msgpack.encode({"requests": [GOOD, {**GOOD, "horizon": 0}]})
    got = msgspec.msgpack.decode(http.post("/echo/batch", content=many, headers=packed).content)["responses"]
    assert (got[0]["mean"], got[1]["code"]) == ([2, 2], "invalid")


def test_the_document_served_is_that_of_the_deployments(http: httpx.Client, server: EmbeddedServer) -> None:
    deployed = sorted(server.specs, key=lambda spec: spec.name)
    document = http.get("/openapi.json").json()
    assert document == generate(deployed)
    assert http.get("/openapi-3.2.json").json() == generate(deployed, version="3.2")
    # What it names is there: each path answers, and refuses an empty body as its contract does.
    for path, item in document["paths"].items():
        answer = http.get(path) if "get" in item else http.post(path, json={})
        assert answer.status_code == (200 if "get" in item else 422), path


def wait_for(condition: Any, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition never held"
        time.sleep(0.005)
