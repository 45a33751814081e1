"""What stands around a call: middleware, raw answers, the log, closing, copying, and interrupts."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import json
import logging
import pickle
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest

from sheaf.spec import ModelSpec
from sheaf_client import (
    AsyncSheaf,
    BadResponseError,
    ClientClosedError,
    ConnectionFailedError,
    ProgressEvent,
    Send,
    Sheaf,
)
from sheaf_client._middleware import shown
from sheaf_client.contracts.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf_client.errors import BY_CODE, InvalidRequestError, ModelNotFoundError, OverloadedError
from tests.backends import Stepping

CALL: dict[str, Any] = {"model": "m", "history": [1.0], "horizon": 1, "frequency": "1h"}
ANSWER: dict[str, Any] = {
    "request_id": "11111111-2222-4333-8444-555555555555",
    "model_type": "time_series",
    "model_name": "m",
    "mean": [1.0],
    "horizon": 1,
    "frequency": "1h",
}
EVENTS = (
    b'event: progress\ndata: {"type":"progress","step":1,"total_steps":2,"done":false}\n\n',
    f"event: result\ndata: {json.dumps({'type': 'result', 'done': True, **ANSWER})}\n\n".encode(),
)


def answers(*given: httpx.Response | Exception) -> tuple[httpx.MockTransport, list[httpx.Request]]:
    """A server that gives these answers in turn and remembers what it was asked."""
    seen: list[httpx.Request] = []
    turn = iter(given)

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        answered = next(turn)
        if isinstance(answered, Exception):
            raise answered
        return answered

    return httpx.MockTransport(answer), seen


def scripted(*given: httpx.Response | Exception, **settings: Any) -> tuple[Sheaf, list[httpx.Request]]:
    transport, seen = answers(*given)
    return Sheaf("http://x", http_client=httpx.Client(transport=transport), **settings), seen


def ok() -> httpx.Response:
    return httpx.Response(200, json=ANSWER, headers={"x-request-id": "r-1"})


def refusal(code: str) -> httpx.Response:
    document = BY_CODE[code]("No.").to_problem().model_dump_json()
    return httpx.Response(BY_CODE[code].status, content=document, headers={"retry-after": "0"})


def again(value: Any) -> Any:
    """The value after a trip through pickle."""
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - our own bytes


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
    client, _ = scripted(httpx.ReadError("reset"))
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


# ---- settings, copies, closing


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
    broken = again(ConnectionFailedError("no", unsent=True))
    assert (str(broken), broken.unsent) == ("no", True)
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


def test_a_feature_store_that_failed_is_asked_again() -> None:
    client, seen = scripted(refusal("feature_store"), ok())
    assert client.time_series.forecast(**CALL).mean == [1.0]
    assert len(seen) == 2
