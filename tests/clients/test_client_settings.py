"""What a client is made with, and what becomes of it: settings, representations, copies, pickles, closing."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from sheaf.spec import ModelSpec
from sheaf_client import (
    AsyncSheaf,
    ClientClosedError,
    ConnectionFailedError,
    Sheaf,
)
from sheaf_client.contracts.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf_client.errors import InvalidRequestError, OverloadedError
from tests.clients.scripted import ANSWER, CALL, answers, ok, refusal, scripted
from tests.echoes import Stepping


def again(value: Any) -> Any:
    """The value after a trip through pickle."""
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - our own bytes


def test_own_httpx_client_needs_no_base_url_and_keeps_its_own() -> None:
    transport, seen = answers(ok(), ok(), ok())
    Sheaf("http://a/api", http_client=httpx.Client(transport=transport)).time_series.forecast(**CALL)
    based = httpx.Client(transport=transport, base_url="http://b/api/")
    assert repr(Sheaf(http_client=based)) == "Sheaf(http://b/api/)"
    Sheaf(http_client=based).time_series.forecast(**CALL)
    Sheaf("http://c", http_client=based).time_series.forecast(**CALL)
    assert [str(r.url) for r in seen] == [
        f"http://{at}/m/time_series/forecast" for at in ("a/api", "b/api", "c")
    ]


def test_with_options_keeps_the_key_when_headers_change_and_takes_another() -> None:
    client, seen = scripted(ok(), ok(), api_key="one")
    client.with_options(headers={"x-a": "1"}).time_series.forecast(**CALL)
    client.with_options(api_key="two").time_series.forecast(**CALL)
    assert [r.headers["authorization"] for r in seen] == ["Bearer one", "Bearer two"]


def test_reprs_hold_no_secrets() -> None:
    client = Sheaf("https://user:password@host/path", api_key="sk-secret", headers={"x-api-key": "k"})
    shown_text = f"{client!r} {client.options()!r} {vars(client)['_settings']!r}"
    assert repr(client) == "Sheaf(https://host/path)"
    assert "password" not in shown_text
    assert "sk-secret" not in shown_text
    assert "'k'" not in shown_text


@pytest.mark.parametrize("make", [Sheaf, AsyncSheaf])
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_client_is_not_copied(make: Callable[[], Any], duplicate: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="with_options"):
        duplicate(make())


def test_contracts_and_errors_are_pickled() -> None:
    request = TimeSeriesRequest.model_validate(
        {"model_name": "m", "history": [1.0], "horizon": 1, "frequency": "1h"}
    )
    assert again(request) == request
    response = TimeSeriesResponse.model_validate(ANSWER)
    assert again(response) == response
    unsent = again(ConnectionFailedError("no", unsent=True))
    assert (str(unsent), unsent.unsent, unsent.unanswered) == ("no", True, False)
    unanswered = again(ConnectionFailedError("no", unanswered=True))
    assert (unanswered.unsent, unanswered.unanswered) == (False, True)
    with pytest.raises(InvalidRequestError) as caught:
        Sheaf().time_series.forecast(model="m", history=[], horizon=0, frequency="1h")
    restored = again(caught.value)
    assert [f.path for f in restored.errors] == [f.path for f in caught.value.errors]
    assert restored.errors
    overloaded = again(OverloadedError("later", retry_after=3.0, request_id="r"))
    assert (overloaded.detail, overloaded.retry_after, overloaded.request_id) == ("later", 3.0, "r")


def test_a_closed_client_says_so() -> None:
    client, seen = scripted(ok())
    other = client.with_options(model="m")
    client.close()
    client.close()
    for used in (client, other):
        with pytest.raises(ClientClosedError, match="closed"):
            used.time_series.forecast(**CALL)
    with pytest.raises(ClientClosedError), client.time_series.stream(**CALL) as stream:
        next(stream)
    assert seen == []
    local = Sheaf.local([ModelSpec(name="steps", backend_cls=Stepping)])
    local.close()
    with pytest.raises(ClientClosedError):
        local.models.list()


def test_an_async_client_that_was_closed_says_so() -> None:
    async def use() -> None:
        client = AsyncSheaf("http://x")
        await client.close()
        await client.time_series.forecast(**CALL)

    with pytest.raises(ClientClosedError):
        asyncio.run(use())


def test_a_feature_store_that_failed_is_asked_again() -> None:
    client, seen = scripted(refusal("feature_store"), ok())
    assert client.time_series.forecast(**CALL).mean == [1.0]
    assert len(seen) == 2


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[str]]]:
    """The address of a proxy that answers by itself, and what it was asked for."""
    asked: list[str] = []

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", str(len(ok().content)))
            self.end_headers()
            self.wfile.write(ok().content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
            """Nothing: what was asked for is noted."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def test_a_proxy_is_that_of_an_own_httpx_client_or_of_the_environment(
    proxy: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, asked = proxy
    with httpx.Client(proxy=address) as http, Sheaf("http://sheaf.invalid", http_client=http) as client:
        assert client.time_series.forecast(**CALL).mean == [1.0]

    async def use() -> list[float]:
        async with AsyncSheaf("http://sheaf.invalid") as client:
            return (await client.time_series.forecast(**CALL)).mean

    monkeypatch.setenv("HTTP_PROXY", address)
    assert asyncio.run(use()) == [1.0]
    assert asked == ["http://sheaf.invalid/m/time_series/forecast"] * 2


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_is_reached_without_the_proxy_of_the_environment(
    proxy: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """What a server is asked for is a path; a proxy is asked for a URL."""
    address, asked = proxy
    url = f"http://{host}:{address.rpartition(':')[2]}"
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)

    async def use() -> list[float]:
        async with AsyncSheaf(url) as client:
            return (await client.time_series.forecast(**CALL)).mean

    assert asyncio.run(use()) == [1.0]
    with Sheaf(url) as client:
        assert client.time_series.forecast(**CALL).mean == [1.0]
    assert asked == ["/m/time_series/forecast"] * 2


def test_a_proxy_that_is_asked_for_leads_to_this_machine_too(proxy: tuple[str, list[str]]) -> None:
    address, asked = proxy
    with httpx.Client(proxy=address) as http, Sheaf("http://127.0.0.1:9", http_client=http) as client:
        assert client.time_series.forecast(**CALL).mean == [1.0]
    assert asked == ["http://127.0.0.1:9/m/time_series/forecast"]
