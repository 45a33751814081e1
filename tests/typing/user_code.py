"""Calls as a user writes them: strict type checkers must find nothing wrong here. Never run."""

from __future__ import annotations

from datetime import datetime
from typing import assert_type

import numpy as np
import pandas as pd

from sheaf import ModelSpec
from sheaf.api.audio import AudioProgress
from sheaf.api.time_series import FeatureRef, Frequency, OutputMode, TimeSeriesRequest, TimeSeriesResponse
from sheaf.api.weather import WeatherProgress, WeatherRequest, WeatherResponse
from sheaf_client import (
    AsyncSheaf,
    AsyncStream,
    ConnectionFailedError,
    ProblemError,
    ProgressEvent,
    RawResponse,
    RawStream,
    ResultEvent,
    Sheaf,
    SheafError,
    Stream,
    UnknownEvent,
)
from sheaf_client.errors import InvalidRequestError, OverloadedError


def clients() -> list[Sheaf]:
    spec = ModelSpec(name="chronos", backend="chronos2", backend_kwargs={"model_id": "amazon/chronos-2"})
    client = Sheaf("http://127.0.0.1:8000", api_key="secret", model="chronos", timeout=None, max_retries=5)
    return [
        client,
        client.with_options(model="other", timeout=5, headers={"x-tenant": "a"}),
        client.with_adapters("sketch@0.8", "ink"),
        Sheaf.local(["statsforecast", spec], model="chronos"),
        Sheaf.local("statsforecast"),
    ]


def histories(client: Sheaf, several: list[list[float]], gaps: list[float | None]) -> None:
    values = [1.0, 2.0, 3.0]
    whole = [1, 2, 3]
    array = np.array(values)
    matrix = np.zeros((3, 2), dtype=np.float32)
    series = pd.Series(values)
    frame = pd.DataFrame({"a": values, "b": values})
    answer = client.time_series.forecast(model="chronos", history=values, horizon=1, frequency="1h")
    assert_type(answer, TimeSeriesResponse)
    assert_type(answer.mean, list[float])
    assert_type(answer.quantiles, dict[str, list[float]] | None)
    client.time_series.forecast(history=whole, horizon=1, frequency="1h")
    client.time_series.forecast(history=tuple(values), horizon=1, frequency="1h")
    client.time_series.forecast(history=range(10), horizon=1, frequency="1h")
    client.time_series.forecast(history=several, horizon=1, frequency="1h", target_index=1)
    client.time_series.forecast(history=gaps, horizon=1, frequency="1h")
    client.time_series.forecast(history=[1, None, 3.5], horizon=1, frequency="1h")
    client.time_series.forecast(history=array, horizon=1, frequency="1h")
    client.time_series.forecast(history=array[:2] * 2, horizon=1, frequency="1h")
    client.time_series.forecast(history=list(array), horizon=1, frequency="1h")
    client.time_series.forecast(history=[array, array], horizon=1, frequency="1h")
    client.time_series.forecast(history=matrix, horizon=1, frequency="1h")
    client.time_series.forecast(history=series, horizon=1, frequency="1h")
    client.time_series.forecast(history=frame, horizon=1, frequency="1h")
    client.time_series.forecast(history=frame["a"], horizon=1, frequency="1h")


def fields(client: Sheaf, values: list[float], when: datetime) -> None:
    array = np.array(values)
    index = pd.date_range("2024-01-01", periods=3, freq="h")
    client.time_series.forecast(history=values, horizon=1, frequency=Frequency.HOURLY)
    client.time_series.forecast(
        history=values,
        horizon=3,
        frequency="1M",
        output_mode="quantiles",
        quantile_levels=(0.05, 0.5, 0.95),
        num_samples=100,
        seed=7,
        past_covariates={"price": array, "promotion": ["yes", "no", "no"], "level": [1, None, 3]},
        future_covariates={"price": [1.0, 2.0, 3.0], "promotion": ("no", "no", "yes")},
        static_covariates={"store": "north", "size": 3},
        start="2024-01-01",
        item_id="milk",
        timeout=2.5,
        extra_headers={"x-tenant": "a"},
    )
    client.time_series.forecast(
        history=values,
        horizon=1,
        frequency="1d",
        output_mode=OutputMode.SAMPLES,
        quantile_levels=np.linspace(0.1, 0.9, 9),
        start=when,
    )
    client.time_series.forecast(history=values, horizon=1, frequency="1h", start=index[0])
    client.time_series.forecast(history=values, horizon=1, frequency="1h", timestamps=[when, when.date()])
    client.time_series.forecast(history=values, horizon=1, frequency="1h", timestamps=["2024-01-01"])
    client.time_series.forecast(history=values, horizon=1, frequency="1h", timestamps=index)
    reference = FeatureRef(feature_view="sales", feature_name="daily", entity_key="store", entity_value="7")
    client.time_series.forecast(feature_ref=reference, horizon=1, frequency="1h")
    client.time_series.forecast(
        feature_ref={
            "feature_view": "sales",
            "feature_name": "daily",
            "entity_key": "store",
            "entity_value": "7",
        },
        horizon=1,
        frequency="1h",
    )


