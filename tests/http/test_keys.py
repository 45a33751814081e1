"""Keys: nobody gets in without one, each gets what it is allowed, and strangers leave no trace."""

from __future__ import annotations

import itertools
import re
import socket
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from sheaf.cli import app as cli
from sheaf.embedded import EmbeddedServer
from sheaf.http.keys import Access, ApiKey, hash_of, new_key, read_access
from sheaf.http.quotas import Account, Clocks
from sheaf.spec import ModelSpec
from sheaf_client import Sheaf
from sheaf_client.errors import AuthenticationError, PermissionDeniedError, RateLimitError
from tests.echoes import Echo, Gated
from tests.http.conftest import ECHO, GOOD, Serve

SECRET, OTHER, ADMIN = new_key(), new_key(), new_key()


def key(name: str = "ann", secret: str = SECRET, **allowed: Any) -> ApiKey:
    return ApiKey(name=name, sha256=hash_of(secret), **allowed)


def bearer(secret: str = SECRET) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


CLOSED = [
    ("POST", "/echo/predict"),
    ("POST", "/echo/stream"),
    ("POST", "/echo/batch"),
    ("POST", "/echo/time_series/forecast"),
    ("POST", "/echo/health"),
    ("POST", "/nobody/predict"),
    ("GET", "/models"),
    ("GET", "/metrics"),
    ("GET", "/docs"),
    ("GET", "/docs/scalar.js"),
    ("GET", "/openapi.json"),
    ("GET", "/openapi-3.2.json"),
    ("GET", "/admin/models"),
    ("PUT", "/admin/models/echo"),
    ("GET", "/echo/predict"),
    ("GET", "/"),
    ("GET", "/echo/../models"),
    ("GET", "//health/ready/x"),
    ("DELETE", "/echo"),
]


WRONG: list[dict[str, str]] = [
    {},
    bearer("sheaf_wrong"),
    {"x-api-key": hash_of(SECRET)},
    {"authorization": SECRET},
]


def test_everything_is_closed_without_a_key_or_with_a_wrong_one(serve: Serve) -> None:
    server = serve(access=Access(keys=(key(),)))
    for (method, path), headers in itertools.product(CLOSED, WRONG):
        answer = httpx.request(method, server.url + path, headers=headers)
        assert answer.status_code == 401
        assert answer.json()["code"] == "unauthenticated"
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert "ratelimit" not in answer.headers


def test_health_and_ready_are_open(serve: Serve) -> None:
    server = serve(access=Access(keys=(key(),)))
    assert httpx.get(f"{server.url}/echo/health").status_code == 200
    assert httpx.get(f"{server.url}/echo/ready").status_code == 200


def test_what_is_opened_is_open_and_nothing_else(serve: Serve) -> None:
    server = serve(access=Access(keys=(key(),), open_docs=True, open_metrics=True, open_models=True))
    for path in ("/docs", "/docs/scalar.js", "/openapi.json", "/metrics", "/models"):
        assert httpx.get(server.url + path).status_code == 200
    home = httpx.get(server.url, headers={"accept": "text/html"})
    assert (home.status_code, home.headers["location"]) == (307, "/docs")
    assert httpx.post(f"{server.url}/echo/predict", json=GOOD).status_code == 401


def test_a_key_is_shown_the_models_that_it_may_call(serve: Serve) -> None:
    second = ModelSpec(name="second", backend_cls=Echo)
    server = serve([ECHO, second], access=Access(keys=(key(models=("echo",)), key("bob", OTHER))))
    for secret, names in ((SECRET, {"echo"}), (OTHER, {"echo", "second"})):
        for path in ("/openapi.json", "/openapi-3.2.json"):
            document = httpx.get(server.url + path, headers={"x-api-key": secret}).json()
            assert {path.split("/")[1] for path in document["paths"]} == {*names, "models"}


@pytest.mark.parametrize("headers", [bearer(), {"x-api-key": SECRET}, {"authorization": f"bearer  {SECRET}"}])
def test_a_key_opens_in_either_header(serve: Serve, headers: dict[str, str]) -> None:
    server = serve(access=Access(keys=(key("bob", OTHER), key())))
    assert httpx.post(f"{server.url}/echo/predict", json=GOOD, headers=headers).status_code == 200
    assert httpx.get(f"{server.url}/metrics", headers=headers).status_code == 200
    assert httpx.get(f"{server.url}/nothing", headers=headers).status_code == 404


