"""Arguments that cannot be used: refused where they are given, by name, with no secret in any text."""

from __future__ import annotations

import asyncio
import logging
import pickle
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from sheaf.spec import ModelSpec
from sheaf_client import ArgumentError, AsyncSheaf, ConnectionFailedError, Sheaf, SheafError
from tests.clients.scripted import CALL, answers, ok, scripted
from tests.echoes import Echo

SECRET = "sk-very-secret"  # noqa: S105 - a test's own
URLS: dict[str, Any] = {
    "127.0.0.1:8000": r"did you mean 'http://127\.0\.0\.1:8000'",
    "localhost:8000": "did you mean 'http://localhost:8000'",
    "example.org/api": "begins with",
    f"user:{SECRET}@example.org": "did you mean 'http://example.org'",
    "ftp://example.org": "begins with",
    "http://": "no URL of a server",
    "http://a b": "no URL of a server",
    "http://example.org:99999": "no URL of a server",
    "http://example.org:port": "no URL of a server",
    f"http://user:{SECRET}/x@example.org": "no URL of a server",
    f"http://example.org?key={SECRET}": "query",
    f"http://example.org/#{SECRET}": "fragment",
    5: "text",
}
SETTINGS: list[tuple[str, Any]] = [
    *[("api_key", value) for value in (f"{SECRET}\nx", f"Bearer {SECRET}", f"{SECRET}\u00fc", b"bytes", 5)],
    *[("timeout", value) for value in (float("inf"), float("nan"), 0, -1, 86_401, "5", True, [5])],
    *[("max_retries", value) for value in (-1, 1.5, "2", None, True)],
    *[("headers", value) for value in ([("a", "b")], "a: b", {"x-user": f"{SECRET} Jürgen"})],
    *[("headers", {"x-a": value}) for value in (f"{SECRET}\r\nx-b: 1", f"{SECRET}\0", 5, None, b"b")],
    *[("headers", {name: SECRET}) for name in ("", "x a", f"x: {SECRET}", "ü", "Content-Length", "host")],
    *[("binary", value) for value in ("sometimes", True, None)],
    *[("middleware", value) for value in ("text", 5, ["text"])],
    *[("model", value) for value in (5, ["m"])],
    *[("adapters", value) for value in ("sketch", 5, ["sketch@x"], [5])],
]
CLIENTS: list[Callable[..., Any]] = [Sheaf, AsyncSheaf]


def told(error: BaseException) -> str:
    """All that an error shows anywhere."""
    return "".join(traceback.format_exception(error)) + repr(error) + repr(error.args)


@pytest.mark.parametrize("make", CLIENTS)
@pytest.mark.parametrize("url", URLS)
def test_an_address_is_checked_where_the_client_is_made(
    make: Callable[..., Any], url: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ArgumentError, match=URLS[url]) as caught:
        make(url)
    assert SECRET not in told(caught.value)
    if isinstance(url, str):
        monkeypatch.setenv("SHEAF_BASE_URL", url)
        with pytest.raises(ArgumentError, match="SHEAF_BASE_URL"):
            make()


@pytest.mark.parametrize("url", ["http://a", "https://a/b/", "HTTP://a:80", "http://[::1]:9", " http://a\n"])
def test_addresses_of_servers_are_taken(url: str) -> None:
    assert repr(Sheaf(url)) == f"Sheaf({url.strip().rstrip('/')})"


@pytest.mark.parametrize("make", CLIENTS)
@pytest.mark.parametrize(("name", "value"), SETTINGS)
def test_a_setting_is_checked_where_it_is_given(make: Callable[..., Any], name: str, value: Any) -> None:
    spec = ModelSpec(name="m", backend_cls=Echo)
    for given in (
        lambda: make("http://a", **{name: value}),
        lambda: make("http://a").with_options(**{name: value}),
        lambda: make.local([spec], **{name: value}),  # type: ignore[attr-defined]
    ):
        with pytest.raises(ArgumentError, match=name[:7]) as caught:
            given()
        assert isinstance(caught.value, SheafError | ValueError | TypeError)
        assert SECRET not in told(caught.value)
    assert type(pickle.loads(pickle.dumps(caught.value))) is ArgumentError  # noqa: S301 - our own bytes


