"""The Python client over its transports: event by event, retried where it is safe, typed throughout."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from sheaf.api.time_series import TimeSeriesRequest
from sheaf.api.weather import WeatherProgress
from sheaf.http import create_app
from sheaf.local import LocalModels
from sheaf.spec import ModelSpec
from sheaf_client import (
    AsyncSheaf,
    BadResponseError,
    CallTimeoutError,
    ProgressEvent,
    ResultEvent,
    Sheaf,
    UnknownEvent,
)
from sheaf_client._sse import Parser
from sheaf_client.errors import (
    BY_CODE,
    DeadlineExceededError,
    InternalServerError,
    InvalidRequestError,
    OverloadedError,
)
from tests.echoes import Echo, Stepping

CASES = Path(__file__).parents[2] / "schema/cases"
ASK: dict[str, Any] = {"model": "steps", "history": [1.0, 2.0], "horizon": 4, "frequency": "1h"}


class Paced(Stepping):
    """Takes each step only when the test lets it."""

    permits = threading.Semaphore(0)

    def stream(self, request: Any) -> Any:
        for event in super().stream(request):
            assert self.permits.acquire(timeout=20)
            yield event


@pytest.fixture
def models() -> Iterator[LocalModels]:
    specs = [ModelSpec(name="steps", backend_cls=Stepping), ModelSpec(name="paced", backend_cls=Paced)]
    held = LocalModels.start(
        [*specs, ModelSpec(name="slow", backend_cls=Echo, backend_kwargs={"seconds": 0.5})]
    )
    yield held
    held.stop()


def test_the_asgi_transport_hands_on_each_event_as_it_comes(models: LocalModels) -> None:
    """Each step is let go only after the event before it was read: a buffering transport would hang here."""
    with (
        Sheaf.asgi(create_app(models)) as client,
        client.time_series.stream(**{**ASK, "model": "paced"}) as stream,
    ):
        for step in range(1, 5):
            Paced.permits.release()
            event = next(stream)
            assert isinstance(event, ProgressEvent)
            assert event.step == step
        Paced.permits.release()
        assert isinstance(next(stream), ResultEvent)


def test_the_async_asgi_transport_hands_on_each_event_as_it_comes(models: LocalModels) -> None:
    async def follow() -> list[Any]:
        async with (
            AsyncSheaf.asgi(create_app(models)) as client,
            client.time_series.stream(**{**ASK, "model": "paced"}) as stream,
        ):
            events = []
            for _ in range(5):
                Paced.permits.release()
                events.append(await anext(stream))
            return events

    events = asyncio.run(follow())
    assert [type(e) for e in events] == [ProgressEvent] * 4 + [ResultEvent]


def test_leaving_a_stream_over_asgi_ends_the_work(models: LocalModels) -> None:
    backend = models.get("steps").backend
    assert isinstance(backend, Stepping)
    backend.seconds = 0.01
    with Sheaf.asgi(create_app(models)) as client:
        with client.time_series.stream(**{**ASK, "horizon": 5000}) as stream:
            next(stream)
        assert backend.closed.wait(10)
        assert client.time_series.forecast(**ASK).mean == [2.0] * 4


def test_leaving_a_local_stream_ends_the_work() -> None:
    spec = ModelSpec(name="steps", backend_cls=Stepping, backend_kwargs={"seconds": 0.01})
    ask = {**ASK, "horizon": 5000}

    def backend(client: Sheaf | AsyncSheaf) -> Stepping:
        return client.transport._held.get("steps").backend

    async def leave() -> bool:
        async with AsyncSheaf.local([spec]) as client:
            async with client.time_series.stream(**ask) as stream:
                await anext(stream)
            return await asyncio.to_thread(backend(client).closed.wait, 10)

    assert asyncio.run(leave())
    with Sheaf.local([spec]) as client:
        with client.time_series.stream(**ask) as stream:
            next(stream)
        assert backend(client).closed.wait(10)


def test_the_async_client_has_the_same_calls() -> None:
    async def use() -> None:
        async with AsyncSheaf.local([ModelSpec(name="steps", backend_cls=Stepping)], model="steps") as client:
            first, second = await asyncio.gather(
                *(client.time_series.forecast(history=[float(i)], horizon=1, frequency="1h") for i in (3, 4))
            )
            assert (first.mean, second.mean) == ([3.0], [4.0])
            async with client.time_series.stream(history=[5.0], horizon=2, frequency="1h") as stream:
                assert [event.type async for event in stream] == ["progress", "progress", "result"]
            assert (await stream.final()).mean == [5.0, 5.0]
            assert [m.name for m in await client.models.list()] == ["steps"]
            with pytest.raises(InvalidRequestError):
                await client.time_series.forecast(history=[], horizon=1, frequency="1h")

    asyncio.run(use())


@pytest.mark.parametrize("kind", ["local", "asgi"])
def test_the_time_of_a_call_is_kept(models: LocalModels, kind: str) -> None:
    client = (
        Sheaf.asgi(create_app(models))
        if kind == "asgi"
        else Sheaf.local([ModelSpec(name="slow", backend_cls=Echo, backend_kwargs={"seconds": 0.5})])
    )
    with client, pytest.raises(DeadlineExceededError):
        client.time_series.forecast(**{**ASK, "model": "slow"}, timeout=0.1)


def test_the_time_of_many_calls_is_kept_in_this_process() -> None:
    from sheaf.api.time_series import Frequency, TimeSeriesRequest

    slow = ModelSpec(name="slow", backend_cls=Echo, backend_kwargs={"seconds": 0.5})
    requests = [
        TimeSeriesRequest(model_name="slow", history=[1.0], horizon=1, frequency=Frequency.HOURLY)
        for _ in range(3)
    ]
    with Sheaf.local([slow]) as client:
        late = client.time_series.forecast_many(requests, timeout=0.1)
    assert [type(outcome) for outcome in late] == [DeadlineExceededError] * 3


def test_a_call_takes_a_contract_or_keywords_not_both(models: LocalModels) -> None:
    from sheaf.api.time_series import TimeSeriesRequest

    request = TimeSeriesRequest(model_name="steps", history=[1.0], horizon=1, frequency="1h")  # type: ignore[arg-type]
    with Sheaf.asgi(create_app(models)) as client:
        assert client.time_series.forecast(request).request_id == request.request_id
        with pytest.raises(TypeError, match="horizon"):
            client.time_series.forecast(request, horizon=3)  # type: ignore[call-overload]


# ---- over a scripted server: what the client does when the other side misbehaves


def scripted(*answers: Any, **settings: Any) -> tuple[Sheaf, list[httpx.Request]]:
    """A client whose server gives these answers in turn; an exception among them is raised."""
    seen: list[httpx.Request] = []
    turn = iter(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        given = next(turn)
        if isinstance(given, Exception):
            raise given
        return given

    http = httpx.Client(transport=httpx.MockTransport(answer), base_url="http://x")
    return Sheaf(http_client=http, **settings), seen


def problem(code: str, **headers: str) -> httpx.Response:
    document = BY_CODE[code]("No.").to_problem().model_dump_json()
    return httpx.Response(
        BY_CODE[code].status,
        content=document,
        headers={"content-type": "application/problem+json", **headers},
    )


def forecast_json() -> dict[str, Any]:
    return {
        "request_id": ID,
        "model_type": "time_series",
        "model_name": "m",
        "mean": [1.0],
        "horizon": 1,
        "frequency": "1h",
        "metadata": {"usage": None, "warnings": [], "context_hit": None},
    }


ID = "11111111-2222-4333-8444-555555555555"
CALL: dict[str, Any] = {"model": "m", "request_id": ID, "history": [1.0], "horizon": 1, "frequency": "1h"}


def test_a_refusal_that_may_pass_is_tried_again_as_the_same_request() -> None:
    client, seen = scripted(
        problem("overloaded", **{"retry-after": "0"}),
        problem("rate_limited", **{"retry-after": "0"}),
        httpx.Response(200, json=forecast_json()),
    )
    assert client.time_series.forecast(**CALL).mean == [1.0]
    assert len({r.headers["idempotency-key"] for r in seen}) == 1
    assert len({r.content for r in seen}) == 1
    assert [float(r.headers["x-sheaf-timeout"]) > 0 for r in seen] == [True] * 3


def test_retries_end() -> None:
    client, seen = scripted(*[problem("overloaded", **{"retry-after": "0"}) for _ in range(5)], max_retries=3)
    with pytest.raises(OverloadedError):
        client.time_series.forecast(**CALL)
    assert len(seen) == 4


def test_a_pause_longer_than_the_time_left_is_not_taken() -> None:
    client, seen = scripted(problem("overloaded", **{"retry-after": "60"}), timeout=5)
    started = time.monotonic()
    with pytest.raises(OverloadedError):
        client.time_series.forecast(**CALL)
    assert len(seen) == 1
    assert time.monotonic() - started < 4


@pytest.mark.parametrize(
    "code", ["invalid", "internal", "backend_failed", "deadline_exceeded", "model_not_found"]
)
def test_what_would_fail_again_is_not_tried_again(code: str) -> None:
    client, seen = scripted(problem(code))
    with pytest.raises(BY_CODE[code]):
        client.time_series.forecast(**CALL)
    assert len(seen) == 1


def test_a_connection_that_failed_is_tried_again_an_answer_that_is_late_is_not() -> None:
    client, seen = scripted(httpx.ConnectError("refused"), httpx.Response(200, json=forecast_json()))
    assert client.time_series.forecast(**CALL).mean == [1.0]
    assert len(seen) == 2
    client, seen = scripted(httpx.ReadTimeout("slow"))
    with pytest.raises(CallTimeoutError):
        client.time_series.forecast(**CALL)
    assert len(seen) == 1


def test_strange_answers_are_typed_errors() -> None:
    client, _ = scripted(httpx.Response(200, text="<html>hello</html>"))
    with pytest.raises(BadResponseError):
        client.time_series.forecast(**CALL)
    client, _ = scripted(httpx.Response(500, text="<html>oops</html>", headers={"x-request-id": "r-1"}))
    with pytest.raises(InternalServerError) as caught:
        client.time_series.forecast(**CALL)
    assert caught.value.request_id == "r-1"
    assert "oops" not in str(caught.value)
    client, _ = scripted(httpx.Response(200, json={"responses": []}))
    request = TimeSeriesRequest(model_name="m", history=[1.0], horizon=1, frequency="1h")
    with pytest.raises(BadResponseError):
        client.time_series.forecast_many([request])


def test_unknown_events_pass_and_a_stream_cut_short_is_an_error() -> None:
    preview = 'event: preview\ndata: {"image": "…"}\n\n'
    progress = {"type": "progress", "step": 1, "total_steps": 2, "done": False, "new": 1}
    text = f"{preview}: keep-alive\n\nevent: progress\ndata: {json.dumps(progress)}\n\n"
    client, _ = scripted(httpx.Response(200, content=text.encode()))
    stream = client.time_series.stream(**CALL)
    event = next(stream)
    assert isinstance(event, UnknownEvent)
    assert (event.type, event.data) == ("preview", {"image": "…"})
    assert isinstance(next(stream), ProgressEvent)
    with pytest.raises(BadResponseError, match="without a result"):
        next(stream)


def test_arrays_of_a_step_have_their_shape_and_a_step_that_breaks_its_contract_is_an_error() -> None:
    state = json.loads((CASES / "weather/valid/minimal.json").read_text(encoding="utf-8"))["request"]
    grid = np.arange(6, dtype="<f4").reshape(2, 3)
    told = {"type": "progress", "step": 1, "total_steps": 2, "done": False, "n_lat": 2, "n_lon": 3}
    told["forecast_time"], field = "2024-06-01T18:00:00", {"2t": base64.b64encode(grid.tobytes()).decode()}

    def first_event(**fields: Any) -> Any:
        text = f"event: progress\ndata: {json.dumps({**told, **fields})}\n\n"
        client, _ = scripted(httpx.Response(200, content=text.encode()))
        return next(client.weather.stream(**state))

    event = first_event(surface_forecast=field)
    assert type(event) is WeatherProgress
    assert event.surface_forecast["2t"].dtype == np.float32
    assert event.surface_forecast["2t"].tolist() == grid.tolist()
    assert first_event().surface_forecast is None
    for broken in ({"n_lon": 4}, {"n_lat": None}, {"forecast_time": None}):
        with pytest.raises(BadResponseError, match="progress"):
            first_event(surface_forecast=field, **broken)
    with pytest.raises(BadResponseError, match="progress"):
        first_event(atmospheric_forecast=field)


def test_fields_a_newer_server_adds_are_no_error() -> None:
    client, _ = scripted(httpx.Response(200, json={**forecast_json(), "novelty": 1}))
    assert client.time_series.forecast(**CALL).mean == [1.0]


def test_settings_reach_the_wire_and_with_options_leaves_the_first_client_alone() -> None:
    client, seen = scripted(
        *[httpx.Response(200, json=forecast_json()) for _ in range(2)], api_key="k-1", headers={"x-team": "a"}
    )
    other = client.with_options(headers={"x-team": "b"}, model="m2")
    client.time_series.forecast(**CALL, extra_headers={"x-once": "1"})
    other.time_series.forecast(**{**CALL, "model": None})
    assert (seen[0].headers["authorization"], seen[0].headers["x-team"], seen[0].headers["x-once"]) == (
        "Bearer k-1",
        "a",
        "1",
    )
    assert (seen[1].headers["x-team"], seen[1].url.path) == ("b", "/m2/time_series/forecast")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_survive_any_split_of_their_bytes(size: int) -> None:
    crlf = "id: 1\r\nevent: a\r\ndata: één\r\ndata: two\r\n\r\n"
    text = f"{crlf}: comment\rdata:x\r\revent: c\ndata: 3\n\n".encode()
    parser = Parser()
    events = [e for start in range(0, len(text), size) for e in parser.feed(text[start : start + size])]
    assert [(e.event, e.data, e.id) for e in events] == [
        ("a", "één\ntwo", "1"),
        ("message", "x", "1"),
        ("c", "3", "1"),
    ]
