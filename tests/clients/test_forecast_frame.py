"""Forecasts for data frames of many series, with covariates, gaps and faults."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from sheaf.backends._families.time_series import forecast_timestamps
from sheaf.spec import ModelSpec
from sheaf_client import ArgumentError, AsyncSheaf, Sheaf, SheafError
from sheaf_client._extensions import frame_work
from sheaf_client._extensions.calendar import Grid, from_grid, to_grid
from sheaf_client._extensions.frequencies import infer_frequency
from sheaf_client.contracts.time_series import Frequency, TimeSeriesRequest, TimeSeriesResponse
from sheaf_client.errors import InvalidRequestError
from tests.echoes import Echo, respond


class Watched(Echo):
    """Repeats the last value that is there, with quantiles around it, and keeps what it was asked."""

    asked: ClassVar[list[TimeSeriesRequest]] = []

    def answer(self, request: TimeSeriesRequest) -> TimeSeriesResponse:
        self.asked.append(request)
        if request.static_covariates and request.static_covariates.get("broken"):
            raise InvalidRequestError("This series is broken.")
        last = next(value for value in reversed(request.history or []) if isinstance(value, float))
        levels = request.quantile_levels if request.output_mode.value == "quantiles" else []
        return respond(
            request,
            TimeSeriesResponse,
            mean=[last] * request.horizon,
            quantiles={repr(level): [last + level] * request.horizon for level in levels} or None,
            horizon=request.horizon,
            frequency=request.frequency,
            timestamps=forecast_timestamps(request),
        )

    def batch_predict(self, requests: Any) -> list[TimeSeriesResponse | Exception]:
        answers: list[TimeSeriesResponse | Exception] = []
        for request in requests:
            try:
                answers.append(self.answer(request))
            except InvalidRequestError as error:
                answers.append(error)
        return answers


@pytest.fixture
def client() -> Iterator[Sheaf]:
    Watched.asked = []
    with Sheaf.local([ModelSpec(name="watched", backend_cls=Watched)], model="watched") as held:
        yield held


SALES = pd.DataFrame(
    {
        "store": ["b", "a", "b", "a", "b", "a"],
        "day": pd.to_datetime(
            ["2024-01-02", "2024-01-01", "2024-01-01", "2024-01-02", "2024-01-03", "2024-01-03"]
        ),
        "units": [2, 10, 1, 20, 3, 30],
    }
)
COLUMNS: dict[str, Any] = {"id_col": "store", "time_col": "day", "target_col": "units"}


def test_a_frame_of_series_comes_back_as_a_frame_of_forecasts(client: Sheaf) -> None:
    forecasts = client.time_series.forecast_frame(SALES, horizon=2, **COLUMNS)
    assert list(forecasts.columns) == ["store", "day", "mean", "0.1", "0.5", "0.9"]
    assert forecasts["store"].tolist() == ["b", "b", "a", "a"]
    assert forecasts["mean"].tolist() == [3.0, 3.0, 30.0, 30.0]
    assert np.allclose(forecasts["0.9"], [3.9, 3.9, 30.9, 30.9])
    assert forecasts["day"].tolist() == [pd.Timestamp("2024-01-04"), pd.Timestamp("2024-01-05")] * 2
    assert {request.frequency for request in Watched.asked} == {Frequency.DAILY}
    assert [request.history for request in Watched.asked] == [[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]]
    assert list(SALES.columns) == ["store", "day", "units"]


@pytest.mark.parametrize("library", ["polars", "pyarrow"])
def test_frames_of_other_libraries_come_back_as_such(client: Sheaf, library: str) -> None:
    frame: Any = pl.from_pandas(SALES) if library == "polars" else pa.Table.from_pandas(SALES)
    forecasts: Any = client.time_series.forecast_frame(frame, horizon=1, quantile_levels=None, **COLUMNS)
    assert type(forecasts) is type(frame)
    columns = forecasts.to_dict(as_series=False) if library == "polars" else forecasts.to_pydict()
    assert columns == {"store": ["b", "a"], "day": [datetime(2024, 1, 4)] * 2, "mean": [3.0, 30.0]}


def test_one_series_needs_no_id(client: Sheaf) -> None:
    frame = pd.DataFrame({"t": ["2024-01-01", "2024-02-01", "2024-03-01"], "y": [1.0, None, 3.0]})
    forecasts = client.time_series.forecast_frame(frame, time_col="t", target_col="y", horizon=1)
    assert list(forecasts.columns) == ["t", "mean", "0.1", "0.5", "0.9"]
    assert forecasts["t"].tolist() == ["2024-04-01"]
    assert (Watched.asked[0].history, Watched.asked[0].frequency) == ([1.0, None, 3.0], Frequency.MONTHLY)


def test_other_columns_are_covariates_of_the_past_and_of_the_future_where_it_has_them(client: Sheaf) -> None:
    frame = SALES.assign(promotion=[True, False] * 3, weather="dry", kind=["x", "y"] * 3)
    future = pd.DataFrame(
        {
            "store": ["a", "b", "a", "b", "a"],
            "day": [date(2024, 1, 5), date(2024, 1, 4), date(2024, 1, 4), date(2024, 1, 5), date(2024, 1, 6)],
            "promotion": [5, 4, 4, 5, 6],
        }
    )
    client.time_series.forecast_frame(frame, horizon=2, future_df=future, static_cols=["kind"], **COLUMNS)
    first, second = Watched.asked
    assert first.past_covariates == {"promotion": [1, 1, 1], "weather": ["dry"] * 3}
    assert second.past_covariates == {"promotion": [0, 0, 0], "weather": ["dry"] * 3}
    assert first.future_covariates == second.future_covariates == {"promotion": [4, 5]}
    assert (first.static_covariates, second.static_covariates) == ({"kind": "x"}, {"kind": "y"})


def test_gaps_are_sent_as_missing_values_on_the_grid(client: Sheaf) -> None:
    frame = SALES.assign(promotion=range(6), weather=["dry", "wet"] * 3).drop(index=0)
    client.time_series.forecast_frame(frame, horizon=1, **COLUMNS)
    gapped = next(request for request in Watched.asked if request.history == [1.0, None, 3.0])
    assert gapped.past_covariates == {"promotion": [2, None, 4], "weather": ["dry", "dry", "dry"]}
    assert gapped.timestamps == [datetime(2024, 1, day) for day in (1, 2, 3)]


def test_the_first_fault_is_raised_and_names_its_series(client: Sheaf) -> None:
    frame = SALES.assign(broken=[0, 1] * 3)
    with pytest.raises(InvalidRequestError, match=r"^series 'a': This series is broken\."):
        client.time_series.forecast_frame(frame, horizon=1, static_cols=["broken"], **COLUMNS)


def test_faults_can_be_returned_beside_the_forecasts(client: Sheaf) -> None:
    frame = SALES.assign(broken=[0, 1] * 3)
    more = pd.DataFrame(
        {"store": "c", "day": pd.date_range("2024-01-01", periods=2), "units": None, "broken": 0}
    )
    result = client.time_series.forecast_frame(
        pd.concat([frame, more]), horizon=1, static_cols=["broken"], errors="return", **COLUMNS
    )
    assert result.frame["store"].tolist() == ["b"]
    assert {name: type(error) for name, error in result.errors.items()} == dict.fromkeys(
        "ac", InvalidRequestError
    )
    assert result.errors["c"].errors[0].path == "/history"


def test_many_series_go_in_lots(client: Sheaf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_work, "MAX_SERIES", 3)
    monkeypatch.setattr(frame_work, "MAX_VALUES", 8)
    sizes: list[int] = []
    inner = client.transport.call_many
    monkeypatch.setattr(
        client.transport, "call_many", lambda call: sizes.append(len(call.requests)) or inner(call)
    )
    lengths = [2, 2, 2, 2, 5, 5, 20]
    frame = pd.concat(
        pd.DataFrame(
            {
                "store": place,
                "day": pd.date_range("2024-01-01", periods=n),
                "units": np.arange(n) + 100.0 * place,
            }
        )
        for place, n in enumerate(lengths)
    )
    forecasts = client.time_series.forecast_frame(frame, horizon=1, **COLUMNS)
    assert sizes == [3, 2, 1, 1]
    assert forecasts["store"].tolist() == list(range(7))
    assert forecasts["mean"].tolist() == [100.0 * place + n - 1 for place, n in enumerate(lengths)]


def test_the_async_client_gives_the_same_frame(client: Sheaf) -> None:
    async def use() -> pd.DataFrame:
        async with AsyncSheaf.local(
            [ModelSpec(name="watched", backend_cls=Watched)], model="watched"
        ) as other:
            return await other.time_series.forecast_frame(SALES, horizon=2, **COLUMNS)

    pd.testing.assert_frame_equal(
        asyncio.run(use()), client.time_series.forecast_frame(SALES, horizon=2, **COLUMNS)
    )


def test_a_real_model_gives_each_series_what_it_gives_it_alone() -> None:
    days = pd.date_range("2024-01-01", periods=35)
    week = np.array([3.0, 4, 5, 6, 7, 1, 0])
    frame = pd.concat(
        pd.DataFrame({"store": store, "day": days, "units": np.tile(week, 5) * factor})
        for store, factor in (("a", 1), ("b", 10))
    )
    with Sheaf.local(["statsforecast"], model="statsforecast") as client:
        forecasts = client.time_series.forecast_frame(frame, horizon=7, quantile_levels=[0.2, 0.8], **COLUMNS)
        for store, factor in (("a", 1), ("b", 10)):
            alone = client.time_series.forecast(
                history=np.tile(week, 5) * factor,
                horizon=7,
                frequency="1d",
                output_mode="quantiles",
                quantile_levels=[0.2, 0.8],
                start=days[0],
            )
            part = forecasts[forecasts["store"] == store]
            assert np.allclose(part["mean"], alone.mean)
            assert np.allclose(part["0.8"], (alone.quantiles or {})["0.8"])
            assert part["day"].tolist() == [pd.Timestamp(t) for t in alone.timestamps or []]


@pytest.mark.parametrize(
    ("frame", "more", "message"),
    [
        (SALES.rename(columns={"day": "date"}), {}, "no column day"),
        (SALES.assign(day=None), {}, "no time"),
        (SALES.assign(store=None), {}, "row 0 has no store"),
        (pd.concat([SALES, SALES.iloc[:1]]), {}, "series 'b' has the time 2024-01-02T00:00:00 twice"),
        (SALES.iloc[:2], {}, "one time tells no frequency"),
        (SALES.assign(kind=range(6)), {"frequency": "1d", "static_cols": ["kind"]}, "column kind varies"),
        (SALES, {"frequency": "1W"}, "not on the 1W grid"),
        (SALES, {"frequency": "fortnight"}, "fortnight"),
        (SALES, {"errors": "ignore"}, "errors is"),
        (SALES, {"future_df": SALES[["store", "day"]].assign(price=1)}, "the frame has not: 'price'"),
        (SALES.assign(price=1), {"future_df": SALES[["store", "day"]].assign(price=1)}, "no row for step 1"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_frame_is_said(client: Sheaf, frame: Any, more: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        client.time_series.forecast_frame(frame, **{"horizon": 1, **COLUMNS, **more})
    assert Watched.asked == []


def test_what_is_no_frame_or_no_keyword_is_refused(client: Sheaf) -> None:
    with pytest.raises(TypeError, match="DataFrame"):
        client.time_series.forecast_frame({"day": []}, horizon=1, **COLUMNS)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="horizn"):
        client.time_series.forecast_frame(SALES, horizn=1, **COLUMNS)
    with pytest.raises(TypeError, match="needs the keyword horizon"):
        client.time_series.forecast_frame(SALES, **COLUMNS)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"timeout": value} for value in ("5", True, 0, -1, float("nan"))),
        *({"horizon": value} for value in ("2", 2.0, 0, True, None)),
        *({"quantile_levels": value} for value in (0.5, "0.5", [], [0.5, 0.5], [1.0], np.array([0.1, 1.0]))),
        {"num_samples": "2"},
        {"seed": 1.5},
        {"model": "no name"},
        {"extra_headers": {"x-a": 5}},
    ],
    ids=repr,
)
def test_what_forecast_refuses_is_refused_alike_before_anything_begins(client: Sheaf, wrong: Any) -> None:
    given: Any = {"horizon": 1, **wrong}
    with pytest.raises(SheafError) as alone:
        client.time_series.forecast(
            history=[1.0],
            frequency="1d",
            output_mode="quantiles" if "quantile_levels" in wrong else "mean",
            **given,
        )
    with pytest.raises(SheafError) as framed:
        client.time_series.forecast_frame(SALES, **given, **COLUMNS, errors="return")
    assert type(framed.value) is type(alone.value)
    assert str(framed.value) == str(alone.value)
    assert Watched.asked == []


@pytest.mark.parametrize(
    "levels",
    [
        np.array([0.2, 0.8]),
        pd.Series([0.2, 0.8], index=["x", "y"]),
        pl.Series([0.2, 0.8]),
        (level for level in (0.2, 0.8)),
        {0.2: "low", 0.8: "high"}.keys(),
    ],
    ids=lambda levels: type(levels).__name__,
)
def test_levels_and_steps_come_in_every_form_that_forecast_takes(client: Sheaf, levels: Any) -> None:
    forecasts = client.time_series.forecast_frame(
        SALES, horizon=np.int64(2), quantile_levels=levels, timeout=np.float32(30), **COLUMNS
    )
    assert list(forecasts.columns) == ["store", "day", "mean", "0.2", "0.8"]
    assert forecasts["0.8"].tolist() == [3.8, 3.8, 30.8, 30.8]


def test_columns_that_do_not_change_are_a_list(client: Sheaf) -> None:
    with pytest.raises(ArgumentError, match=r"as in \['kind'\]"):
        client.time_series.forecast_frame(SALES, horizon=1, static_cols="kind", **COLUMNS)


@pytest.mark.parametrize("zone", ["Europe/Berlin", ZoneInfo("Europe/Berlin")], ids=["named", "zoneinfo"])
@pytest.mark.parametrize(("spacing", "periods"), [("1D", 3), ("1h", 50)])
def test_times_in_a_zone_keep_it_over_a_change_of_the_clocks(
    client: Sheaf, zone: Any, spacing: str, periods: int
) -> None:
    times = pd.date_range("2024-03-28", periods=periods + 30, freq=spacing, tz=zone)
    frame = pd.DataFrame({"t": times[:periods], "y": range(periods)})
    forecasts = client.time_series.forecast_frame(frame, time_col="t", target_col="y", horizon=30)
    assert forecasts["t"].tolist() == times[periods:].tolist()
    assert str(forecasts["t"].dt.tz) == "Europe/Berlin"


# ---- the calendar

PANDAS = {
    "10s": "10s", "1min": "1min", "5min": "5min", "10min": "10min", "15min": "15min", "30min": "30min",
    "1h": "1h", "4h": "4h", "6h": "6h", "12h": "12h", "1d": "1D", "1B": "1B", "1W": "W-SUN", "1M": "MS",
    "1Q": "QS", "1Y": "YS",
}  # fmt: skip


@pytest.mark.parametrize("frequency", list(Frequency), ids=lambda frequency: frequency.value)
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_every_frequency_is_inferred_and_walked_as_pandas_does(
    frequency: Frequency, zone: str | None
) -> None:
    held = pd.date_range("2024-03-28", periods=60, freq=PANDAS[frequency.value], tz=zone and ZoneInfo(zone))
    times = [time.to_pydatetime() for time in held]
    assert infer_frequency([times[:5], times]) is frequency
    counted = [to_grid(frequency, time) for time in times]
    grid = Grid.of(frequency, counted)
    assert [grid.place(time) for time in counted] == list(range(60))
    walked = [grid.at(step) for step in range(60)]
    assert [from_grid(frequency, time, times[0].tzinfo) for time in walked] == times


@pytest.mark.parametrize(("frequency", "offset"), [("1M", "ME"), ("1Q", "QE"), ("1Y", "YE")])
def test_ends_of_months_stay_ends_of_months(frequency: str, offset: str) -> None:
    times = [time.to_pydatetime() for time in pd.date_range("2023-11-30", periods=20, freq=offset)]
    kind = Frequency(frequency)
    assert infer_frequency([times]) is kind
    assert [Grid.of(kind, times[:1]).at(step) for step in range(20)] == times


def test_a_spacing_that_is_none_of_ours_is_refused() -> None:
    start = datetime(2024, 1, 1)
    with pytest.raises(ValueError, match="0:07:00 long"):
        infer_frequency([[start + timedelta(minutes=7 * step) for step in range(5)]])


def test_days_without_weekends_are_business_days_only_where_weeks_are_crossed() -> None:
    monday = datetime(2024, 1, 1)
    assert infer_frequency([[monday, monday + timedelta(days=1)]]) is Frequency.DAILY
    week = [monday + timedelta(days=day) for day in (0, 1, 2, 3, 4, 7)]
    assert infer_frequency([week]) is Frequency.BUSINESS_DAILY
    assert Grid(Frequency.BUSINESS_DAILY, monday).place(monday + timedelta(days=5)) is None
