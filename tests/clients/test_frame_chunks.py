"""Frames that go out in several calls: sizes, deadlines, failures by series, and what is kept of the rest."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from sheaf.spec import ModelSpec
from sheaf_client import (
    AsyncSheaf,
    CallTimeoutError,
    ConnectionFailedError,
    InvalidFrameError,
    Sheaf,
    SheafError,
)
from sheaf_client._extensions import frame_work
from sheaf_client._transport import CallOptions, ManyCall
from sheaf_client.contracts.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf_client.errors import (
    AuthenticationError,
    BackendError,
    DeadlineExceededError,
    InvalidRequestError,
    RequestTooLargeError,
)
from tests.clients.test_forecast_frame import Watched

OPTIONS: dict[str, Any] = {
    "id_col": "id", "time_col": "t", "target_col": "y", "horizon": 2, "quantile_levels": None
}  # fmt: skip


def frame_of(count: int, length: int = 14) -> pd.DataFrame:
    """Series 0, 1, … of so many days, each going up by one a day from its hundred."""
    days = pd.date_range("2024-01-01", periods=length)
    return pd.concat(
        pd.DataFrame({"id": place, "t": days, "y": 100.0 * place + np.arange(length)})
        for place in range(count)
    )


class Failing(Watched):
    """Fails a whole batch where a series of it begins with a number below zero, and one series at -1."""

    def answer(self, request: TimeSeriesRequest) -> TimeSeriesResponse:
        if (request.history or [0.0])[0] == -1.0:
            raise InvalidRequestError("This series is broken.")
        return super().answer(request)


@pytest.fixture
def client() -> Iterator[Sheaf]:
    Watched.asked = []
    with Sheaf.local([ModelSpec(name="watched", backend_cls=Failing)], model="watched") as held:
        yield held


class Calls:
    """Keeps the batch calls of a client, and lets one of them end otherwise."""

    def __init__(self, client: Sheaf, monkeypatch: pytest.MonkeyPatch) -> None:
        self._inner = client.transport.call_many
        self.sizes: list[int] = []
        self.options: list[CallOptions] = []
        self.most = 0
        self._running = 0
        self._lock = threading.Lock()
        self.instead: dict[int, BaseException] = {}
        monkeypatch.setattr(client.transport, "call_many", self._call)

    def _call(self, call: ManyCall[Any]) -> Any:
        with self._lock:
            number = len(self.sizes)
            self.sizes.append(len(call.requests))
            self.options.append(call.options)
            self._running += 1
            self.most = max(self.most, self._running)
        try:
            if number in self.instead:
                raise self.instead[number]
            return self._inner(call)
        finally:
            with self._lock:
                self._running -= 1


@pytest.fixture
def calls(client: Sheaf, monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(client, monkeypatch)


def test_a_large_frame_goes_out_in_bounded_calls_with_their_own_deadlines(
    client: Sheaf, calls: Calls
) -> None:
    frame = frame_of(200)
    for given in (frame, pl.from_pandas(frame)):
        calls.sizes.clear()
        out = client.time_series.forecast_frame(given, **OPTIONS)
        assert list(out["id"]) == [place for place in range(200) for _ in range(2)]
        assert list(out["mean"]) == [100.0 * place + 13 for place in range(200) for _ in range(2)]
        assert calls.sizes[0] == frame_work.FIRST_SERIES
        assert sum(calls.sizes) == 200
        assert max(calls.sizes) <= frame_work.MAX_SERIES
    assert calls.most <= frame_work.IN_FLIGHT
    assert {options.timeout for options in calls.options} == {60.0}


def test_calls_have_fewer_series_where_answers_are_slow(
    client: Sheaf, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_work, "AIM", 0.0)
    client.time_series.forecast_frame(frame_of(12), **OPTIONS)
    assert calls.sizes == [8, 1, 1, 1, 1]
    assert calls.most == 1


def test_a_total_timeout_is_shared_by_the_calls_and_says_what_was_done(
    client: Sheaf, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.time_series.forecast_frame(frame_of(40), timeout=30, **OPTIONS)
    assert all(0 < (options.timeout or 0) <= 30 for options in calls.options)
    clock = iter([0.0, 5.0, 40.0])
    monkeypatch.setattr(frame_work, "monotonic", lambda: next(clock))
    with pytest.raises(CallTimeoutError) as caught:
        client.time_series.forecast_frame(frame_of(40), timeout=35, **OPTIONS)
    partial = caught.value.partial
    assert partial is not None
    assert partial.frame["id"].nunique() == 8
    assert len(partial.errors) == 32


def test_a_failure_is_raised_with_what_was_done(client: Sheaf, calls: Calls) -> None:
    frame = frame_of(40)
    frame.loc[(frame["id"] == 20) & (frame["y"] == 2000.0), "y"] = -1.0
    with pytest.raises(
        InvalidRequestError, match=r'^series 20: This series is broken\. errors="return"'
    ) as caught:
        client.time_series.forecast_frame(frame, **OPTIONS)
    partial = caught.value.partial
    assert partial is not None
    assert set(partial.errors) == {20}
    assert set(range(8)) <= set(partial.frame["id"]) <= set(range(40)) - {20}
    done = partial.frame["id"].nunique()
    assert caught.value.__notes__ == [
        f"{done} of 40 series were forecast before; the error's `partial` has them"
    ]


def test_failures_are_returned_beside_the_rest(client: Sheaf, calls: Calls) -> None:
    frame = frame_of(40)
    frame.loc[(frame["id"] == 20) & (frame["y"] == 2000.0), "y"] = -1.0
    frame.loc[(frame["id"] == 30) & (frame["y"] == 3005.0), "t"] += pd.Timedelta("5h")
    for given in (frame, pl.from_pandas(frame)):
        result = client.time_series.forecast_frame(given, errors="return", frequency="1d", **OPTIONS)
        assert set(result.frame["id"]) == set(range(40)) - {20, 30}
        assert {name: type(error) for name, error in result.errors.items()} == {
            20: InvalidRequestError, 30: InvalidFrameError
        }  # fmt: skip
        assert "series 30: 2024-01-06T05:00:00 is not on the 1d grid" in str(result.errors[30])


def test_a_frame_with_a_series_off_the_grid_is_raised_before_anything_is_sent(
    client: Sheaf, calls: Calls
) -> None:
    frame = frame_of(3)
    frame.loc[frame["y"] == 205.0, "t"] += pd.Timedelta("5h")
    with pytest.raises(InvalidFrameError, match="series 2: 2024-01-06T05:00:00"):
        client.time_series.forecast_frame(frame, **OPTIONS)
    assert calls.sizes == []


@pytest.mark.parametrize(
    "error", [CallTimeoutError("late"), ConnectionFailedError("cut"), DeadlineExceededError("late")]
)
def test_a_call_that_fails_costs_its_own_series_alone(client: Sheaf, calls: Calls, error: SheafError) -> None:
    calls.instead = {0: error}
    result = client.time_series.forecast_frame(frame_of(40), errors="return", **OPTIONS)
    assert set(result.frame["id"]) == set(range(8, 40))
    assert set(result.errors) == set(range(8))
    # What ran out of time says how long it had, too.
    assert all(type(told) is type(error) and str(error) in str(told) for told in result.errors.values())


def test_work_is_given_up_where_call_after_call_fails(client: Sheaf, calls: Calls) -> None:
    error = ConnectionFailedError("The server cannot be reached.")
    calls.instead = dict.fromkeys(range(1000), error)
    result = client.time_series.forecast_frame(frame_of(300), errors="return", **OPTIONS)
    assert len(result.errors) == 300
    assert len(calls.sizes) <= frame_work.GIVE_UP + frame_work.IN_FLIGHT
    with pytest.raises(ConnectionFailedError) as caught:
        client.time_series.forecast_frame(frame_of(40), **OPTIONS)
    assert caught.value.partial is not None
    assert set(caught.value.partial.errors) == set(range(8))


def test_what_would_fail_every_call_is_raised_though_errors_are_returned(client: Sheaf, calls: Calls) -> None:
    calls.instead = {1: AuthenticationError("A key is needed."), 2: AuthenticationError("A key is needed.")}
    with pytest.raises(AuthenticationError) as caught:
        client.time_series.forecast_frame(frame_of(40), errors="return", **OPTIONS)
    assert caught.value.partial is not None
    assert set(caught.value.partial.frame["id"]) == set(range(8))


def test_a_call_that_is_too_large_is_cut_in_two(client: Sheaf, calls: Calls) -> None:
    calls.instead = {0: RequestTooLargeError("too large")}
    out = client.time_series.forecast_frame(frame_of(20), **OPTIONS)
    assert calls.sizes[:2] == [8, 4]
    assert out["id"].nunique() == 20


@pytest.mark.parametrize("number", [0, 2])
def test_an_interrupt_has_what_was_done(client: Sheaf, calls: Calls, number: int) -> None:
    calls.instead = {number: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt) as caught:
        client.time_series.forecast_frame(frame_of(100), **OPTIONS)
    partial = getattr(caught.value, "partial", None)
    assert (partial is None) == (number == 0)
    assert partial is None or set(range(8)) <= set(partial.frame["id"])


def test_the_async_client_keeps_the_same_promises() -> None:
    frame = frame_of(100)
    frame.loc[(frame["id"] == 40) & (frame["y"] == 4000.0), "y"] = -1.0

    async def use() -> None:
        async with AsyncSheaf.local(
            [ModelSpec(name="watched", backend_cls=Failing)], model="watched"
        ) as client:
            result = await client.time_series.forecast_frame(frame, errors="return", **OPTIONS)
            assert set(result.frame["id"]) == set(range(100)) - {40}
            assert set(result.errors) == {40}
            with pytest.raises(InvalidRequestError, match=r"^series 40: ") as caught:
                await client.time_series.forecast_frame(frame, **OPTIONS)
            assert caught.value.partial is not None
            assert set(range(8)) <= set(caught.value.partial.frame["id"])
            inner, started = client.transport.call_many, asyncio.Event()

            async def hangs(call: ManyCall[Any]) -> Any:
                if call.requests[0].history != [float(n) for n in range(14)]:
                    started.set()
                    await asyncio.Event().wait()
                return await inner(call)

            client.transport.call_many = hangs  # type: ignore[method-assign]
            task = asyncio.create_task(client.time_series.forecast_frame(frame, **OPTIONS))
            await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as cancelled:
                await task
            assert set(getattr(cancelled.value, "partial").frame["id"]) == set(range(8))  # noqa: B009
            assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(use())


# ---- what a real model says, in the words of the frame


@pytest.fixture(scope="module")
def real() -> Iterator[Sheaf]:
    with Sheaf.local(["statsforecast"], model="statsforecast") as held:
        yield held


def test_chunks_give_what_each_series_gets_alone(real: Sheaf) -> None:
    frame = frame_of(18)
    frame["y"] += np.random.default_rng(7).normal(size=len(frame))
    out = real.time_series.forecast_frame(frame, **{**OPTIONS, "quantile_levels": [0.1]})
    for name, part in frame.groupby("id"):
        alone = real.time_series.forecast(
            history=part["y"], horizon=2, frequency="1d", output_mode="quantiles", quantile_levels=[0.1]
        )
        mine = out[out["id"] == name]
        assert mine["mean"].tolist() == alone.mean
        assert mine["0.1"].tolist() == (alone.quantiles or {})["0.1"]


@pytest.mark.parametrize("make", [lambda frame: frame, pl.from_pandas], ids=["pandas", "polars"])
def test_a_gap_is_told_by_series_date_and_way_out(real: Sheaf, make: Any) -> None:
    frame = frame_of(2).reset_index(drop=True)
    with pytest.raises(InvalidRequestError) as caught:
        real.time_series.forecast_frame(make(frame.drop(index=19)), **OPTIONS)
    said = str(caught.value)
    assert said.startswith(
        "series 1 at 2024-01-06T00:00:00, column 'y': This model cannot serve the request."
    )
    assert "The frame has no row for this time: add it and give it a value" in said
    assert "/history/5: AutoETS needs every value" in said
    with pytest.raises(InvalidRequestError, match=r"series 1 at 2024-01-06T00:00:00.* Give it a value"):
        real.time_series.forecast_frame(make(frame.assign(y=frame["y"].mask(frame.index == 19))), **OPTIONS)


def test_one_short_series_among_many_is_named(real: Sheaf) -> None:
    frame = frame_of(5)
    short = frame[(frame["id"] != 3) | (frame["y"] == 300.0)]
    with pytest.raises(InvalidRequestError, match=r"^series 3, column 'y': ") as caught:
        real.time_series.forecast_frame(short, **OPTIONS)
    assert 'errors="return" forecasts the other series.' in str(caught.value)
    result = real.time_series.forecast_frame(short, errors="return", **OPTIONS)
    assert set(result.errors) == {3}
    assert set(result.frame["id"]) == {0, 1, 2, 4}


def test_an_infinite_value_is_told_by_its_date(real: Sheaf) -> None:
    frame = frame_of(2)
    frame.loc[frame["y"] == 105.0, "y"] = np.inf
    with pytest.raises(InvalidRequestError, match=r"^series 1 at 2024-01-06T00:00:00, column 'y': "):
        real.time_series.forecast_frame(frame, **OPTIONS)


def test_errors_of_a_model_keep_their_class(client: Sheaf, calls: Calls) -> None:
    calls.instead = {0: BackendError("The model failed.")}
    with pytest.raises(BackendError, match=r"The model failed\."):
        client.time_series.forecast_frame(frame_of(2), **OPTIONS)


def test_the_page_on_frames_runs_as_printed(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs/frames.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    held: dict[str, Any] = {}
    try:
        for block in blocks:
            exec(block, held)  # noqa: S102 - our own page
    finally:
        held["client"].close()
    said = capsys.readouterr().out
    assert len(blocks) == 4
    assert "series 'south' at 2022-06-01T00:00:00, column 'units'" in said
    assert said.endswith("['north'] ['south']\n")
