"""Mistakes as a user makes them: type checkers report each line marked `wrong` and no other. Never run."""

from __future__ import annotations

import numpy as np

from sheaf.api.time_series import TimeSeriesRequest
from sheaf_client import AsyncSheaf, ProgressEvent, Sheaf


def calls(client: Sheaf, request: TimeSeriesRequest, other: object) -> None:
    series = client.time_series
    history = np.zeros(3)
    series.forecast(history=history, horizon=1, frequency="1h")
    series.forecast(history=history, horizn=1, frequency="1h")  # wrong: no such keyword
    series.forecast(history=history, frequency="1h")  # wrong: no horizon
    series.forecast(history=history, horizon=1)  # wrong: no frequency
    series.forecast(history=history, horizon="1", frequency="1h")  # wrong: text for a number
    series.forecast(history=history, horizon=1.5, frequency="1h")  # wrong: a fraction of a step
    series.forecast(history=history, horizon=1, frequency="1hour")  # wrong: no such frequency
    series.forecast(history=1.0, horizon=1, frequency="1h")  # wrong: a number for a series
    series.forecast(history={"a": [1.0]}, horizon=1, frequency="1h")  # wrong: a mapping for a series
    series.forecast(history=["1.0"], horizon=1, frequency="1h")  # wrong: text in a series
    series.forecast(history=history, horizon=1, frequency="1h", output_mode="mode")  # wrong: no such mode
    series.forecast(history=history, horizon=1, frequency="1h", quantile_levels=0.5)  # wrong: one level
    series.forecast(history=history, horizon=1, frequency="1h", past_covariates=[1.0])  # wrong: no names
    series.forecast(history=history, horizon=1, frequency="1h", start=2024)  # wrong: a number for a time
    series.forecast(feature_ref={"feature_view": "v"}, horizon=1, frequency="1h")  # wrong: half a reference
    series.forecast(request, horizon=1)  # wrong: a request and keywords
    series.forecast(request=request)  # wrong: a request goes first, without a name
    series.forecast(other)  # wrong: no request
    series.forecast([1.0], 1, "1h")  # wrong: keywords without their names
    series.forecast_many(request)  # wrong: one request for many
    series.stream(history=history, frequency="1h")  # wrong: no horizon
    series.predict(request)  # wrong: no such operation
    client.timeseries.forecast(request)  # wrong: no such resource
    client.with_options(retries=3)  # wrong: no such option
    series.forecast(request).median  # noqa: B018  # wrong: no such field
    TimeSeriesRequest(model_name="ets", history=[1.0], frequency="1h")  # wrong: no horizon
    TimeSeriesRequest(model_name="a", history=[1.0], horizon=1, frequency="hour")  # wrong: no such frequency
    TimeSeriesRequest(model_name="ets", history=history, horizon=1, frequency="1h")  # wrong: an array


def raw_answers(client: Sheaf, request: TimeSeriesRequest) -> None:
    raw = client.with_raw_response.time_series
    raw.forecast(history=[1.0], frequency="1h")  # wrong: no horizon
    raw.forecast(history=[1.0], horizn=1, frequency="1h")  # wrong: no such keyword
    raw.forecast(request, horizon=1)  # wrong: a request and keywords
    raw.forecast(request).mean  # noqa: B018  # wrong: not parsed
    raw.forecast_many(request)  # wrong: one request for many
    raw.stream(history=[1.0], frequency="1h")  # wrong: no horizon
    print(raw.forecast_many([request]).parse().mean)  # wrong: a list


def events(client: Sheaf, request: TimeSeriesRequest) -> None:
    for event in client.time_series.stream(request):
        if isinstance(event, ProgressEvent):
            print(event.segments)  # wrong: those of a transcription


def results(client: Sheaf, request: TimeSeriesRequest) -> None:
    for outcome in client.time_series.forecast_many([request]):
        print(outcome.mean)  # wrong: may be an error
    answer = client.time_series.forecast(request)
    print(answer.quantiles["0.5"])  # wrong: may be absent


async def awaited(client: AsyncSheaf, request: TimeSeriesRequest) -> None:
    answer = client.time_series.forecast(request)
    print(answer.mean)  # wrong: not awaited
    with client.time_series.stream(request):  # wrong: an asynchronous context manager
        pass
