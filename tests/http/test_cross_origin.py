"""Pages of other origins: every answer lets those of allowed ones read it, by whichever way it is sent."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from sheaf.cli import app as cli
from sheaf.embedded import EmbeddedServer
from sheaf.http.heads import as_origin
from sheaf.http.keys import Access, ApiKey, hash_of
from sheaf.http.limits import Limits, read_limits
from sheaf.spec import ModelSpec
from tests.echoes import Fragile, Gated, Stepping
from tests.http.conftest import ECHO, GOOD, Serve, connect, head, read_all
from tests.http.test_incoming import wait_until

PAGE, OTHER = "https://app.example.org", "https://evil.example"
ALLOWED = "access-control-allow-origin"
EXPOSED = {"x-request-id", "retry-after", "ratelimit", "ratelimit-policy"}
LIMITS = Limits(origins=(PAGE, "http://127.0.0.1:8050"), max_body=4096, max_head=4096)
MODELS = [
    ECHO,
    ModelSpec(name="steps", backend_cls=Stepping),
    ModelSpec(name="fragile", backend_cls=Fragile),
    ModelSpec(name="full", backend_cls=Gated, batch_policy={"max_queue": 1}),  # type: ignore[arg-type]
]
#: What each key may do; `poor` has nothing left after the first call.
KEYS = Access(
    keys=(
        ApiKey(name="ann", sha256=hash_of("ann"), requests_per_minute=100_000),
        ApiKey(name="poor", sha256=hash_of("poor"), requests_per_minute=1e-9, burst=1),
        ApiKey(name="few", sha256=hash_of("few"), models=("steps",)),
    )
)
BAD = {**GOOD, "horizon": 0}
#: Method, path, body and status of every route, in success and in refusal.
ANSWERS = [
    ("POST", "/echo/predict", GOOD, 200),
    ("POST", "/echo/time_series/forecast", GOOD, 200),
    ("POST", "/echo/batch", {"requests": [GOOD, BAD]}, 200),
    ("POST", "/steps/stream", GOOD, 200),
    ("GET", "/echo/health", None, 200),
    ("GET", "/echo/ready", None, 200),
    ("GET", "/models", None, 200),
    ("GET", "/metrics", None, 200),
    ("GET", "/docs", None, 200),
    ("GET", "/docs/scalar.js", None, 200),
    ("GET", "/openapi.json", None, 200),
    ("HEAD", "/models", None, 200),
    ("HEAD", "/openapi.json", None, 200),
    ("POST", "/echo/predict", BAD, 422),
    ("POST", "/echo/time_series/forecast", BAD, 422),
    ("POST", "/steps/stream", BAD, 422),
    ("POST", "/echo/batch", {}, 422),
    ("POST", "/fragile/predict", {**GOOD, "history": [666.0]}, 500),
    ("POST", "/echo/predict", {**GOOD, "history": [1.0] * 5000}, 413),
    ("POST", "/nobody/predict", GOOD, 404),
    ("POST", "/echo/audio/transcribe", GOOD, 404),
    ("GET", "/nothing/of/the/kind", None, 404),
    ("PATCH", "/models", None, 405),
    ("OPTIONS", "/echo/predict", None, 405),
    ("POST", "/full/predict", GOOD, 503),
]


@contextmanager
def filled(server: EmbeddedServer) -> Iterator[None]:
    """A call at work and one in line at the model `full`, so that it refuses further ones."""
    gated = server._models.get("full").backend
    assert isinstance(gated, Gated)
    key = {"x-api-key": "ann"}

    def ask() -> None:
        assert httpx.post(f"{server.url}/full/predict", json=GOOD, headers=key, timeout=60).is_success

    threads = [threading.Thread(target=ask) for _ in range(2)]
    threads[0].start()
    assert gated.entered.wait(20)
    threads[1].start()
    wait_until(lambda: server._models.get("full").depth == 1)
    try:
        yield
    finally:
        gated.gate.set()
        for thread in threads:
            thread.join(20)


def check(answer: httpx.Response, origin: str | None) -> None:
    """What an answer says of origins, in one header each; it has what every answer has besides."""
    names = [name for name, _ in answer.headers.multi_items()]
    repeated = {name for name in names if names.count(name) > 1}
    assert repeated == set()
    assert answer.headers.get(ALLOWED) == (PAGE if origin == PAGE else None)
    exposed = answer.headers.get("access-control-expose-headers", "")
    assert set(exposed.split(", ")) == (EXPOSED if origin == PAGE else {""})
    assert "origin" in answer.headers["vary"].lower().split(", ")
    assert answer.headers["x-request-id"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("closed", [False, True], ids=["open", "keys"])
def test_every_answer_says_which_pages_may_read_it(serve: Serve, *, closed: bool) -> None:
    server = serve(MODELS, LIMITS, KEYS if closed else Access())
    with filled(server), httpx.Client(base_url=server.url, headers={"x-api-key": "ann"}) as http:
        for method, path, body, status in ANSWERS:
            for origin in (PAGE, OTHER, None):
                headers = {} if origin is None else {"origin": origin}
                answer = http.request(method, path, json=body, headers=headers)
                assert answer.status_code == status, (method, path, answer.text)
                check(answer, origin)


@pytest.mark.parametrize("origin", [PAGE, OTHER, None])
def test_refusals_of_keys_say_so_too(serve: Serve, origin: str | None) -> None:
    server = serve(MODELS[:2], LIMITS, KEYS)
    with httpx.Client(base_url=server.url, headers={} if origin is None else {"origin": origin}) as http:
        http.post("/echo/predict", json=GOOD, headers={"x-api-key": "poor"})
        for key, status in (("", 401), ("wrong", 401), ("few", 403), ("poor", 429)):
            answer = http.post("/echo/predict", json=GOOD, headers={"x-api-key": key})
            assert answer.status_code == status
            check(answer, origin)
        assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize("origin", [PAGE, OTHER])
@pytest.mark.parametrize(
    ("sent", "status"),
    [(head(padding="x" * 5000), 431), (head(**{"content-length": "none"}), 400)],
    ids=["too large", "malformed"],
)
def test_refusals_before_the_app_say_so_too(serve: Serve, origin: str, sent: bytes, status: int) -> None:
    server = serve(limits=LIMITS)
    line, _, rest = sent.partition(b"\r\n")
    with connect(server) as connection:
        connection.sendall(line + b"\r\norigin: " + origin.encode() + b"\r\n" + rest)
        start, _, body = read_all(connection).partition(b"\r\n\r\n")
    split = [line.partition(": ") for line in start.decode().split("\r\n")[1:]]
    lines = [(name, value) for name, _, value in split]
    check(httpx.Response(status, headers=lines, content=body), origin)
    assert start.startswith(b"HTTP/1.1 %d " % status)
    assert json.loads(body)["status"] == status


def test_a_server_that_lets_no_pages_in_says_nothing_of_them(serve: Serve) -> None:
    server = serve()
    for method, path in (("POST", "/echo/predict"), ("GET", "/models"), ("OPTIONS", "/echo/predict")):
        body = GOOD if method == "POST" else None
        asked = {"origin": PAGE, "access-control-request-method": "POST"}
        answer = httpx.request(method, server.url + path, json=body, headers=asked)
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "origin" not in answer.headers.get("vary", "")


def test_any_page_may_read_where_all_may(serve: Serve) -> None:
    server = serve(limits=Limits(origins=("*",)))
    for origin in (PAGE, "null"):
        for path in ("/echo/predict", "/nobody/predict"):
            answer = httpx.post(server.url + path, json=GOOD, headers={"origin": origin})
            assert answer.headers[ALLOWED] == "*"


@pytest.mark.parametrize("closed", [False, True], ids=["open", "keys"])
def test_a_page_s_preflight_needs_no_key_and_names_what_it_may_send(serve: Serve, *, closed: bool) -> None:
    server = serve(limits=LIMITS, access=KEYS if closed else Access())
    asked = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,x-sheaf-priority",
    }
    answer = httpx.options(f"{server.url}/echo/predict", headers={**asked, "origin": PAGE})
    assert answer.status_code == 200
    check(answer, PAGE)
    assert answer.headers["access-control-allow-headers"] == "authorization,x-sheaf-priority"
    assert "POST" in answer.headers["access-control-allow-methods"]
    refused = httpx.options(f"{server.url}/echo/predict", headers={**asked, "origin": OTHER})
    assert refused.status_code == 403
    check(refused, OTHER)
    assert "--allow-origin" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("https://App.Example.org/", "https://app.example.org"),
        ("http://127.0.0.1:8050", "http://127.0.0.1:8050"),
        ("https://a.example:443", "https://a.example"),
        ("http://a.example:443", "http://a.example:443"),
        ("http://[::1]:80", "http://[::1]"),
        ("*", "*"),
    ],
)
def test_an_origin_is_compared_as_browsers_write_it(given: str, written: str) -> None:
    assert as_origin(given) == written
    assert Limits(origins=(given,)).origins == (written,)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("127.0.0.1:8050", "a scheme is needed, such as 'http://127.0.0.1:8050'"),
        ("localhost:8050", "a scheme is needed"),
        ("app.example.org", "a scheme is needed"),
        ("https://a.example/page", "scheme, host and port alone"),
        ("https://user@a.example", "scheme, host and port alone"),
        ("https://*.example.org", "none that a browser would send"),
        ("https://", "none that a browser would send"),
        ("https://a.example:99999", "Port out of range"),
        ("http://[::1", "is no origin"),
    ],
)
def test_what_no_browser_would_send_is_refused(given: str, why: str) -> None:
    with pytest.raises(ValidationError, match=why.replace("*", r"\*")):
        Limits(origins=(given,))
    done = CliRunner().invoke(cli, ["serve", "statsforecast", "--port", "0", "--allow-origin", given])
    assert done.exit_code == 1
    assert why in done.output
    assert "--allow-origin" in done.output


def test_a_wrong_origin_in_a_file_is_told_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_text("models: [statsforecast]\nlimits: {origins: ['app.example.org']}\n")
    with pytest.raises(ValueError, match=r"models.yaml: limits.origins: .*a scheme is needed"):
        read_limits(file)