def contracts(client: Sheaf, history: list[float], when: datetime) -> list[float]:
    request = TimeSeriesRequest(model_name="ets", history=history, horizon=1, frequency="1d")
    assert_type(request.frequency, Frequency)
    TimeSeriesRequest(model_name="ets", history=[1, None], horizon=1, frequency=Frequency.DAILY, start=when)
    TimeSeriesRequest(
        model_name="ets",
        history=((1.0, 2.0), (3.0, 4.0)),
        horizon=1,
        frequency="1d",
        output_mode="quantiles",
        past_covariates={"price": [1.0, 2.0]},
        timestamps=["2024-01-01", "2024-01-02"],
    )
    assert_type(client.time_series.forecast(request, timeout=1), TimeSeriesResponse)
    means: list[float] = []
    for outcome in client.time_series.forecast_many([request, request], timeout=1):
        if isinstance(outcome, SheafError):
            assert_type(outcome, ProblemError)
            print(outcome.code, outcome.status, outcome.detail)
        else:
            assert_type(outcome, TimeSeriesResponse)
            means += outcome.mean
    return means


def streams(client: Sheaf, values: list[float]) -> TimeSeriesResponse:
    with client.time_series.stream(history=values, horizon=256, frequency="1h") as stream:
        for event in stream:
            if isinstance(event, ProgressEvent):
                print(event.step / event.total_steps)
            elif isinstance(event, ResultEvent):
                assert_type(event.response, TimeSeriesResponse)
            else:
                assert_type(event, UnknownEvent)
                print(event.type, event.data)
        return stream.final()


def steps(client: Sheaf, request: WeatherRequest) -> WeatherResponse:
    with client.weather.stream(request, timeout=600) as stream:
        assert_type(stream, Stream[WeatherResponse, WeatherProgress])
        for event in stream:
            if isinstance(event, ProgressEvent):
                assert_type(event, WeatherProgress)
                print(event.step, event.forecast_time)
                if event.surface_forecast is not None:
                    print(event.surface_forecast["2t"].mean())
        return stream.final()


async def heard(client: AsyncSheaf, request: WeatherRequest) -> None:
    async with client.audio.stream(audio=b"RIFF") as stream:
        async for event in stream:
            if isinstance(event, AudioProgress):
                print([segment.text for segment in event.segments])
    plain: Stream[TimeSeriesResponse] = Sheaf().time_series.stream(history=[1.0], horizon=1, frequency="1h")
    raw = Sheaf().with_raw_response.weather.stream(request)
    assert_type(raw.parse(), Stream[WeatherResponse, WeatherProgress])
    print(plain.final().mean)


def raw_answers(client: Sheaf, request: TimeSeriesRequest) -> int:
    raw = client.with_raw_response.time_series
    answer = raw.forecast(model="chronos", history=[1.0], horizon=1, frequency="1h", timeout=3)
    assert_type(answer, RawResponse[TimeSeriesResponse])
    assert_type(answer.parse(), TimeSeriesResponse)
    assert_type(raw.forecast(request), RawResponse[TimeSeriesResponse])
    many = raw.forecast_many([request], timeout=1)
    assert_type(many.parse(), list[TimeSeriesResponse | ProblemError])
    with raw.stream(request) as stream:
        assert_type(stream, RawStream[TimeSeriesResponse, ProgressEvent])
        return answer.http_response.status_code + len(list(stream.iter_bytes()))


async def raw_answers_awaited(client: AsyncSheaf, request: TimeSeriesRequest) -> None:
    raw = client.with_raw_response.time_series
    assert_type(await raw.forecast(history=[1.0], horizon=1, frequency="1h"), RawResponse[TimeSeriesResponse])
    assert_type((await raw.forecast_many([request])).parse(), list[TimeSeriesResponse | ProblemError])
    async with raw.stream(request) as stream:
        assert_type(stream.parse(), AsyncStream[TimeSeriesResponse, ProgressEvent])


def errors(client: Sheaf) -> float:
    try:
        client.time_series.forecast(history=[1.0], horizon=1, frequency="1h")
    except InvalidRequestError as error:
        for fault in error.errors:
            print(fault.code, fault.path, fault.message)
    except OverloadedError as error:
        return error.retry_after or 1.0
    except ProblemError as error:
        print(error.request_id, error.retryable)
    except ConnectionFailedError as error:
        print(error.unsent, error.unanswered)
    for info in client.models.list():
        print(info.name, info.operations, info.ready)
    return 0.0


async def awaited(values: list[float]) -> TimeSeriesResponse:
    async with AsyncSheaf(timeout=10) as client:
        answer = await client.time_series.forecast(model="chronos", history=values, horizon=1, frequency="1h")
        assert_type(answer, TimeSeriesResponse)
        request = TimeSeriesRequest(model_name="ets", history=values, horizon=1, frequency=Frequency.DAILY)
        many = await client.time_series.forecast_many((request,))
        assert_type(many, list[TimeSeriesResponse | ProblemError])
        print([info.name for info in await client.models.list()])
        async with client.time_series.stream(request) as stream:
            async for event in stream:
                print(event.type, event.done)
            return await stream.final()
