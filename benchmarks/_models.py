"""Models that cost nothing, or always the same: what is measured with them is the engine around them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sheaf.api.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf.backends.base import ModelBackend, respond

#: The name under which they are served.
MODEL = "m"
SERIES: dict[str, Any] = {
    "history": [float(112 + i % 12) + 0.25 for i in range(96)],
    "horizon": 24,
    "frequency": "1h",
}
#: What is asked of them.
BODY = {"model_name": MODEL, **SERIES}


class Echo(ModelBackend[TimeSeriesRequest, TimeSeriesResponse]):
    """Answers with the end of the history."""

    model_type = "time_series"
    inline = True

    def load(self) -> None:
        pass

    def batch_predict(self, requests: Sequence[TimeSeriesRequest]) -> list[TimeSeriesResponse | Exception]:
        return [_echo(request) for request in requests]


class LaneEcho(Echo):
    """The same on a thread of its own, as every real model runs."""

    inline = False


class Sleep(ModelBackend[TimeSeriesRequest, TimeSeriesResponse]):
    """Takes the same time for every batch, whatever its size."""

    model_type = "time_series"

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def load(self) -> None:
        pass

    def batch_predict(self, requests: Sequence[TimeSeriesRequest]) -> list[TimeSeriesResponse | Exception]:
        time.sleep(self._seconds)
        return [_echo(request) for request in requests]


def _echo(request: TimeSeriesRequest) -> TimeSeriesResponse:
    history = request.history or []
    return respond(
        request,
        TimeSeriesResponse,
        mean=history[-request.horizon :],
        point="mean",
        horizon=request.horizon,
        frequency=request.frequency,
    )
