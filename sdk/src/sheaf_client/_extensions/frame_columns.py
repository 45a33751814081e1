"""The columns of a frame of pandas, polars or pyarrow: their names, their values, and more of the same type.

What goes out again (ids, times) is made from the column that came in, so that it has its type and joins.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any, cast

from sheaf_client._errors import InvalidFrameError
from sheaf_client._extensions.time_text import text_form
from sheaf_client._inputs.arrays import missing_as_none
from sheaf_client._inputs.frames import is_frame, named_columns, repeated, values_of
from sheaf_client._inputs.kinds import comes_from

#: How the types of columns begin that hold categories.
_CATEGORIES = ("category", "dictionary", "Categorical", "Enum")


@dataclass(frozen=True)
class Column:
    """One column of a frame.

    Attributes:
        name: as it is spelled in keywords and messages.
        label: as the frame has it; pandas also has numbers.
        held: the column itself, as its library holds it.
    """

    name: str
    label: Any
    held: Any

    @property
    def type(self) -> Any:
        """Its type, in its library's words."""
        return self.held.type if self.library == "pyarrow" else self.held.dtype

    @property
    def library(self) -> str:
        return type(self.held).__module__.partition(".")[0]

    @cached_property
    def values(self) -> list[Any]:
        """Plain values, None where one is missing; periods are their starts."""
        if self.library == "pandas":
            values = values_of(self.held)
        else:
            values = self.held.to_pylist() if self.library == "pyarrow" else self.held.to_list()
        return [missing_as_none(value) if isinstance(value, float) else value for value in values]

    @cached_property
    def keys(self) -> list[Any]:
        """Values that name series: those of `values`, but periods as they are."""
        if comes_from(self.type, "pandas", "PeriodDtype"):
            return [None if type(value).__name__ == "NaTType" else value for value in self.held.tolist()]
        return self.values

    @cached_property
    def times(self) -> list[datetime]:
        """Values that are times, all with a zone or all without one.

        Raises:
            InvalidFrameError: A row has no time, or what is there cannot be read as one.
        """
        times = [self._time(row, value) for row, value in enumerate(self.values)]
        rows = {time.tzinfo is not None: row for row, time in enumerate(times)}
        if len(rows) > 1:
            aware, naive = (f"{times[row].isoformat()} in row {row}" for row in (rows[True], rows[False]))
            raise InvalidFrameError(
                f"column {self.name!r} has times with a zone beside times without one: {aware}, {naive}"
            )
        return times

    @cached_property
    def zoned(self) -> bool:
        """Whether its times have a zone."""
        return bool(self.times) and self.times[0].tzinfo is not None

    def _time(self, row: int, value: Any) -> datetime:
        if value is None:
            raise InvalidFrameError(f"row {row} of column {self.name!r} has no time")
        try:
            time = _plain_time(value)
            if time is not None:
                # Counting needs both: the clock on the wall, and UTC.
                _ = time if time.tzinfo is None else time.astimezone(UTC)
                return time
        except (ValueError, OverflowError):
            pass
        shown = str(value) if isinstance(value, date) else repr(value)
        raise InvalidFrameError(
            f"row {row} of column {self.name!r}: {shown} is no time; give dates, datetimes of the years 1 to "
            f"9999 to the microsecond, or ISO 8601 text{self._conversion()}"
        )

    def _conversion(self) -> str:
        if self.library == "pandas":
            return f": df[{self.label!r}] = pd.to_datetime(df[{self.label!r}], format=…)"
        return f': pl.col("{self.name}").str.to_datetime(…)' if self.library == "polars" else ""

    def covariate(self) -> list[Any]:
        """Values as covariates are written: numbers, 0 and 1 for flags, text for categories.

        Raises:
            InvalidFrameError: The values are neither.
        """
        kind = str(self.type)
        if kind.startswith(_CATEGORIES):
            return [value if value is None else str(value) for value in self.values]
        values = [_number(value) for value in self.values]
        for row, value in enumerate(values):
            if not isinstance(value, float | int | str | None):
                raise InvalidFrameError(
                    f"row {row} of column {self.name!r} holds {type(value).__name__} {value!r}; covariates "
                    "are numbers, flags or text: turn it into one of them, or leave the column out"
                )
        kinds = {isinstance(value, str) for value in values if value is not None}
        if len(kinds) > 1:
            raise InvalidFrameError(f"column {self.name!r} has numbers beside text; make it one of them")
        return values

    def numbers(self) -> list[float | None]:
        """Values to forecast; raises `InvalidFrameError` where one is no number."""
        values = [_number(value) for value in self.values]
        for row, value in enumerate(values):
            if not isinstance(value, float | int | None):
                raise InvalidFrameError(
                    f"row {row} of column {self.name!r}: {value!r} is no number to forecast"
                )
        return values

    def take(self, rows: Sequence[int]) -> Any:
        """The values of these rows as a column of the same type."""
        if self.library == "pandas":
            return self.held.iloc[list(rows)].reset_index(drop=True)
        if self.library == "polars":
            return self.held[list(rows)] if len(rows) else self.held.clear()
        pyarrow = importlib.import_module("pyarrow")
        return self.held.take(pyarrow.array(rows, pyarrow.int64()))

    def like(self, times: Sequence[datetime], *, wall: bool) -> Any:
        """These times as a column of the same type, where that can hold them.

        With `wall` the clock on the wall counts, where the column's own zones know other rules than ours.
        """
        if self.library == "pandas":
            return _pandas_times(self, times, wall=wall)
        return (_polars_times if self.library == "polars" else _arrow_times)(self, times)