def test_the_client_sends_its_key_and_raises_typed_errors(serve: Serve) -> None:
    second = ModelSpec(name="second", backend_cls=Echo)
    server = serve([ECHO, second], access=Access(keys=(key(models=("echo",)),)))

    def ask(api_key: str | None, model: str) -> Any:
        with Sheaf(server.url, api_key=api_key, max_retries=0) as client:
            return client.time_series.forecast(model=model, **GOOD)

    assert ask(SECRET, "echo").mean == [2, 2]
    with pytest.raises(AuthenticationError):
        ask(OTHER, "echo")
    with pytest.raises(AuthenticationError):
        ask(None, "echo")
    with pytest.raises(PermissionDeniedError):
        ask(SECRET, "second")
    with Sheaf(server.url, api_key=SECRET) as client:
        assert [model.name for model in client.models.list()] == ["echo"]


def test_a_key_does_not_tell_which_models_there_are(serve: Serve) -> None:
    server = serve(access=Access(keys=(key(models=("mine",)),)))
    answers = [
        httpx.post(f"{server.url}/{name}/predict", json=GOOD, headers=bearer()) for name in ("echo", "nobody")
    ]
    assert [a.status_code for a in answers] == [403, 403]
    assert answers[0].json()["detail"] == answers[1].json()["detail"]


def test_the_rate_is_kept_with_hints(serve: Serve) -> None:
    server = serve(access=Access(keys=(key(requests_per_minute=1, burst=2),)))
    with httpx.Client(base_url=server.url, headers=bearer()) as http:
        first = http.post("/echo/predict", json=GOOD)
        assert first.status_code == 200
        assert first.headers["ratelimit-policy"] == '"minute";q=1;w=60'
        assert first.headers["ratelimit"].startswith('"minute";r=1;t=')
        assert http.get("/models").status_code == 200
        refused = http.post("/echo/predict", json=GOOD)
        assert refused.status_code == 429
        assert refused.json()["code"] == "rate_limited"
        assert 30 <= int(refused.headers["retry-after"]) <= 60
        assert refused.headers["ratelimit"].startswith('"minute";r=0;t=')


def test_a_batch_counts_its_items(serve: Serve) -> None:
    server = serve(access=Access(keys=(key(requests_per_minute=1, burst=3, requests_per_day=100),)))
    with httpx.Client(base_url=server.url, headers=bearer()) as http:
        answer = http.post("/echo/batch", json={"requests": [GOOD] * 10})
        assert answer.status_code == 200
        assert '"day";r=90;' in answer.headers["ratelimit"]
        assert http.post("/echo/predict", json=GOOD).status_code == 429


def test_calls_at_once_are_bounded(serve: Serve) -> None:
    server = serve(ModelSpec(name="gated", backend_cls=Gated), access=Access(keys=(key(concurrent=1),)))
    gated = server._models.get("gated").backend
    assert isinstance(gated, Gated)
    answers: list[int] = []

    def ask() -> None:
        url = f"{server.url}/gated/predict"
        answers.append(httpx.post(url, json=GOOD, headers=bearer(), timeout=30).status_code)

    thread = threading.Thread(target=ask)
    thread.start()
    assert gated.entered.wait(10)
    second = httpx.post(f"{server.url}/gated/predict", json=GOOD, headers=bearer())
    assert (second.status_code, second.headers["retry-after"]) == (429, "1")
    gated.gate.set()
    thread.join(10)
    ask()
    assert answers == [200, 200]


def test_a_day_s_quota_ends_with_the_day() -> None:
    now = 86400 * 20_000 + 3600.0
    account = Account(key(requests_per_day=3, device_seconds_per_day=2.0), Clocks(calendar=lambda: now))
    account.take()
    with pytest.raises(RateLimitError) as caught:
        account.take_more(3)
    assert caught.value.retry_after == 86400 - 3600
    account.take_more(1)
    account.charge(2.5)
    with pytest.raises(RateLimitError, match="seconds of the models"):
        account.take()
    assert account.headers()["ratelimit"] == '"day";r=1;t=82800, "device";r=0;t=82800'
    now += 86400
    account.take()


def test_the_device_s_time_is_booked(serve: Serve) -> None:
    slow = ModelSpec(name="echo", backend_cls=Echo, backend_kwargs={"seconds": 0.05})
    server = serve(slow, access=Access(keys=(key(device_seconds_per_day=0.04),)))
    with httpx.Client(base_url=server.url, headers=bearer()) as http:
        with http.stream("POST", "/echo/stream", json=GOOD) as answer:
            assert "event: result" in answer.read().decode()
        assert http.post("/echo/predict", json=GOOD).status_code == 429


def test_tokens_come_back_with_time() -> None:
    now = 0.0
    account = Account(key(requests_per_minute=60, burst=2), Clocks(steady=lambda: now))
    account.take()
    account.take()
    with pytest.raises(RateLimitError) as caught:
        account.take()
    assert caught.value.retry_after == pytest.approx(1.0)
    now = 1.0
    account.take()
    now = 1000.0
    account.take()
    account.take()
    with pytest.raises(RateLimitError):
        account.take()


