"""Columns of data frames: names that clash, types that are kept, values that no covariate can have."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from sheaf.spec import ModelSpec
from sheaf_client import InvalidFrameError, Sheaf, SheafError
from sheaf_client.errors import InvalidRequestError
from tests.clients.test_forecast_frame import Watched

DAYS = pd.date_range("2024-01-01", periods=20)
KNOWN = 14


@pytest.fixture(scope="module")
def client() -> Iterator[Sheaf]:
    with Sheaf.local(["statsforecast"], model="statsforecast") as held:
        yield held


@pytest.fixture
def watched() -> Iterator[Sheaf]:
    Watched.asked = []
    with Sheaf.local([ModelSpec(name="watched", backend_cls=Watched)], model="watched") as held:
        yield held


def forecast(client: Sheaf, frame: Any, horizon: int = 20 - KNOWN, **more: Any) -> Any:
    options: dict[str, Any] = {"id_col": "id", "time_col": "t", "target_col": "y", "quantile_levels": None}
    return client.time_series.forecast_frame(frame, horizon=horizon, **{**options, **more})


def table(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"id": "a", "t": DAYS, "y": range(20), **columns})


# ---- names


def doubled(name: str) -> pd.DataFrame:
    frame = table(x=1.0)
    return pd.concat([frame, frame[[name]]], axis=1)


@pytest.mark.parametrize("name", ["id", "t", "y", "x"])
def test_two_columns_of_one_name_are_refused(client: Sheaf, name: str) -> None:
    with pytest.raises(InvalidFrameError, match=f"the frame has two columns of one name: '{name}'"):
        forecast(client, doubled(name))
    arrow = pa.Table.from_arrays(
        [pa.array(doubled(name).iloc[:, i]) for i in range(5)], [*doubled(name).columns]
    )
    with pytest.raises(ValueError, match=f"one name: '{name}'"):
        forecast(client, arrow)


def test_two_columns_of_one_name_in_the_future_are_refused(client: Sheaf) -> None:
    with pytest.raises(ValueError, match="future_df has two columns of one name: 'x'"):
        forecast(client, table(x=1.0).head(KNOWN), future_df=doubled("x").drop(columns="y").tail(6))
    with pytest.raises(ValueError, match="one name: '1'"):
        forecast(client, table().assign(**{"1": 0}).rename(columns={"y": 1}), target_col="1")


@pytest.mark.parametrize("make", [lambda frame: frame, pl.from_pandas], ids=["pandas", "polars"])
@pytest.mark.parametrize(
    ("names", "more", "message"),
    [
        ({"t": "mean"}, {"time_col": "mean"}, "time_col is 'mean'"),
        ({"id": "mean"}, {"id_col": "mean"}, "id_col is 'mean'"),
        ({"id": "0.1"}, {"id_col": "0.1", "quantile_levels": [0.1]}, "id_col is '0.1'"),
        ({}, {"id_col": "t"}, "time_col and id_col are one column, 't'"),
        ({}, {"target_col": "t"}, "time_col and target_col are one column, 't'"),
        ({}, {"target_col": "id"}, "target_col and id_col are one column, 'id'"),
        ({}, {"static_cols": ["y"]}, r"target_col and static_cols\[0\] are one column, 'y'"),
        ({}, {"static_cols": ["x", "x"]}, r"static_cols\[0\] and static_cols\[1\] are one column, 'x'"),
    ],
)
def test_columns_of_two_roles_are_refused(
    client: Sheaf, make: Any, names: dict[str, str], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidFrameError, match=message):
        forecast(client, make(table(x=1.0).rename(columns=names)), **more)


def test_names_of_quantile_columns_that_are_not_made_are_free(client: Sheaf) -> None:
    out = forecast(client, table().rename(columns={"id": "0.1"}), id_col="0.1", quantile_levels=[0.5])
    assert list(out.columns) == ["0.1", "t", "mean", "0.5"]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("y", "has the column to forecast, 'y'"),
        ("kind", "has the static column 'kind'"),
        ("z", "has not: 'z'"),
    ],
)
def test_the_future_has_known_covariates_alone(client: Sheaf, column: str, message: str) -> None:
    future = table().drop(columns="y").tail(6).assign(**{column: 1})
    with pytest.raises(InvalidFrameError, match=message):
        forecast(client, table(kind=1).head(KNOWN), future_df=future, static_cols=["kind"])


def test_a_frame_with_its_times_as_index_is_told_of_it(client: Sheaf) -> None:
    with pytest.raises(InvalidFrameError, match=r"no column t; .* it is the index: df\.reset_index"):
        forecast(client, table().set_index("t"))


def test_columns_that_are_numbered_can_be_named(client: Sheaf) -> None:
    frame = table().rename(columns={"id": 0, "t": 1, "y": 2})
    out = forecast(client, frame.head(KNOWN), id_col=0, time_col=1, target_col=2)
    assert list(out.columns) == [0, 1, "mean"]
    assert len(out.merge(frame, on=[0, 1])) == 6


def test_covariates_of_one_call_have_each_column_once(watched: Sheaf) -> None:
    past = pd.concat([pd.DataFrame({"x": [1.0, 2.0]}), pd.DataFrame({"x": [3.0, 4.0]})], axis=1)
    with pytest.raises(InvalidRequestError, match="'x' is there twice") as caught:
        watched.time_series.forecast(history=[1.0, 2.0], horizon=1, frequency="1d", past_covariates=past)
    assert caught.value.errors[0].path == "/past_covariates"
    flags = pl.DataFrame({"x": [True, False]})
    watched.time_series.forecast(history=[1.0, 2.0], horizon=1, frequency="1d", past_covariates=flags)
    assert Watched.asked[-1].past_covariates == {"x": [1, 0]}


# ---- types: what comes back joins with what went in

_TEXT = pd.Series(DAYS.strftime("%Y-%m-%d"))
PANDAS_TIMES = {
    **{unit: pd.Series(DAYS.as_unit(unit)) for unit in ("s", "ms", "us", "ns")},  # type: ignore[arg-type]
    "zone": pd.Series(pd.date_range("2024-03-25", periods=20, tz="Europe/Berlin")),
    "hours": pd.Series(pd.date_range("2024-03-30", periods=20, freq="6h", tz="America/New_York")),
    "months": pd.Series(pd.period_range("2023-01", periods=20, freq="M")),
    "weeks": pd.Series(pd.period_range("2023-01", periods=20, freq="W-WED")),
    "quarters": pd.Series(pd.period_range("2018-01", periods=20, freq="Q")),
    "dates": pd.Series([day.date() for day in DAYS]),
    "text": _TEXT,
    "clock": pd.Series(DAYS.strftime("%Y-%m-%d %H:%M")),
    "utc": pd.Series(DAYS.strftime("%Y-%m-%dT%H:%M:%SZ")),
    "string": _TEXT.astype("string[pyarrow]"),
    "arrow": pd.Series(DAYS.tz_localize("UTC")).astype(pd.ArrowDtype(pa.timestamp("us", "UTC"))),
}
PANDAS_IDS = {
    "category": pd.Series(["a"] * 20, dtype="category"),
    "numbers": pd.Series([1] * 20, dtype="category"),
    "Int64": pd.Series([5] * 20, dtype="Int64"),
    "int8": pd.Series([5] * 20, dtype="int8"),
    "string": pd.Series(["a"] * 20, dtype="string[pyarrow]"),
    "bool": pd.Series([True] * 20),
    "period": pd.Series([pd.Period("2024-01", "M")] * 20),
    "time": pd.Series([pd.Timestamp("2024-01-01", tz="Europe/Berlin")] * 20),
    "date": pd.Series([date(2024, 1, 1)] * 20),
    "tuple": pd.Series([(1, "a")] * 20),
}


@pytest.mark.parametrize(
    "columns",
    [*({"t": times} for times in PANDAS_TIMES.values()), *({"id": ids} for ids in PANDAS_IDS.values())],
    ids=[*(f"times {name}" for name in PANDAS_TIMES), *(f"ids {name}" for name in PANDAS_IDS)],
)
def test_ids_and_times_of_pandas_keep_their_types_and_join(client: Sheaf, columns: dict[str, Any]) -> None:
    frame = table(**columns)
    out = forecast(client, frame.head(KNOWN))
    assert (out["id"].dtype, out["t"].dtype) == (frame["id"].dtype, frame["t"].dtype)
    joined = out.merge(frame, on=["id", "t"])
    assert joined["y"].tolist() == list(range(KNOWN, 20))
    assert joined["mean"].tolist() == pytest.approx(joined["y"].tolist(), abs=1e-3)


_TIMES = pl.Series([day.to_pydatetime() for day in DAYS])
POLARS_TIMES = {
    "ms": _TIMES.cast(pl.Datetime("ms")),
    "ns": _TIMES.cast(pl.Datetime("ns")),
    "zone": _TIMES.cast(pl.Datetime("ms")).dt.replace_time_zone("Europe/Berlin"),
    "date": _TIMES.cast(pl.Date),
    "text": _TIMES.dt.to_string("%Y-%m-%d"),
}
POLARS_IDS = {
    "categorical": pl.Series(["a"] * 20, dtype=pl.Categorical),
    "enum": pl.Series(["a"] * 20, dtype=pl.Enum(["b", "a"])),
    "int16": pl.Series([3] * 20, dtype=pl.Int16),
    "date": pl.Series([date(2024, 1, 1)] * 20),
}


@pytest.mark.parametrize(
    "columns",
    [*({"t": times} for times in POLARS_TIMES.values()), *({"id": ids} for ids in POLARS_IDS.values())],
    ids=[*(f"times {name}" for name in POLARS_TIMES), *(f"ids {name}" for name in POLARS_IDS)],
)
def test_ids_and_times_of_polars_keep_their_types_and_join(client: Sheaf, columns: dict[str, Any]) -> None:
    frame = pl.DataFrame({"id": ["a"] * 20, "t": _TIMES, "y": range(20)} | columns)
    out = forecast(client, frame.head(KNOWN))
    assert (out["id"].dtype, out["t"].dtype) == (frame["id"].dtype, frame["t"].dtype)
    assert out.join(frame, on=["id", "t"])["y"].to_list() == list(range(KNOWN, 20))


def test_ids_and_times_of_pyarrow_keep_their_types_and_join(client: Sheaf) -> None:
    times = pa.array([day.to_pydatetime() for day in DAYS], pa.timestamp("ms", "Europe/Berlin"))
    frame = pa.table({"id": pa.array([1] * 20, pa.int16()), "t": times, "y": range(20)})
    out = forecast(client, frame.slice(0, KNOWN))
    assert (out["id"].type, out["t"].type) == (frame["id"].type, frame["t"].type)
    assert out.join(frame, ["id", "t"], join_type="inner").num_rows == 6


def test_dates_become_times_where_the_steps_are_shorter_than_a_day(client: Sheaf) -> None:
    frame = pd.DataFrame({"t": [date(2024, 1, 1), date(2024, 1, 2)], "y": [1.0, 2.0]})
    out = forecast(client, frame, 1, id_col=None, frequency="12h", errors="return")
    assert "2024-01-01T12:00:00" in str(out.errors[None])
    assert out.frame["t"].tolist() == []
    with Sheaf.local([ModelSpec(name="watched", backend_cls=Watched)], model="watched") as watched:
        out = forecast(watched, frame, 2, id_col=None, frequency="12h")
    assert out["t"].tolist() == [datetime(2024, 1, 2, 12), datetime(2024, 1, 3)]


def test_forecasts_of_nothing_have_the_columns_of_forecasts(client: Sheaf) -> None:
    frame = table(id=pd.Series(["a"] * 20, dtype="category")).assign(y=None)
    out = forecast(client, frame, errors="return", quantile_levels=[0.1])
    assert out.frame.dtypes.astype(str).to_dict() == {
        "id": "category", "t": "datetime64[ns]", "mean": "float64", "0.1": "float64"
    }  # fmt: skip
    out = forecast(client, pl.from_pandas(frame), errors="return")
    assert out.frame.dtypes == [pl.Categorical, pl.Datetime("ns"), pl.Float64]


# ---- values


def test_categories_are_categories_whatever_they_hold_and_flags_are_numbers(watched: Sheaf) -> None:
    kinds = pd.Series([1, 2] * 10, dtype="category")
    forecast(watched, table(kind=kinds, flag=[True, False] * 10, price=[Decimal("1.5")] * 20).head(2), 1)
    assert Watched.asked[-1].past_covariates == {"kind": ["1", "2"], "flag": [1, 0], "price": [1.5, 1.5]}


@pytest.mark.parametrize("make", [lambda frame: frame, pl.from_pandas], ids=["pandas", "polars"])
@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            ["dry"] * 5 + [None] + ["wet"] * 14,
            "series 'a': the text column x has no value at 2024-01-06T00:00:00",
        ),
        (DAYS, "row 0 of column 'x' holds .* covariates are numbers, flags or text"),
    ],
)
def test_covariates_that_cannot_be_sent_are_refused_by_column(
    client: Sheaf, make: Any, column: Any, message: str
) -> None:
    with pytest.raises(InvalidFrameError, match=message):
        forecast(client, make(table(x=column)))


def test_a_target_of_text_is_refused_by_its_column(client: Sheaf) -> None:
    with pytest.raises(InvalidFrameError, match="row 0 of column 'y': '0' is no number to forecast"):
        forecast(client, table().astype({"y": str}))
    with pytest.raises(InvalidFrameError, match="column 'x' has numbers beside text"):
        forecast(client, table(x=[1, "a"] * 10))


def test_more_columns_than_a_model_takes_are_named_with_the_way_out(client: Sheaf) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        forecast(client, table(price=1.0, promotion=True))
    assert "the columns 'price', 'promotion': leave them out, as in df[['id', 't', 'y']]" in str(caught.value)


def test_every_refusal_of_a_frame_is_an_error_of_this_library() -> None:
    assert issubclass(InvalidFrameError, SheafError)
    assert issubclass(InvalidFrameError, ValueError)