def read_columns(frame: Any, name: str) -> dict[str, Column]:
    """The columns of a frame by name.

    Raises:
        TypeError: It is no frame.
        InvalidFrameError: Two columns have one name, or there are no rows.
    """
    if not is_frame(frame):
        raise TypeError(f"give a DataFrame of pandas, polars or pyarrow, not a {type(frame).__name__}")
    columns = [Column(str(label), label, held) for label, held in named_columns(frame)]
    if twice := repeated(column.name for column in columns):
        raise InvalidFrameError(f"{name} has two columns of one name: {', '.join(map(repr, twice))}")
    return {column.name: column for column in columns}


def frame_of(like: Any, columns: Mapping[Any, Any]) -> Any:
    """A frame of the library of `like`."""
    if comes_from(like, "pyarrow", "Table", "RecordBatch"):
        return importlib.import_module("pyarrow").table(dict(columns))
    library = "polars" if comes_from(like, "polars", "DataFrame") else "pandas"
    return importlib.import_module(library).DataFrame(dict(columns))


def floats_like(like: Any, values: Sequence[float]) -> Any:
    """A column of float64 in the library of `like`."""
    if comes_from(like, "pyarrow", "Table", "RecordBatch"):
        pyarrow = importlib.import_module("pyarrow")
        return pyarrow.array(values, pyarrow.float64())
    if comes_from(like, "polars", "DataFrame"):
        polars = importlib.import_module("polars")
        return polars.Series(values, dtype=polars.Float64)
    return importlib.import_module("pandas").Series(values, dtype="float64")


def _number(value: Any) -> Any:
    """Numbers of any library as Python's, flags as 0 and 1; anything else as it is."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool):
        return int(value)
    return float(value) if comes_from(value, "decimal", "Decimal") else missing_as_none(value)


def _plain_time(value: Any) -> datetime | None:
    if isinstance(value, str):
        return datetime.fromisoformat(value.strip())
    if isinstance(value, datetime):
        if getattr(value, "nanosecond", 0):
            return None
        # pandas' own times know nanoseconds and warn of losing them.
        return cast("Any", value).to_pydatetime(warn=False) if hasattr(value, "to_pydatetime") else value
    return datetime(value.year, value.month, value.day) if isinstance(value, date) else None


def _plain(column: Column, times: Sequence[datetime]) -> tuple[Sequence[Any], bool]:
    """The times as the column's Python values, and whether they are: text in its form, dates, datetimes."""
    given = [value for value in column.values if value is not None]
    if given and all(isinstance(value, str) for value in given):
        write = text_form(given)
        return [write(time) for time in times], True
    if not given or any(type(value) is not date for value in given):
        return times, True
    if any(time.hour or time.minute or time.second or time.microsecond for time in times):
        return times, False
    return [time.date() for time in times], True


def _pandas_times(column: Column, times: Sequence[datetime], *, wall: bool) -> Any:
    pandas = importlib.import_module("pandas")
    kind = column.type
    if comes_from(kind, "pandas", "CategoricalDtype"):
        kind = kind.categories.dtype
    if comes_from(kind, "pandas", "PeriodDtype"):
        periods = [pandas.Period(time.replace(tzinfo=None), freq=kind.freq) for time in times]
        return pandas.Series(periods, dtype=kind)
    if getattr(kind, "kind", "") == "M" and not comes_from(kind, "pandas", "ArrowDtype"):
        unit = getattr(kind, "unit", None) or importlib.import_module("numpy").datetime_data(kind)[0]
        naive = [time.replace(tzinfo=None) if wall else _utc(time) for time in times]
        try:
            held = pandas.Series(naive, dtype=f"datetime64[{unit}]")
        except ValueError:  # beyond what nanoseconds can count
            held = pandas.Series(naive, dtype="datetime64[us]")
        zone = getattr(kind, "tz", None)
        if zone is None:
            return held
        if wall:
            first = importlib.import_module("numpy").ones(len(held), dtype=bool)
            return held.dt.tz_localize(zone, ambiguous=first, nonexistent="shift_forward")
        return held.dt.tz_localize("UTC").dt.tz_convert(zone)
    values, alike = _plain(column, times)
    try:
        return pandas.Series(values, dtype=kind if alike else None)
    except (TypeError, ValueError):
        return pandas.Series(values)


def _polars_times(column: Column, times: Sequence[datetime]) -> Any:
    polars = importlib.import_module("polars")
    kind = column.type
    if kind == polars.Datetime:
        held = polars.Series([_utc(time) for time in times], dtype=polars.Datetime(kind.time_unit))
        if kind.time_zone is None:
            return held
        return held.dt.replace_time_zone("UTC").dt.convert_time_zone(kind.time_zone)
    values, alike = _plain(column, times)
    if kind == polars.Enum:  # it cannot hold what it has not seen
        return polars.Series(values, dtype=polars.String)
    return polars.Series(values, dtype=kind if alike else None)


def _arrow_times(column: Column, times: Sequence[datetime]) -> Any:
    pyarrow = importlib.import_module("pyarrow")
    values, alike = _plain(column, times)
    if not alike:
        return pyarrow.array(values)
    return pyarrow.array(values, getattr(column.type, "value_type", column.type)).cast(column.type)


def _utc(time: datetime) -> datetime:
    return time if time.tzinfo is None else time.astimezone(UTC).replace(tzinfo=None)


def names_of(columns: Iterable[Column]) -> str:
    """The names, for a message."""
    return ", ".join(repr(column.name) for column in columns)
