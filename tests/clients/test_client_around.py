"""What stands around a call: middleware, raw answers, the log, and interrupts."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import httpx
import pytest

from sheaf.spec import ModelSpec
from sheaf_client import (
    AsyncSheaf,
    BadResponseError,
    ConnectionFailedError,
    ProgressEvent,
    Send,
    Sheaf,
)
from sheaf_client._middleware import shown
from sheaf_client.contracts.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf_client.errors import InvalidRequestError, ModelNotFoundError
from tests.clients.scripted import ANSWER, CALL, EVENTS, answers, ok, refusal, scripted
from tests.echoes import Stepping

# ---- middleware


def test_middleware_stands_around_each_try_the_first_outermost() -> None:
    order: list[str] = []

    def outer(send: Send, following: Callable[[Send], httpx.Response]) -> httpx.Response:
        order.append(f"outer {send.attempt}")
        response = following(dataclasses.replace(send, headers={**send.headers, "x-team": "a"}))
        order.append(f"outer {response.status_code}")
        return response

    def inner(send: Send, following: Callable[[Send], httpx.Response]) -> httpx.Response:
        order.append(f"inner {send.headers['x-team']}")
        return following(send)

    client, seen = scripted(refusal("overloaded"), ok(), middleware=[outer, inner])
    assert client.time_series.forecast(**CALL).mean == [1.0]
    assert order == ["outer 1", "inner a", "outer 503", "outer 2", "inner a", "outer 200"]
    assert [request.headers["x-team"] for request in seen] == ["a", "a"]


def test_middleware_may_answer_and_its_own_errors_come_through_as_they_are() -> None:
    def cached(send: Send, following: Callable[[Send], httpx.Response]) -> httpx.Response:
        return ok()

    def broken(send: Send, following: Callable[[Send], httpx.Response]) -> httpx.Response:
        raise KeyError("no token")

    client, seen = scripted(ok())
    assert client.with_options(middleware=[cached]).time_series.forecast(**CALL).mean == [1.0]
    assert seen == []
    with pytest.raises(KeyError, match="no token"):
        client.with_options(middleware=[broken]).time_series.forecast(**CALL)


def test_middleware_sees_this_librarys_errors_and_may_pass_them_on() -> None:
    caught: list[BaseException] = []

    def watch(send: Send, following: Callable[[Send], httpx.Response]) -> httpx.Response:
        try:
            return following(send)
        except ConnectionFailedError as error:
            caught.append(error)
            raise

    client, seen = scripted(httpx.ConnectError("refused"), ok(), middleware=[watch])
    client.time_series.forecast(**CALL)
    assert len(caught) == 1
    assert len(seen) == 2


def test_async_middleware_is_awaited() -> None:
    async def stamp(send: Send, following: Callable[[Send], Awaitable[httpx.Response]]) -> httpx.Response:
        await asyncio.sleep(0)
        return await following(dataclasses.replace(send, headers={**send.headers, "x-team": "b"}))

    transport, seen = answers(ok())

    async def use() -> list[float]:
        http = httpx.AsyncClient(transport=transport)
        async with AsyncSheaf("http://x", http_client=http, middleware=[stamp]) as client:
            return (await client.time_series.forecast(**CALL)).mean

    assert asyncio.run(use()) == [1.0]
    assert seen[0].headers["x-team"] == "b"


def test_a_local_client_has_neither_middleware_nor_raw_responses() -> None:
    spec = ModelSpec(name="steps", backend_cls=Stepping)
    with pytest.raises(TypeError, match="middleware"):
        Sheaf.local([spec], middleware=[lambda send, following: following(send)])
    with Sheaf.local([spec]) as client, pytest.raises(TypeError, match="raw"):
        _ = client.with_raw_response


# ---- raw answers


def test_a_raw_response_has_what_http_had_and_parses_on_demand() -> None:
    client, _ = scripted(ok(), httpx.Response(200, text="<html>"))
    raw = client.with_raw_response.time_series.forecast(**CALL)
    assert (raw.http_response.status_code, raw.request_id) == (200, "r-1")
    parsed = raw.parse()
    assert isinstance(parsed, TimeSeriesResponse)
    assert parsed.mean == [1.0]
    strange = client.with_raw_response.time_series.forecast(**CALL)
    assert strange.http_response.text == "<html>"
    with pytest.raises(BadResponseError):
        strange.parse()


def test_a_raw_client_still_tries_again_and_raises_refusals() -> None:
    client, seen = scripted(refusal("overloaded"), ok(), refusal("model_not_found"))
    assert client.with_raw_response.time_series.forecast(**CALL).parse().mean == [1.0]
    assert len(seen) == 2
    with pytest.raises(ModelNotFoundError):
        client.with_raw_response.time_series.forecast(**CALL)


def test_many_raw_answers_parse_to_responses_and_errors() -> None:
    refused = InvalidRequestError("No.").to_problem().model_dump(mode="json")
    client, _ = scripted(httpx.Response(200, json={"responses": [ANSWER, refused]}))
    request = TimeSeriesRequest.model_validate(
        {**{k: v for k, v in CALL.items() if k != "model"}, "model_name": "m"}
    )
    first, second = client.with_raw_response.time_series.forecast_many([request, request]).parse()
    assert isinstance(first, TimeSeriesResponse)
    assert isinstance(second, InvalidRequestError)


def test_a_raw_stream_gives_bytes_or_events() -> None:
    def streaming() -> httpx.Response:
        return httpx.Response(200, content=b"".join(EVENTS), headers={"x-request-id": "r-2"})

    client, _ = scripted(streaming(), streaming())
    with client.with_raw_response.time_series.stream(**CALL) as raw:
        assert raw.request_id == "r-2"
        assert b"".join(raw.iter_bytes()) == b"".join(EVENTS)
    with client.with_raw_response.time_series.stream(**CALL) as raw:
        events = raw.parse()
        assert isinstance(next(events), ProgressEvent)
        assert events.final().mean == [1.0]


def test_raw_answers_of_the_async_client() -> None:
    transport, _ = answers(ok(), httpx.Response(200, content=b"".join(EVENTS)))

    async def use() -> tuple[list[float], list[str]]:
        http = httpx.AsyncClient(transport=transport)
        async with AsyncSheaf("http://x", http_client=http) as client:
            first = (await client.with_raw_response.time_series.forecast(**CALL)).parse()
            async with client.with_raw_response.time_series.stream(**CALL) as raw:
                return first.mean, [event.type async for event in raw.parse()]

    assert asyncio.run(use()) == ([1.0], ["progress", "result"])


# ---- the log


def test_each_try_leaves_one_line_without_secrets_or_bodies(caplog: pytest.LogCaptureFixture) -> None:
    client, _ = scripted(
        refusal("overloaded"),
        ok(),
        api_key="sk-secret",
        headers={"x-api-key": "k-hidden", "x-mine": "m-hidden"},
    )
    with caplog.at_level(logging.DEBUG, logger="sheaf_client"):
        client.time_series.forecast(**{**CALL, "history": [98765.0]})
    lines = [r.getMessage() for r in caplog.records if r.levelno == logging.INFO]
    assert len(lines) == 2
    assert lines[0].startswith("POST /m/time_series/forecast 503 ")
    assert lines[1].startswith("POST /m/time_series/forecast 200 ")
    assert lines[0].endswith("attempt=1")
    assert lines[1].endswith("attempt=2")
    assert "request=" in lines[0]
    for secret in ("sk-secret", "k-hidden", "m-hidden", "98765"):
        assert secret not in caplog.text


def test_a_failed_try_is_logged_by_its_error(caplog: pytest.LogCaptureFixture) -> None:
    client, _ = scripted(httpx.ReadError("reset"), max_retries=0)
    with caplog.at_level(logging.INFO, logger="sheaf_client"), pytest.raises(ConnectionFailedError):
        client.time_series.forecast(**CALL)
    assert "ConnectionFailedError" in caplog.text


def test_headers_are_shown_by_a_list_of_the_harmless() -> None:
    assert shown({"Accept": "a", "Authorization": "b", "Set-Cookie": "c"}) == {
        "Accept": "a",
        "Authorization": "(hidden)",
        "Set-Cookie": "(hidden)",
    }


@pytest.mark.parametrize(("level", "lines"), [("info", 1), ("", 0), ("nonsense", 0)])
def test_sheaf_log_writes_to_standard_error(
    level: str, lines: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("sheaf_client")
    monkeypatch.setenv("SHEAF_LOG", level)
    before = logger.level
    try:
        client, _ = scripted(ok())
        client.time_series.forecast(**CALL)
    finally:
        logger.setLevel(before)
        logger.handlers.clear()
    assert capfd.readouterr().err.count("/m/time_series/forecast 200") == lines


# ---- interrupts


class Interrupted(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body during which the user presses Ctrl-C."""

    def __init__(self) -> None:
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        yield EVENTS[0]
        raise KeyboardInterrupt

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield EVENTS[0]
        raise asyncio.CancelledError

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("status", [200, 503])
def test_ctrl_c_within_a_stream_frees_its_connection(status: int) -> None:
    body = Interrupted()
    client, _ = scripted(httpx.Response(status, stream=body))
    stream = client.time_series.stream(**CALL)
    with pytest.raises(KeyboardInterrupt):
        stream.final()
    assert body.closed >= 1
    stream.close()
    with pytest.raises(BadResponseError):
        stream.final()


def test_a_cancelled_async_stream_frees_its_connection() -> None:
    body = Interrupted()
    transport, _ = answers(httpx.Response(200, stream=body))

    async def use() -> None:
        async with AsyncSheaf("http://x", http_client=httpx.AsyncClient(transport=transport)) as client:
            await client.time_series.stream(**CALL).final()

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(use())
    assert body.closed >= 1
