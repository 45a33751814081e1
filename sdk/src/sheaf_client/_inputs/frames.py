"""Data frames of pandas, polars and pyarrow as rows or as columns of plain values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, cast

from sheaf_client._inputs.kinds import comes_from


def is_frame(value: Any) -> bool:
    """Whether the value is a table with named columns."""
    return (
        comes_from(value, "pandas", "DataFrame")
        or comes_from(value, "polars", "DataFrame")
        or comes_from(value, "pyarrow", "Table", "RecordBatch")
    )


def named_columns(frame: Any) -> list[tuple[Any, Any]]:
    """Name and column, as their library holds them, in their order; names may be repeated."""
    if comes_from(frame, "polars", "DataFrame"):
        return [(column.name, column) for column in frame.get_columns()]
    if comes_from(frame, "pyarrow", "Table", "RecordBatch"):
        return list(zip(frame.schema.names, frame.columns, strict=True))
    return [(name, frame.iloc[:, place]) for place, name in enumerate(frame.columns)]


def repeated(names: Iterable[Any]) -> list[str]:
    """The names, as text, that are there more than once."""
    return [name for name, count in Counter(map(str, names)).items() if count > 1]


def columns_of(frame: Any) -> dict[str, list[Any]]:
    """Column name → values; a missing value is None, NaN stays. Of columns of one name, the last."""
    return {str(name): _values(column) for name, column in named_columns(frame)}


def rows_of(frame: Any) -> list[list[Any]]:
    """The rows, each a list in the order of the columns."""
    columns = [_values(column) for _, column in named_columns(frame)]
    return [list(row) for row in zip(*columns, strict=True)]


def _values(column: Any) -> list[Any]:
    if comes_from(column, "pandas", "Series"):
        return values_of(column)
    return cast("list[Any]", column.to_list() if hasattr(column, "to_list") else column.to_pylist())


def values_of(series: Any) -> list[Any]:
    """The values of a pandas series, with None for its `NA` and `NaT`, and the start for its periods."""
    if comes_from(getattr(series, "dtype", None), "pandas", "PeriodDtype"):
        series = series.dt.to_timestamp()
    return [None if type(value).__name__ in ("NAType", "NaTType") else value for value in series.tolist()]