def test_strangers_keys_leave_no_state(serve: Serve) -> None:
    from sheaf.http.auth import Authentication

    authentication = Authentication(Access(keys=(key(),)))
    before = len(authentication._callers)
    for number in range(100):
        with pytest.raises(AuthenticationError):
            authentication._find(f"sheaf_{number}")
    assert len(authentication._callers) == before == 1


def test_keys_weigh_as_tenants(serve: Serve) -> None:
    own = ModelSpec.model_validate(
        {"name": "own", "backend_cls": Echo, "batch_policy": {"tenant_weights": {"ann": 5.0}}}
    )
    server = serve([ECHO, own], access=Access(keys=(key(weight=2.0), key("bob", OTHER, weight=3.0))))
    weights = {spec.name: spec.batch_policy.tenant_weights for spec in server.specs}
    assert weights == {"echo": {"ann": 2.0, "bob": 3.0}, "own": {"ann": 5.0, "bob": 3.0}}


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = Access(keys=(key(),), open_docs=True)
    monkeypatch.delenv("SHEAF_API_KEYS", raising=False)
    monkeypatch.setenv("SHEAF_ADMIN_KEY", ADMIN)
    read = Access.from_environment(given)
    assert (read.keys, read.open_docs, read.is_admin(ADMIN)) == (given.keys, True, True)
    monkeypatch.setenv("SHEAF_ADMIN_KEY", hash_of(ADMIN))
    assert Access.from_environment().is_admin(ADMIN)
    monkeypatch.setenv("SHEAF_API_KEYS", f"bob:{hash_of(OTHER)}, eve:{hash_of('x').upper()}")
    assert [k.name for k in Access.from_environment(given).keys] == ["bob", "eve"]
    file = tmp_path / "keys.yaml"
    file.write_text(f"- {{name: kim, sha256: {hash_of(OTHER)}, models: [echo], weight: 2}}\n")
    monkeypatch.setenv("SHEAF_API_KEYS", str(file))
    assert Access.from_environment().keys == (key("kim", OTHER, models=("echo",), weight=2),)


@pytest.mark.parametrize(
    "text", ["", " ", "sheaf_secretsecret", "bob:sheaf_secretsecret", "/no/such/secretsecret"]
)
def test_a_variable_that_names_no_keys_stops_the_server(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SHEAF_API_KEYS", text)
    with pytest.raises(ValueError, match="SHEAF_API_KEYS") as caught:
        EmbeddedServer(ECHO)
    assert "secretsecret" not in str(caught.value)
    monkeypatch.setenv("SHEAF_API_KEYS", f"bob:{hash_of(OTHER)}")
    monkeypatch.setenv("SHEAF_ADMIN_KEY", "")
    with pytest.raises(ValueError, match="SHEAF_ADMIN_KEY"):
        Access.from_environment()


def test_a_secret_in_the_place_of_a_hash_is_not_repeated(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_text("models: [statsforecast]\naccess: {keys: [{name: bob, sha256: sheaf_secretsecret}]}\n")
    with pytest.raises(ValueError, match="sha256") as caught:
        read_access(file)
    assert "secretsecret" not in str(caught.value)


def test_the_command_makes_keys_that_work(serve: Serve) -> None:
    shown = CliRunner().invoke(cli, ["key", "new", "kim"]).output
    secret = re.search(r"sheaf_[\w-]{43}", shown)
    line = re.search(r"kim:[0-9a-f]{64}", shown)
    assert secret
    assert line
    access = Access(keys=(ApiKey(name="kim", sha256=line[0].partition(":")[2]),))
    assert access.find(secret[0])
    assert CliRunner().invoke(cli, ["key", "new", "../x"]).exit_code == 1


@pytest.mark.parametrize(
    ("host", "environment", "warned"),
    [
        ("0.0.0.0", {}, True),  # noqa: S104 - what is warned of
        ("0.0.0.0", {"SHEAF_API_KEYS": f"bob:{hash_of(OTHER)}"}, False),  # noqa: S104
        ("127.0.0.1", {}, False),
        ("localhost", {}, False),
    ],
)
def test_an_open_server_that_others_can_reach_is_warned_of(
    tmp_path: Path, host: str, environment: dict[str, str], *, warned: bool
) -> None:
    # The port is taken, which ends the command where it would begin to serve.
    port = socket.create_server((host, 0))
    arguments = ["serve", "statsforecast", "--host", host, "--port", str(port.getsockname()[1])]
    with port:
        result = CliRunner().invoke(cli, arguments, env={"SHEAF_ADMIN_KEY": None, **environment})
    assert result.exit_code == 1
    assert ("there are no API keys" in result.output) == warned
