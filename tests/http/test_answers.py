"""What every answer carries and what none does: headers that browsers keep to, and nothing of the inside."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from sheaf.http.keys import Access, ApiKey, hash_of
from sheaf.http.limits import Limits
from sheaf.spec import ModelSpec
from tests.echoes import Fragile
from tests.http.conftest import ECHO, GOOD, Serve

PATHS = [
    ("POST", "/echo/predict"),
    ("POST", "/echo/stream"),
    ("POST", "/echo/batch"),
    ("GET", "/models"),
    ("GET", "/metrics"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/echo/health"),
    ("GET", "/nothing"),
    ("GET", "/models/"),
    ("PATCH", "/models"),
    ("GET", "/admin/models"),
    ("POST", "/admin/models/predict"),
    ("POST", "//echo/predict"),
    ("POST", "/echo/predict/"),
    ("HEAD", "/models"),
    ("OPTIONS", "/echo/predict"),
]


@pytest.mark.parametrize("closed", [False, True])
def test_every_answer_has_the_headers_that_browsers_keep_to(serve: Serve, *, closed: bool) -> None:
    server = serve(access=Access(keys=(ApiKey(name="a", sha256=hash_of("a")),) if closed else ()))
    for method, path in PATHS:
        answer = httpx.request(method, server.url + path, json=GOOD if method == "POST" else None)
        assert answer.headers["x-content-type-options"] == "nosniff", path
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == (
            "no-cache" if path in ("/docs", "/openapi.json") and not closed else "no-store"
        )
        assert "server" not in answer.headers
        assert answer.headers["x-request-id"]
        for name in ("cache-control", "content-security-policy", "x-request-id"):
            assert len(answer.headers.get_list(name)) == 1
        if answer.status_code >= 400 and method != "HEAD":
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_a_slash_at_the_end_sends_nobody_elsewhere(serve: Serve) -> None:
    server = serve(limits=Limits(allowed_hosts=("evil.example",)))
    answer = httpx.get(f"{server.url}/models/", headers={"host": "evil.example"})
    assert answer.status_code == 404
    assert "evil" not in answer.text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/fragile/predict", {**GOOD, "history": [666.0]}),
        ("/fragile/stream", {**GOOD, "history": [666.0]}),
        ("/fragile/batch", {"requests": [{**GOOD, "history": [666.0]}]}),
        ("/echo/predict", {**GOOD, "horizon": "hunter2" * 5000}),
        ("/echo/predict", {**GOOD, "hunter2" * 5000: 1}),
        ("/echo/predict", {**GOOD, "history": ["hunter2"] * 5000}),
        ("/hunter2/predict", GOOD),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_nothing_of_the_inside_or_of_the_input_comes_back(serve: Serve, path: str, body: Any) -> None:
    server = serve([ECHO, ModelSpec(name="fragile", backend_cls=Fragile)])
    answer = httpx.post(server.url + path, json=body)
    for secret in ("secret", "/etc", "Traceback", "RuntimeError", ".py", "hunter2" * 200):
        assert secret not in answer.text
    assert len(answer.content) < 10_000


def test_problems_keep_the_caller_s_identifier(serve: Serve) -> None:
    server = serve(access=Access(keys=(ApiKey(name="a", sha256=hash_of("a")),)))
    for path, headers in (("/echo/predict", {}), ("/nobody/predict", {"x-api-key": "a"})):
        answer = httpx.post(server.url + path, json=GOOD, headers={**headers, "x-request-id": "order-66"})
        assert answer.json()["request_id"] == answer.headers["x-request-id"] == "order-66"


def test_an_answer_s_identifier_is_that_of_its_head(serve: Serve) -> None:
    server = serve()
    ours, body_s = "5f3a0c9e-1d57-4c2b-9d3e-7f1b8a2c4e60", "0e4d9a6b-58f1-4d0e-8a3c-2b1f6c7d8e90"
    for given, body, head, told in (
        (ours, GOOD, ours, ours),
        (None, {**GOOD, "request_id": body_s}, body_s, body_s),
        (ours, {**GOOD, "request_id": body_s}, ours, body_s),
    ):
        headers = {} if given is None else {"x-request-id": given}
        answer = httpx.post(f"{server.url}/echo/predict", json=body, headers=headers)
        assert (answer.headers["x-request-id"], answer.json()["request_id"]) == (head, told)
    named = httpx.post(f"{server.url}/echo/predict", json=GOOD, headers={"x-request-id": "order-7"})
    assert named.status_code == 200
    assert named.headers["x-request-id"] == "order-7"


def test_a_page_s_preflight_needs_no_key(serve: Serve) -> None:
    access = Access(keys=(ApiKey(name="a", sha256=hash_of("a")),))
    server = serve(limits=Limits(origins=("https://app.example.org",)), access=access)
    asked = {"origin": "https://app.example.org", "access-control-request-method": "POST"}
    wanted = {**asked, "access-control-request-headers": "authorization,x-sheaf-priority"}
    assert httpx.options(f"{server.url}/echo/predict", headers=wanted).status_code == 200
    refused = httpx.post(f"{server.url}/echo/predict", json=GOOD, headers=asked)
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://app.example.org"
