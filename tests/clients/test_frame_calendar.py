"""Dates of data frames against pandas' own: the next ones, or a refusal by series and date."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import polars as pl
import pytest

from sheaf.spec import ModelSpec
from sheaf_client import InvalidFrameError, Sheaf
from sheaf_client.errors import InvalidRequestError
from tests.clients.test_forecast_frame import Watched


@pytest.fixture(scope="module")
def client() -> Iterator[Sheaf]:
    with Sheaf.local(["statsforecast"], model="statsforecast") as held:
        yield held


@pytest.fixture(scope="module")
def watched() -> Iterator[Sheaf]:
    with Sheaf.local([ModelSpec(name="watched", backend_cls=Watched)], model="watched") as held:
        yield held


def forecast(client: Sheaf, frame: Any, horizon: int = 3, **more: Any) -> Any:
    options: dict[str, Any] = {"time_col": "t", "target_col": "y", "quantile_levels": None}
    return client.time_series.forecast_frame(frame, horizon=horizon, **{**options, **more})


def of(times: Any) -> pd.DataFrame:
    return pd.DataFrame({"t": times, "y": [float(place) for place in range(len(times))]})


# ---- rules of pandas

OURS = (
    "10s 1min 5min 10min 15min 30min h 4h 6h 12h D B W W-WED 7D MS ME QS QE QS-FEB QE-APR YS YE YS-JUL "
    "YE-MAR 3MS 12ME"
)
OTHERS = (
    "BME BMS BQE BQS BYE BYS SMS SME bh s 2min 2h 3h 8h 2D 10D 28D 30D 31D 91D 365D 2W 4W 13W 52W 2MS "
    "WOM-1FRI"
)
STARTS = ("2021-11-17", "2022-07-01", "2024-02-29")


@pytest.mark.parametrize("rule", OURS.split())
def test_frequencies_of_pandas_go_on_as_pandas_does(watched: Sheaf, rule: str) -> None:
    for start in STARTS:
        times = pd.date_range(start, periods=60, freq=rule)
        for named in (None, rule, pd.tseries.frequencies.to_offset(rule)):
            out = forecast(watched, of(times[:30]), 30, frequency=named)
            assert out["t"].tolist() == times[30:].tolist()


@pytest.mark.parametrize("rule", OTHERS.split())
def test_other_rules_of_pandas_are_refused_or_right(watched: Sheaf, rule: str) -> None:
    refused = 0
    for start in STARTS:
        for count in (2, 3, 4, 6, 8, 12, 30):
            times = pd.date_range(start, periods=count + 3, freq=rule)
            with pytest.raises(InvalidFrameError, match="no frequency is called"):
                forecast(watched, of(times[:count]), frequency=rule)
            try:
                out = forecast(watched, of(times[:count]))
            except InvalidFrameError:
                refused += 1
            else:
                assert out["t"].tolist() == times[count:].tolist()
    assert refused >= 12


def test_business_month_ends_are_refused_by_their_date(client: Sheaf) -> None:
    times = pd.date_range("2020-01-01", periods=30, freq="BME")
    for frequency in (None, "1M", "ME"):
        with pytest.raises(
            InvalidFrameError, match=r"2020-02-28T00:00:00 is not on the (1M|ME) grid of the last"
        ):
            forecast(client, of(times), frequency=frequency)
        with pytest.raises(InvalidFrameError, match="2020-02-28T00:00:00 is not on"):
            forecast(client, pl.from_pandas(of(times)), frequency=frequency)


@pytest.mark.parametrize(
    ("named", "times", "message"),
    [
        ("MS", pd.date_range("2024-01-31", periods=6, freq="ME"), r"2024-01-31\S+ is not on the MS"),
        ("ME", pd.date_range("2024-01-01", periods=6, freq="MS"), r"2024-01-01\S+ is not on the ME"),
        ("W-MON", pd.date_range("2024-01-07", periods=6, freq="W"), r"2024-01-07\S+ is not on the W-MON"),
        ("QS-FEB", pd.date_range("2024-01-01", periods=6, freq="QS"), r"2024-01-01\S+ is not on the QS-FEB"),
        ("1D", pd.date_range("2024-01-01", periods=6, freq="36h"), "02T12:00:00 is not on the 1D grid"),
        (timedelta(hours=4), pd.date_range("2024-01-01", periods=6, freq="h"), "01:00:00 is not on the 4:00"),
        ("24h", pd.date_range("2024-01-01", periods=6), "is called '24h'; there are 10s, .*, 1Y"),
    ],
)  # fmt: skip
def test_times_off_the_rule_that_is_named_are_refused(
    client: Sheaf, named: Any, times: Any, message: str
) -> None:
    with pytest.raises(InvalidFrameError, match=message):
        forecast(client, of(times), frequency=named)


def test_the_31st_and_the_30th_of_each_month_stay_apart(watched: Sheaf) -> None:
    for day, last in ((31, "2024-02-29"), (30, "2024-02-29"), (28, "2024-02-28")):
        known = [
            pd.Timestamp(2023, month, min(day, pd.Timestamp(2023, month, 1).days_in_month))
            for month in range(1, 13)
        ]
        assert forecast(watched, of(known), 2)["t"].astype(str).tolist() == [f"2024-01-{day}", last]


# ---- an inferred frequency is certain

DAYS = pd.date_range("2024-01-01", periods=60)
HOURS = pd.date_range("2024-01-01", periods=72, freq="h")


@pytest.mark.parametrize(
    ("times", "horizon", "message"),
    [
        (pd.date_range("2024-01-01", periods=4), 3, "fit 1d and 1B alike, which differ from 2024-01-06"),
        (pd.date_range("2023-01-31", periods=3, freq="ME"), 1, "fit 1M and BME alike, .* 2023-04-30"),
        (pd.to_datetime(["2015-02-07", "2015-03-07"]), 1, "fit 1M and 28D alike"),
        (pd.to_datetime(["2021-02-28", "2022-02-28", "2023-02-28"]), 1, "fit 1Y and day 28 of the month"),
        (pd.date_range("2024-01-01 09:00", periods=8, freq="h"), 1, "fit 1h and business hours"),
        (DAYS[DAYS.weekday != 6], 1, "1d apart, but none is of Sunday"),
        (HOURS[HOURS.hour != 3], 1, "none is of hour 03"),
        (pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-09"]), 1, "3 of the 9 steps of 1d"),
        ([datetime(2024, 1, 1)], 1, "one time tells no frequency"),
    ],
)  # fmt: skip
def test_times_that_leave_their_frequency_open_are_refused(
    watched: Sheaf, times: Any, horizon: int, message: str
) -> None:
    for frame in (of(times), pl.from_pandas(of(times))):
        with pytest.raises(InvalidFrameError, match=message + ".*`frequency`"):
            forecast(watched, frame, horizon)


@pytest.mark.parametrize("frame", [of(DAYS), of(DAYS[:1])], ids=["days", "one day"])
@pytest.mark.parametrize("count", [2, 5])
def test_a_forgotten_column_of_ids_is_told_before_a_frequency(
    client: Sheaf, frame: pd.DataFrame, count: int
) -> None:
    told = (
        "the series has the time 2024-01-01T00:00:00 twice; where the frame has several series, give `id_col`"
    )
    with pytest.raises(InvalidFrameError, match=re.escape(told)):
        forecast(client, pd.concat([frame] * count))


def test_repeated_times_are_of_their_series_alone(watched: Sheaf) -> None:
    twice, sound = (
        frame.assign(shop=shop) for frame, shop in ((pd.concat([of(DAYS)] * 5), "n"), (of(DAYS), "s"))
    )
    forecasts, errors = forecast(watched, pd.concat([twice, sound]), id_col="shop", errors="return")
    assert forecasts["shop"].unique().tolist() == ["s"]
    assert forecasts["t"].tolist() == list(pd.date_range("2024-03-01", periods=3))
    assert "series 'n' has the time 2024-01-01T00:00:00 twice" in str(errors["n"])


@pytest.mark.parametrize(
    ("times", "frequency", "advice"),
    [
        (DAYS, "h", "The frame has 60 rows for 1,417 steps of 1h; give frequency='1d'."),
        (DAYS[[0, 1, 17]], "D", "The frame has no row for this time"),
        (DAYS[[0, 2, 3]], "D", "The frame has no row for this time"),
    ],
    ids=["hours for days", "a gap of days", "a missing day"],
)
def test_most_rows_missing_are_told_as_another_frequency(
    client: Sheaf, times: pd.DatetimeIndex, frequency: str, advice: str
) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        forecast(client, of(times), frequency=frequency)
    assert advice in str(refused.value)


def test_two_rules_that_agree_over_the_horizon_leave_nothing_open(watched: Sheaf) -> None:
    monday = of(pd.date_range("2024-01-01", periods=3))
    assert forecast(watched, monday, 2)["t"].tolist() == [
        pd.Timestamp("2024-01-04"),
        pd.Timestamp("2024-01-05"),
    ]
    assert forecast(watched, monday, 3, frequency="1d")["t"].tolist()[2] == pd.Timestamp("2024-01-06")
    assert forecast(watched, monday, 3, frequency="1B")["t"].tolist()[2] == pd.Timestamp("2024-01-08")


# ---- far off, and nothing to be read


@pytest.mark.parametrize(
    ("typo", "frequency", "message"),
    [
        (datetime(2124, 1, 31), "1d", r"36,494 steps of 1d are missing between 2024-02-29\S+ and 2124-01-31"),
        (datetime(9999, 12, 31), "1h", r"steps of 1h from 2024\S+ to 9999-12-31\S+ and at most 1,000,000"),
        (datetime(1, 1, 1), "10s", "steps of 10s from 0001-01-01T00:00:00 to 2024"),
        (datetime(1, 1, 1), "1M", "24,275 steps of 1M are missing|is one of"),
        (datetime(9999, 12, 31), None, "is one of|of the"),
    ],
)  # fmt: skip
def test_times_far_off_are_refused_before_anything_is_filled_in(
    client: Sheaf, typo: datetime, frequency: str | None, message: str
) -> None:
    start = datetime(2024, 1, 1)
    spacing = timedelta(days=1)
    if frequency == "1M":
        times = [datetime(2024, month, 1) for month in range(1, 13)]
    else:
        times = [start + step * spacing for step in range(60)]
    times = sorted({*times, typo})
    for frame in (
        pd.DataFrame({"t": pd.Series(times, dtype=object), "y": 1.0}),
        pl.DataFrame({"t": times, "y": 1.0}),
    ):
        tracemalloc.start()
        try:
            with pytest.raises(InvalidFrameError, match=message):
                forecast(client, frame, frequency=frequency)
            assert tracemalloc.get_traced_memory()[1] < 2_000_000
        finally:
            tracemalloc.stop()


def test_a_forecast_past_the_year_9999_is_refused(client: Sheaf) -> None:
    times = [datetime(9990 + step, 1, 1) for step in range(10)]
    with pytest.raises(InvalidFrameError, match="past the year 9999"):
        forecast(client, pl.DataFrame({"t": times, "y": 1.0}), frequency="1Y")
    edge = [datetime(9999, 12, 31, 23, tzinfo=UTC).replace(tzinfo=pd.Timestamp("2024", tz="UTC-05:00").tz)]
    with pytest.raises(InvalidFrameError, match=r"row 0 of column 't'.* is no time"):
        forecast(client, pd.DataFrame({"t": pd.Series(edge, dtype=object), "y": 1.0}), frequency="1h")


def test_times_long_ago_are_as_good_as_any(watched: Sheaf) -> None:
    times = [datetime(1 + year, 3, 1) for year in range(8)]
    assert forecast(watched, pl.DataFrame({"t": times, "y": 1.0}), 1)["t"].to_list() == [datetime(9, 3, 1)]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("01/13/2021", r"row 1 of column 't': '01/13/2021' is no time; .* pd.to_datetime\(df\['t'\]"),
        (20210113, "row 1 of column 't': 20210113 is no time"),
        (None, "row 1 of column 't' has no time"),
        (pd.Timestamp("2021-01-13 00:00:00.000000001"), "00.000000001 is no time; .* to the microsecond"),
    ],
)  # fmt: skip
def test_what_is_no_time_is_named_by_column_and_row(client: Sheaf, value: Any, message: str) -> None:
    frame = pd.DataFrame({"t": pd.Series(["2021-01-12", value], dtype=object), "y": 1.0})
    with pytest.raises(InvalidFrameError, match=message):
        forecast(client, frame)


def test_text_that_is_no_time_in_polars_is_told_with_its_way_out(client: Sheaf) -> None:
    with pytest.raises(InvalidFrameError, match=r"row 0 of column 't'.* pl.col\(\"t\"\).str.to_datetime"):
        forecast(client, pl.DataFrame({"t": ["01/13/2021"], "y": [1.0]}))


# ---- zones


def test_naive_times_beside_aware_ones_are_refused(client: Sheaf) -> None:
    times = [datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2)]
    with pytest.raises(
        InvalidFrameError, match=r"with a zone beside times without one: 2024-01-01\S+ in row 0, 2024-01-02"
    ):
        forecast(client, pd.DataFrame({"t": pd.Series(times, dtype=object), "y": 1.0}))
    with pytest.raises(InvalidFrameError, match="with a zone beside times without one"):
        forecast(client, pl.DataFrame({"t": ["2024-01-01T00:00Z", "2024-01-02"], "y": 1.0}))


@pytest.mark.parametrize("make", [lambda frame: frame, pl.from_pandas], ids=["pandas", "polars"])
def test_a_future_with_a_zone_belongs_to_a_past_with_one(watched: Sheaf, make: Any) -> None:
    days = pd.date_range("2024-03-25", periods=10, tz="Europe/Berlin")
    past = of(days[:8]).assign(x=1.0)
    future = pd.DataFrame({"t": days[8:], "x": 2.0})
    with pytest.raises(
        InvalidFrameError, match="of the frame are with a zone, those of future_df without one"
    ):
        forecast(watched, make(past), 2, future_df=make(future.assign(t=days[8:].tz_localize(None))))
    other = future.assign(t=days[8:].tz_convert("UTC"))
    for same in (future, other):
        out = forecast(watched, make(past), 2, future_df=make(same))
        assert [str(time) for time in out["t"]] == ["2024-04-02 00:00:00+02:00", "2024-04-03 00:00:00+02:00"]


@pytest.mark.parametrize(
    "zone", ["Australia/Lord_Howe", "America/New_York", "Africa/Casablanca", "Asia/Kathmandu"]
)
@pytest.mark.parametrize("rule", ["h", "6h", "D", "W", "MS", "QS"])
def test_dates_in_zones_are_those_of_pandas_decades_ahead(watched: Sheaf, zone: str, rule: str) -> None:
    for start in ("2011-10-01", "2018-11-02", "2024-04-04"):
        times = pd.date_range(start, periods=140, freq=rule, tz=zone)
        assert forecast(watched, of(times[:40]), 100)["t"].tolist() == times[40:].tolist()


# ---- the future


@pytest.mark.parametrize("make", [lambda frame: frame, pl.from_pandas], ids=["pandas", "polars"])
@pytest.mark.parametrize(
    ("times", "message"),
    [
        (["2024-02-01", "2024-02-02", "2024-02-02"], "series 'a': future_df has 2024-02-02T00:00:00 twice"),
        (["2024-02-01", "2024-02-03"], "series 'a': future_df has no row for step 2, 2024-02-02T00:00:00"),
        (
            ["2024-02-01", "2024-02-02 12:00"],
            "series 'a': 2024-02-02T12:00:00 of future_df is not on the grid",
        ),
        (["2024-02-01", "2124-02-02"], "series 'a': future_df has no row for step 2"),
    ],
)
def test_steps_of_the_future_are_there_once_and_on_the_grid(
    client: Sheaf, make: Any, times: list[str], message: str
) -> None:
    past = of(pd.date_range("2024-01-01", periods=31)).assign(id="a", x=1.0)
    future = pd.DataFrame({"id": "a", "t": pd.to_datetime(times, format="ISO8601"), "x": 1.0})
    with pytest.raises(InvalidFrameError, match=message):
        forecast(client, make(past), 2, future_df=make(future), id_col="id")


@pytest.mark.parametrize(
    ("text", "following"),
    [
        ([f"2020-W{week:02}" for week in range(1, 54)], "2021-W01"),
        ([f"2020-W{week:02}-3" for week in range(1, 13)], "2020-W13-3"),
        ([f"2020W{week:02}" for week in range(1, 13)], "2020W13"),
        ([f"2020W{week:02}7" for week in range(1, 13)], "2020W137"),
        (["2020-W01", "2020-W01-2", "2020-W01-3"], "2020-01-02T00:00:00"),
        (["2020-01-06", "2020-01-07", "2020-01-08"], "2020-01-09"),
        (["20200106", "20200107", "20200108"], "20200109"),
        (["2020-01-06T04", "2020-01-06T05", "2020-01-06T06"], "2020-01-06T07"),
        (["2020-01-06 04:00Z", "2020-01-06 05:00Z", "2020-01-06 06:00Z"], "2020-01-06 07:00Z"),
        (["2020-01-06", "2020-01-06T01:00", "2020-01-06T02:00:00"], "2020-01-06T03:00:00"),
    ],
)
def test_times_as_text_come_back_in_their_form_or_in_full(
    watched: Sheaf, text: list[str], following: str
) -> None:
    assert forecast(watched, of(text), horizon=1, frequency=_step(text))["t"].tolist() == [following]


def test_a_time_that_a_form_cannot_say_is_written_in_full(watched: Sheaf) -> None:
    # The Mondays of weeks, forecast by days.
    days = forecast(watched, of(["2020-W01", "2020-W02"]), frequency="1d", horizon=8)["t"].tolist()
    assert days[:2] == ["2020-01-07T00:00:00", "2020-01-08T00:00:00"]
    assert days[6] == "2020-W03"


def _step(text: list[str]) -> timedelta:
    first, second = (datetime.fromisoformat(time) for time in text[:2])
    return second - first
