"""Frames of rows to learn from and to predict: names, categories and the order of the columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from sheaf_client.errors import InvalidRequestError
from sheaf_client.operations.tabular import PREDICT
from tests.unit.built import build

COLUMNS = {"age": [31.0, 47.0], "city": ["Rome", "Oslo"], "income": [1.5, None]}
TURNED = {name: COLUMNS[name] for name in ("income", "age", "city")}
LIBRARIES = pytest.mark.parametrize(
    "library", [pd.DataFrame, pl.DataFrame, pa.table], ids=["pandas", "polars", "pyarrow"]
)


def request(**fields: Any) -> Any:
    return build(PREDICT, **{"context_y": ["yes", "no"], **fields})


def faults(**fields: Any) -> list[tuple[str, str, str]]:
    with pytest.raises(InvalidRequestError) as caught:
        request(**fields)
    return [(fault.code, fault.path, fault.message) for fault in caught.value.errors]


@LIBRARIES
def test_frames_bring_names_categories_and_one_order(library: Any) -> None:
    held = request(context_X=library(COLUMNS), query_X=library(TURNED))
    assert held.context_X == [[31.0, "Rome", 1.5], [47.0, "Oslo", None]]
    assert held.query_X == held.context_X
    assert held.feature_names == ["age", "city", "income"]
    assert held.categorical_feature_indices == [1]


@pytest.mark.parametrize(
    "column",
    [
        pd.Categorical([1, 0]),
        pd.Series(["a", "b"], dtype="string"),
        pd.Series(["a", "b"], dtype=object),
        pd.Series([None, None], dtype="string"),
        pl.Series(["a", "b"], dtype=pl.Categorical),
        pl.Series(["a", "b"], dtype=pl.Enum(["a", "b"])),
        pl.Series([None, None], dtype=pl.String),
        pa.array([1, 0]).dictionary_encode(),
        pa.array(["a", "b"], pa.large_string()),
    ],
    ids=lambda value: f"{type(value).__module__.partition('.')[0]} {getattr(value, 'dtype', '')}",
)
def test_columns_of_categories_and_text_are_categories(column: Any) -> None:
    libraries = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "pyarrow": pa.table}
    library: Any = libraries[type(column).__module__.partition(".")[0]]
    frame = library({"number": [1.0, 2.0], "kind": column})
    assert request(context_X=frame, query_X=frame).categorical_feature_indices == [1]


def test_numbers_alone_have_no_categories() -> None:
    frame = pd.DataFrame({"a": [1.0, np.nan], "b": [True, False], "c": [1, 2]})
    held = request(context_X=frame, query_X=frame)
    assert held.categorical_feature_indices is None
    assert held.context_X == [[1.0, 1, 1], [None, 0, 2]]


@LIBRARIES
def test_a_query_of_other_columns_is_refused_by_their_names(library: Any) -> None:
    context = library(COLUMNS)
    lacking = library({"age": [1.0], "city": ["Rome"]})
    [(code, path, message)] = faults(context_X=context, query_X=lacking)
    assert (code, path) == ("mismatch", "/query_X")
    assert message == "Must have the columns of context_X: it lacks 'income'."
    renamed = library({"age": [1.0], "town": ["Rome"], "income": [1.0]})
    assert faults(context_X=context, query_X=renamed)[0][2] == (
        "Must have the columns of context_X: it lacks 'city' and has 'town' more."
    )
    wider = library({**{name: values[:1] for name, values in COLUMNS.items()}, "extra": [0]})
    assert faults(context_X=context, query_X=wider)[0][2].endswith("it has 'extra' more.")


def test_many_wrong_columns_are_not_all_told() -> None:
    wide = pd.DataFrame(np.zeros((2, 40)), columns=[f"c{place}" for place in range(40)])
    [(_, _, message)] = faults(context_X=wide, query_X=wide[["c0"]])
    assert message.endswith("'c10' and 29 others.")


def test_names_that_are_given_are_the_order() -> None:
    frame, names = pd.DataFrame(COLUMNS), ["income", "age", "city"]
    held = request(context_X=frame, query_X=frame, feature_names=names)
    assert held.context_X[0] == [1.5, 31.0, "Rome"]
    assert (held.feature_names, held.categorical_feature_indices) == (names, [2])
    [(code, path, message)] = faults(context_X=frame, query_X=frame, feature_names=["age", "city", "x"])
    assert (code, path) == ("mismatch", "/context_X")
    assert message == "Must have the columns of feature_names: it lacks 'x' and has 'income' more."


def test_indices_that_are_given_stay() -> None:
    frame = pd.DataFrame(COLUMNS)
    for given in ([0], [], None):
        held = request(context_X=frame, query_X=frame, categorical_feature_indices=given)
        assert held.categorical_feature_indices == given


def test_one_frame_beside_an_array_names_the_columns() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    rows = frame.to_numpy()
    assert request(context_X=frame, query_X=rows).feature_names == ["a", "b"]
    assert request(context_X=rows, query_X=frame).feature_names == ["a", "b"]
    held = build(PREDICT, context_id="context-1", query_X=frame, feature_names=["b", "a"])
    assert held.query_X == [[3.0, 1.0], [4.0, 2.0]]


def test_numbered_columns_are_no_names() -> None:
    frame = pd.DataFrame([[1.0, "x"], [2.0, "y"]])
    held = request(context_X=frame, query_X=frame)
    assert (held.feature_names, held.categorical_feature_indices) == (None, [1])
    assert held.context_X == [[1.0, "x"], [2.0, "y"]]


def test_a_column_that_is_there_twice_is_refused() -> None:
    frame = pd.DataFrame([[1.0, 2.0], [3.0, 4.0]], columns=["a", "a"])
    assert faults(context_X=frame, query_X=frame) == [
        ("unique", "/context_X", "Must have each column once; 'a' is there twice.")
    ]
