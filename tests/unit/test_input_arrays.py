"""Arrays, series, frames and times of every library, in the keywords of a client."""

from __future__ import annotations

import subprocess
import sys
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
import xarray as xr

from sheaf_client._inputs import as_body, plain
from sheaf_client.contracts.base import BaseRequest
from sheaf_client.errors import InvalidRequestError
from sheaf_client.operations.point_cloud import INFER as INFER_POINTS
from sheaf_client.operations.tabular import PREDICT
from sheaf_client.operations.time_series import FORECAST
from tests.unit.built import build


@pytest.mark.parametrize(
    "history",
    [
        np.array([1.0, np.nan, 3.0]),
        np.array([1.0, np.nan, 3.0], dtype=np.float32),
        torch.tensor([1.0, float("nan"), 3.0], requires_grad=True),
        pd.Series([1.0, None, 3.0]),
        pd.Series([1, None, 3], dtype="Int64"),
        pl.Series([1.0, None, 3.0]),
        pa.array([1.0, None, 3.0]),
        pa.chunked_array([[1.0, None], [3.0]]),
        xr.DataArray([1.0, np.nan, 3.0]),
        (1.0, None, 3),
    ],
    ids=lambda value: f"{type(value).__module__}.{type(value).__name__}",
)
def test_a_series_of_any_library_is_a_list_with_none_for_what_is_missing(history: Any) -> None:
    request = build(FORECAST, history=history, horizon=1, frequency="1h")
    assert request.history == [1.0, None, 3.0]


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}),
        pl.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}),
        pa.table({"a": [1.0, 2.0], "b": [3.0, 4.0]}),
        np.array([[1.0, 3.0], [2.0, 4.0]]),
    ],
    ids=["pandas", "polars", "pyarrow", "numpy"],
)
def test_a_frame_is_rows_where_the_field_is_a_list(frame: Any) -> None:
    assert build(FORECAST, history=frame, horizon=1, frequency="1h").history == [[1.0, 3.0], [2.0, 4.0]]


@pytest.mark.parametrize(
    "library", [pd.DataFrame, pl.DataFrame, pa.table], ids=["pandas", "polars", "pyarrow"]
)
def test_a_frame_is_columns_where_the_field_is_a_mapping(library: Any) -> None:
    frame = library({"promotion": [0, 1, 1], "weekday": ["mo", "tu", "we"]})
    request = build(FORECAST, history=[1, 2, 3], past_covariates=frame, horizon=1, frequency="1d")
    assert request.past_covariates == {"promotion": [0, 1, 1], "weekday": ["mo", "tu", "we"]}


def test_a_frame_of_mixed_columns_keeps_each_values_own_type() -> None:
    frame = pd.DataFrame(
        {
            "age": [31, 47],
            "city": pd.Categorical(["Rome", "Oslo"]),
            "income": pd.array([None, 2], dtype="Int64"),
        }
    )
    request = build(PREDICT, context_X=frame, context_y=pd.Series(["yes", "no"]), query_X=frame.iloc[:1])
    assert request.context_X == [[31, "Rome", None], [47, "Oslo", 2]]
    assert request.context_y == ["yes", "no"]


@pytest.mark.parametrize(
    "times",
    [
        pd.date_range("2024-01-01", periods=2, freq="h"),
        pd.Series(pd.date_range("2024-01-01", periods=2, freq="h")),
        pd.period_range("2024-01-01", periods=2, freq="h"),
        pl.Series([datetime(2024, 1, 1, 0), datetime(2024, 1, 1, 1)]),
        np.array(["2024-01-01T00", "2024-01-01T01"], dtype="datetime64[ns]"),
        ["2024-01-01", np.datetime64("2024-01-01T01")],
        [date(2024, 1, 1), datetime(2024, 1, 1, 1)],
        [pd.Timestamp("2024-01-01"), np.datetime64("2024-01-01T01", "ns")],
        [pd.Period("2024-01-01T00", "h"), datetime(2024, 1, 1, 1)],
        xr.DataArray(np.array(["2024-01-01T00", "2024-01-01T01"], dtype="datetime64[ns]")),
    ],
    ids=["index", "series", "periods", "polars", "numpy", "text", "date", "scalars", "period", "xarray"],
)
def test_times_of_any_library_are_datetimes(times: Any) -> None:
    request = build(FORECAST, history=[1, 2], timestamps=times, horizon=1, frequency="1h")
    assert [t.isoformat() for t in request.timestamps] == ["2024-01-01T00:00:00", "2024-01-01T01:00:00"]