def test_a_key_of_a_file_is_sent_without_its_newline(monkeypatch: pytest.MonkeyPatch) -> None:
    client, seen = scripted(ok(), ok(), api_key=f" {SECRET}\r\n")
    client.time_series.forecast(**CALL)
    monkeypatch.setenv("SHEAF_API_KEY", f"{SECRET}\n")
    transport, seen_too = answers(ok())
    Sheaf("http://x", http_client=httpx.Client(transport=transport)).time_series.forecast(**CALL)
    assert [r.headers["authorization"] for r in (*seen, *seen_too)] == [f"Bearer {SECRET}"] * 2
    monkeypatch.setenv("SHEAF_API_KEY", f"{SECRET} two")
    with pytest.raises(ArgumentError, match="SHEAF_API_KEY") as caught:
        Sheaf()
    assert SECRET not in told(caught.value)


def test_a_header_is_sent_once_whatever_its_case() -> None:
    client, seen = scripted(ok(), api_key="key", headers={"Authorization": " Basic x ", "X-A": "1"})
    client.time_series.forecast(**CALL, extra_headers={"x-a": "2"})
    assert seen[0].headers.get_list("authorization") == ["Basic x"]
    assert seen[0].headers.get_list("x-a") == ["2"]


@pytest.mark.parametrize(
    ("own", "make"), [(httpx.AsyncClient(), Sheaf), (httpx.Client(), AsyncSheaf), (httpx, Sheaf)]
)
def test_the_httpx_client_is_of_the_right_kind(own: Any, make: Callable[..., Any]) -> None:
    with pytest.raises(ArgumentError, match="http_client"):
        make(http_client=own)


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.time_series.forecast(**CALL, timeout="5"),
        lambda c: c.time_series.forecast(**CALL, timeout=float("inf")),
        lambda c: c.time_series.forecast(**CALL, extra_headers={"x-user": f"{SECRET} Jürgen"}),
        lambda c: c.time_series.forecast_many([]),
        lambda c: c.time_series.forecast_many([dict(CALL)]),
        lambda c: c.time_series.forecast([1.0, 2.0], horizon=1, frequency="1h"),
    ],
)
def test_a_call_that_cannot_be_made_is_one_of_our_errors(call: Callable[[Sheaf], Any]) -> None:
    client, seen = scripted(ok())
    with pytest.raises(SheafError) as caught:
        call(client)
    assert SECRET not in told(caught.value)
    assert seen == []


def test_what_middleware_breaks_is_told_without_what_it_wrote(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in (f"{SECRET}\n", f"{SECRET} Jürgen"):

        def stamp(send: Any, following: Any, value: str = value) -> Any:
            return following(replace(send, headers={**send.headers, "x-token": value}))

        caplog.set_level(logging.DEBUG, "sheaf_client")
        client = Sheaf("http://127.0.0.1:9", middleware=[stamp], api_key=SECRET, max_retries=0)
        with pytest.raises(SheafError) as caught:
            client.time_series.forecast(**CALL)
        assert SECRET not in told(caught.value)
    assert caplog.records
    assert SECRET not in caplog.text


def test_a_server_that_is_down_is_told_with_its_address_and_what_to_do() -> None:
    url = f"http://user:{SECRET}@127.0.0.1:9"

    async def ask() -> None:
        await AsyncSheaf(url, max_retries=0).models.list()

    for call in (Sheaf(url, max_retries=0).models.list, lambda: asyncio.run(ask())):
        with pytest.raises(ConnectionFailedError) as caught:
            call()
        for text in ("http://127.0.0.1:9", "sheaf serve", "SHEAF_BASE_URL"):
            assert text in str(caught.value)
        assert SECRET not in str(caught.value)
