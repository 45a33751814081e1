"""Every dtype of pandas, polars, numpy and pyarrow as a column of a table and as labels."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

from sheaf_client.errors import InvalidRequestError
from sheaf_client.operations.tabular import PREDICT
from tests.unit.built import build

LIBRARIES: dict[str, Any] = {
    "pandas": pd.DataFrame,
    "polars": pl.DataFrame,
    "pyarrow": pa.table,
    "numpy": pd.DataFrame,
}
INTS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
#: Columns of two whole numbers, 1 and 0, in every type that has them.
WHOLE: list[Any] = [
    *(np.array([1, 0], dtype) for dtype in (*INTS, "bool", "float16", "float32", "float64", "longdouble")),
    *(pd.Series([1, 0], dtype=dtype) for dtype in (*INTS, "Int8", "Int64", "UInt16", "UInt64", "boolean")),
    *(
        pd.Series([1, 0], dtype=dtype)
        for dtype in ("Float32", "Float64", "int64[pyarrow]", "double[pyarrow]")
    ),
    pd.Series([True, False], dtype="bool[pyarrow]"),
    pd.Series([True, False], dtype=object),
    pd.Series([np.int64(1), np.bool_(False)], dtype=object),
    pd.Series([Decimal(1), Fraction(0)], dtype=object),
    pd.Series(pd.Categorical([1, 0])),
    pd.Series(pd.Categorical([True, False])),
    pd.Series(pd.arrays.SparseArray([1, 0])),
    *(pl.Series([1, 0], dtype=dtype) for dtype in (pl.Int8, pl.Int64, pl.UInt8, pl.UInt64, pl.Float32)),
    pl.Series([True, False]),
    pl.Series([Decimal(1), Decimal(0)]),
    pa.array([1, 0]),
    pa.array([True, False]),
    pa.array([1, 0]).dictionary_encode(),
    pa.array([Decimal(1), Decimal(0)]),
]
TEXT: list[Any] = [
    np.array(["a", "b"]),
    np.array(["a", "b"], dtype=object),
    pd.Series(["a", "b"], dtype=object),
    pd.Series(["a", "b"], dtype="string"),
    pd.Series(["a", "b"], dtype="string[pyarrow]"),
    pd.Series(["a", "b"], dtype=pd.ArrowDtype(pa.large_string())),
    pd.Series(pd.Categorical(["a", "b"])),
    pl.Series(["a", "b"]),
    pl.Series(["a", "b"], dtype=pl.Categorical),
    pl.Series(["a", "b"], dtype=pl.Enum(["a", "b"])),
    pa.array(["a", "b"]),
    pa.array(["a", "b"]).dictionary_encode(),
]
NOW = dt.datetime(2024, 5, 1, 12)
ODD: list[tuple[Any, str]] = [
    (np.array([NOW, NOW], "datetime64[ns]"), "dates"),
    (np.array([1, 2], "timedelta64[ns]"), "durations"),
    (np.array([b"a", b"b"]), "bytes"),
    (np.array([1j, 2j]), "values of type complex"),
    (pd.Series([NOW, None]), "dates"),
    (pd.Series([NOW, NOW]).dt.tz_localize("Europe/Rome"), "dates"),
    (pd.Series([NOW.date(), NOW.date()]), "dates"),
    (pd.Series(pd.period_range("2024", periods=2, freq="D")), "dates"),
    (pd.Series(pd.Categorical([NOW, NOW])), "dates"),
    (pd.Series(pd.to_timedelta([1, 2], "h")), "durations"),
    (pd.Series([NOW.time(), NOW.time()]), "times of day"),
    (pd.Series(["a", NOW], dtype=object), "dates"),
    (pd.Series([{1}, {2}]), "values of type set"),
    (pl.Series([NOW, NOW]), "dates"),
    (pl.Series([NOW.date(), None]), "dates"),
    (pl.Series([NOW.time(), None]), "times of day"),
    (pl.Series([dt.timedelta(1), None]), "durations"),
    (pa.array([NOW.date(), None]), "dates"),
]


def called(value: Any) -> str:
    value = value[0] if isinstance(value, tuple) else value
    kind = getattr(value, "dtype", getattr(value, "type", ""))
    return f"{type(value).__module__.partition('.')[0]} {kind}"


def framed(column: Any) -> Any:
    """A frame of a number and of this column."""
    return LIBRARIES[type(column).__module__.partition(".")[0]]({"size": [0.5, 1.5], "kind": column})


def faults(**fields: Any) -> list[tuple[str, str, str]]:
    with pytest.raises(InvalidRequestError) as caught:
        build(PREDICT, **fields)
    return [(fault.code, fault.path, fault.message) for fault in caught.value.errors]


def labels(context_y: Any, **fields: Any) -> list[Any]:
    held = build(PREDICT, context_X=[[0.5], [1.5]], context_y=context_y, query_X=[[1.0]], **fields).context_y
    return [(type(label), label) for label in held]


def label_faults(context_y: Any, **fields: Any) -> list[tuple[str, str, str]]:
    rows = [[float(i)] for i in range(max(2, len(context_y)))]
    return faults(context_X=rows, context_y=context_y, query_X=rows, **fields)


@pytest.mark.parametrize("column", WHOLE, ids=called)
def test_numbers_and_flags_of_every_type_are_columns(column: Any) -> None:
    frame = framed(column)
    held = build(PREDICT, context_X=frame, context_y=["a", "b"], query_X=frame)
    assert held.context_X == held.query_X == [[0.5, 1], [1.5, 0]]


@pytest.mark.parametrize("column", WHOLE, ids=called)
def test_numbers_and_flags_of_every_type_are_classes(column: Any) -> None:
    assert labels(column) == [(int, 1), (int, 0)]
    assert [label for _, label in labels(column, task="regression")] == [1, 0]


@pytest.mark.parametrize("column", TEXT, ids=called)
def test_text_of_every_type_is_a_column_and_a_class(column: Any) -> None:
    frame = framed(column)
    held = build(PREDICT, context_X=frame, context_y=column, query_X=frame)
    assert held.context_X == held.query_X == [[0.5, "a"], [1.5, "b"]]
    assert held.context_y == ["a", "b"]
    assert held.categorical_feature_indices == [1]


@pytest.mark.parametrize(("column", "what"), ODD, ids=called)
def test_what_no_table_holds_is_refused_once_with_its_name(column: Any, what: str) -> None:
    frame = framed(column)
    [(code, path, message)] = faults(context_X=frame, context_y=[1, 0], query_X=frame)
    assert (code, path.rpartition("/")[0].rpartition("/")[0]) == ("wrong_type", "/context_X")
    assert message.startswith(f"Column 'kind' holds {what}: give ")
    [(code, path, message)] = faults(context_X=[[1.0], [2.0]], context_y=column, query_X=[[1.0]])
    assert code == "wrong_type"
    assert path.startswith("/context_y")
    assert "missing" in message or message.startswith(f"The labels hold {what}: give ")


def test_each_column_is_refused_once_and_all_at_once() -> None:
    frame = pd.DataFrame({"sold": [NOW] * 40, "area": 1.0, "took": pd.Timedelta("1h")})
    found = faults(context_X=frame, context_y=[0, 1] * 20, query_X=frame)
    assert [(path, message.split(":")[0]) for _, path, message in found] == [
        ("/context_X/0/0", "Column 'sold' holds dates"),
        ("/context_X/0/2", "Column 'took' holds durations"),
    ]
    rows = frame.to_numpy()
    assert [path for _, path, _ in faults(context_X=rows, context_y=[0, 1] * 20, query_X=rows)] == [
        "/context_X/0/0",
        "/context_X/0/2",
    ]
    [(_, path, message)] = faults(context_id="context-1", query_X=[[1.0, 2.0], [1.0, NOW]])
    assert (path, message.split(":")[0]) == ("/query_X/1/1", "Column 1 holds dates")


@pytest.mark.parametrize(
    "missing",
    [None, np.nan, pd.NA, pd.NaT, Decimal("NaN"), np.float32("nan"), np.datetime64("NaT")],
    ids=lambda value: f"{type(value).__name__} {value}",
)
def test_what_is_missing_is_none_in_cells_and_refused_once_in_labels(missing: Any) -> None:
    frame = pd.DataFrame({"kind": pd.Series(["a", missing, 1.5], dtype=object), "none": missing})
    for rows in (frame, frame.to_numpy(), frame.to_numpy().tolist()):
        held = build(PREDICT, context_X=rows, context_y=[0, 1, 1], query_X=rows)
        assert held.context_X == [["a", None], [None, None], [1.5, None]]
    for task in ("classification", "regression"):
        for given in ([1, missing, 2, missing], pd.Series([1, missing, 2, missing], dtype=object)):
            [(code, path, message)] = label_faults(given, task=task)
            assert (code, path) == ("wrong_type", "/context_y/1")
            assert message.startswith("2 labels are missing, the first of row 1")


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1.0, np.nan]),
        pd.Series([1, None], dtype="Int64"),
        pd.Series([True, None], dtype="boolean"),
        pd.Series(["a", None], dtype="string[pyarrow]"),
        pd.Series(pd.Categorical(["a", None])),
        pl.Series([1, None]),
        pl.Series([True, None]),
        pl.Series(["a", None], dtype=pl.Enum(["a"])),
        pa.array([1.0, None]),
        np.array([1.0, np.nan]),
        torch.tensor([1.0, float("nan")]),
    ],
    ids=called,
)
def test_one_missing_label_of_every_type_is_told(column: Any) -> None:
    [(_, path, message)] = label_faults(column)
    assert path == "/context_y/1"
    assert message == "1 label is missing, that of row 1 (counted from 0): leave such rows out."


def test_labels_may_be_one_column() -> None:
    flags = np.array([True, False])
    shapes = [flags[:, None], torch.tensor([[True], [False]]), [[1], [0]], [(1,), (0,)], pd.Index([1, 0])]
    frames = [library({"y": [True, False]}) for library in LIBRARIES.values()]
    for held in (*shapes, *frames, pl.DataFrame({"y": [1, 0]}).to_numpy(), torch.tensor([True, False])):
        assert labels(held) == [(int, 1), (int, 0)]


def test_several_columns_of_labels_are_refused_once() -> None:
    for library in LIBRARIES.values():
        assert label_faults(library({"y": [1, 0], "z": [1, 0]})) == [
            ("wrong_type", "/context_y", "Must be one column of labels; the frame has 2: 'y', 'z'.")
        ]
    assert label_faults(np.zeros((2, 3))) == [
        ("wrong_type", "/context_y", "Must be one label to a row; each row has 3.")
    ]


def test_floats_stay_floats_where_they_are_no_whole_numbers_or_quantities() -> None:
    assert labels([1.5, 2.0]) == [(float, 1.5), (int, 2)]
    assert labels([2.0**60, 1e300]) == [(float, 2.0**60), (float, 1e300)]
    assert labels(np.array([1.0, 2.5]), task="regression") == [(float, 1.0), (float, 2.5)]
    assert labels(["a", 1.0]) == [(str, "a"), (int, 1)]


def test_bins_are_text() -> None:
    bins = pd.Series(pd.cut([0.5, 1.5], [0, 1, 2]))
    assert labels(bins) == [(str, "(0, 1]"), (str, "(1, 2]")]
    held = build(PREDICT, context_X=framed(bins), context_y=[0, 1], query_X=framed(bins))
    assert (held.context_X[0][1], held.categorical_feature_indices) == ("(0, 1]", [1])