@pytest.mark.parametrize(
    "start",
    [
        pd.Timestamp("2024-01-01"),
        np.datetime64("2024-01-01", "ns"),
        np.datetime64("2024-01-01"),
        pd.Period("2024-01-01", "D"),
        datetime(2024, 1, 1),
        date(2024, 1, 1),
        "2024-01-01",
    ],
    ids=lambda value: f"{type(value).__module__}.{type(value).__name__}",
)
def test_one_time_of_any_library_is_a_datetime(start: Any) -> None:
    request = build(FORECAST, history=[1, 2], start=start, horizon=1, frequency="1h")
    assert request.start == datetime(2024, 1, 1)
    assert type(request.start) is datetime


def test_dates_of_frames_and_of_other_columns_are_times() -> None:
    days = [date(2024, 1, 1), date(2024, 1, 2)]
    for times in (pl.Series(days), pd.Series(days), np.array(days), pd.Index(days), (day for day in days)):
        request = build(FORECAST, history=[1, 2], timestamps=times, horizon=1, frequency="1d")
        assert request.timestamps == [datetime(2024, 1, 1), datetime(2024, 1, 2)]


def test_a_long_list_of_numbers_is_left_alone() -> None:
    numbers = [1.0] * 10
    assert plain(numbers) is numbers


# ---- tensors


@pytest.mark.parametrize(
    "points",
    [
        np.zeros((5, 3), dtype=np.float64),
        torch.zeros((5, 3), requires_grad=True),
        torch.zeros((5, 3), dtype=torch.bfloat16),
        pd.DataFrame(np.zeros((5, 3))),
        xr.DataArray(np.zeros((5, 3))),
        [[0.0, 0.0, 0.0]] * 5,
        np.zeros((5, 3), dtype="<f4").tobytes(),
    ],
    ids=["numpy", "torch", "bfloat16", "pandas", "xarray", "lists", "bytes"],
)
def test_a_tensor_is_taken_from_any_array(points: Any) -> None:
    request = build(INFER_POINTS, points=points, n_points=5)
    assert request.points.dtype == np.float32
    assert request.points.shape == (5, 3)


def test_a_field_given_under_both_names_is_refused() -> None:
    with pytest.raises(TypeError, match="one field"):
        build(INFER_POINTS, points=np.zeros((1, 3)), points_b64="AAAA", n_points=1)


def test_a_tensor_of_the_wrong_shape_names_its_field() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        build(INFER_POINTS, points=np.zeros((5, 2)), n_points=5)
    assert [(f.code, f.path) for f in caught.value.errors] == [("bytes_match_shape", "/points_b64")]


# ---- what is not there


def test_unknown_keywords_are_left_to_the_contract() -> None:
    assert as_body(FORECAST.request, {"horizn": 3}) == {"horizn": 3}
    with pytest.raises(InvalidRequestError) as caught:
        build(FORECAST, history=[1.0], horizon=1, frequency="1h", horizn=3)
    assert [f.code for f in caught.value.errors] == ["unknown_field"]


def test_nothing_is_imported_to_recognise_what_is_not_there() -> None:
    code = (
        "import sys; from sheaf_client.operations.time_series import FORECAST\n"
        "from sheaf_client._resource import build_request\n"
        "build_request(FORECAST, 'm', dict(history=[1.0], horizon=1, frequency='1h'))\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert (
        loaded & {"pandas", "polars", "pyarrow", "torch", "xarray", "ase", "pymatgen", "Bio", "rdkit", "PIL"}
        == set()
    )
    assert issubclass(FORECAST.request, BaseRequest)
