"""Data frames of pandas, polars and pyarrow as rows or as columns of plain values."""

from __future__ import annotations

from typing import Any, cast

from sheaf_client._inputs.kinds import comes_from


def is_frame(value: Any) -> bool:
    """Whether the value is a table with named columns."""
    return (
        comes_from(value, "pandas", "DataFrame")
        or comes_from(value, "polars", "DataFrame")
        or comes_from(value, "pyarrow", "Table", "RecordBatch")
    )


def columns_of(frame: Any) -> dict[str, list[Any]]:
    """Column name → values; a missing value is None, NaN stays."""
    if comes_from(frame, "polars", "DataFrame"):
        return cast("dict[str, list[Any]]", frame.to_dict(as_series=False))
    if comes_from(frame, "pyarrow", "Table", "RecordBatch"):
        return cast("dict[str, list[Any]]", frame.to_pydict())
    return {str(name): values_of(frame.iloc[:, place]) for place, name in enumerate(frame.columns)}


def rows_of(frame: Any) -> list[list[Any]]:
    """The rows, each a list in the order of the columns."""
    return [list(row) for row in zip(*columns_of(frame).values(), strict=True)]


def values_of(series: Any) -> list[Any]:
    """The values of a pandas series, with None for its `NA` and `NaT`, and the start for its periods."""
    if comes_from(getattr(series, "dtype", None), "pandas", "PeriodDtype"):
        series = series.dt.to_timestamp()
    return [None if type(value).__name__ in ("NAType", "NaTType") else value for value in series.tolist()]
