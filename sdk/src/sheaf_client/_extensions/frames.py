"""A data frame of many series as requests, and their answers as a data frame again."""

from __future__ import annotations

import importlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, tzinfo
from itertools import pairwise
from typing import Any, TypeVar, cast
from zoneinfo import ZoneInfo

from sheaf_client._extensions.calendar import fill, from_grid, infer_frequency, place, to_grid
from sheaf_client._inputs.arrays import missing_as_none
from sheaf_client._inputs.frames import columns_of, is_frame
from sheaf_client._inputs.kinds import comes_from
from sheaf_client.contracts.time_series import Frequency, TimeSeriesResponse

FrameT = TypeVar("FrameT")
Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class FrameColumns:
    """Which column is what: the series' name, the time, the target; `static` ones are constant per series."""

    id: str | None
    time: str
    target: str
    static: Sequence[str] = ()


@dataclass
class Series:
    """One series of a frame, in the order of time and without gaps."""

    id: Any
    times: list[datetime]
    zone: tzinfo | None
    target: list[float | None]
    past: dict[str, list[Any]] = field(default_factory=dict[str, "list[Any]"])
    future: dict[str, list[Any]] = field(default_factory=dict[str, "list[Any]"])
    static: dict[str, Any] = field(default_factory=dict[str, Any])

    def fields(self, horizon: int, frequency: Frequency, more: Mapping[str, Any]) -> dict[str, Any]:
        """The keywords of the request for this series."""
        return {
            "history": self.target,
            "timestamps": self.times,
            "horizon": horizon,
            "frequency": frequency,
            "past_covariates": self.past or None,
            "future_covariates": self.future or None,
            "static_covariates": self.static or None,
            **more,
        }


def read_series(
    frame: Any, future: Any, columns: FrameColumns, horizon: int, frequency: Frequency | str | None
) -> tuple[list[Series], Frequency]:
    """The series of a frame, in the order in which they first occur, and their frequency.

    Raises:
        TypeError: `frame` or `future` is no frame.
        ValueError: A column is missing; a time is missing, twice there or off the grid; a static column
            varies; or `future` lacks a step of a series.
    """
    table = _table(frame, columns, (columns.target, *columns.static))
    ahead = None if future is None else _table(future, columns, ())
    others = set(table) - {columns.id, columns.time, columns.target, *columns.static}
    if ahead is not None and (unknown := sorted(set(ahead) - {columns.id, columns.time, *others})):
        raise ValueError(f"columns of the future are not in the past: {', '.join(unknown)}")
    rows = {name: _by_time(name, table, group, columns.time) for name, group in _groups(table, columns.id)}
    held = {name: [table[columns.time][row] for row in group] for name, group in rows.items()}
    chosen = infer_frequency(held.values()) if frequency is None else Frequency(frequency)
    times = {name: [to_grid(chosen, time) for time in group] for name, group in held.items()}
    past = [name for name in table if name in others]
    later = dict(_groups(ahead, columns.id)) if ahead is not None else {}
    found: list[Series] = []
    for name, group in rows.items():
        places = _places(name, times[name], chosen)
        series = Series(
            id=name,
            times=_filled(times[name], places, chosen),
            zone=held[name][-1].tzinfo if held[name] else None,
            target=_spread([table[columns.target][row] for row in group], places),
            past={key: _spread([table[key][row] for row in group], places) for key in past},
            static={key: _constant(name, key, [table[key][row] for row in group]) for key in columns.static},
        )
        if ahead is not None:
            series.future = _ahead(series, ahead, later.get(name, []), columns, horizon, chosen)
        found.append(series)
    return found, chosen


def _table(frame: Any, columns: FrameColumns, more: Sequence[str]) -> Columns:
    if not is_frame(frame):
        raise TypeError(f"give a DataFrame of pandas, polars or pyarrow, not a {type(frame).__name__}")
    table = {name: [_plain(value) for value in values] for name, values in columns_of(frame).items()}
    needed = [name for name in (columns.id, columns.time, *more) if name is not None]
    if missing := [name for name in needed if name not in table]:
        raise ValueError(f"the frame has no column {', '.join(missing)}; it has {', '.join(table)}")
    table[columns.time] = [_time(value) for value in table[columns.time]]
    return table


def _plain(value: Any) -> Any:
    """Numbers for flags and None for NaN, as covariates and targets are written."""
    return int(value) if isinstance(value, bool) else missing_as_none(value)


def _time(value: Any) -> datetime:
    if isinstance(value, str):
        return datetime.fromisoformat(value)
    if isinstance(value, datetime):
        # pandas' own times know nanoseconds and warn of losing them.
        time = cast("Any", value).to_pydatetime(warn=False) if hasattr(value, "to_pydatetime") else value
        # The zones of pytz do not know that the clocks change.
        zone: str | None = getattr(time.tzinfo, "zone", None)
        return time if zone is None else time.astimezone(ZoneInfo(zone))
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)
    raise ValueError(f"{value!r} is no time")


def _groups(table: Columns, key: str | None) -> Iterator[tuple[Any, list[int]]]:
    """Name of each series and its rows."""
    if key is None:
        yield None, list(range(len(next(iter(table.values())))))
        return
    groups: dict[Hashable, list[int]] = {}
    for row, name in enumerate(table[key]):
        if name is None:
            raise ValueError(f"row {row} has no {key}")
        groups.setdefault(name, []).append(row)
    yield from groups.items()


def _by_time(name: Any, table: Columns, rows: list[int], key: str) -> list[int]:
    times = table[key]
    rows = sorted(rows, key=lambda row: times[row])
    twice = next((times[a] for a, b in pairwise(rows) if times[a] == times[b]), None)
    if twice is not None:
        raise ValueError(f"{_called(name)} has the time {twice.isoformat()} twice")
    return rows


def _places(name: Any, times: Sequence[datetime], frequency: Frequency) -> list[int]:
    """The place of each time on the grid of its series."""
    places: list[int] = []
    for time in times:
        at = place(frequency, times[0], time)
        if at is None or (places and at <= places[-1]):
            grid = f"the {frequency.value} grid that begins at {times[0].isoformat()}"
            raise ValueError(f"{_called(name)}: {time.isoformat()} is not on {grid}")
        places.append(at)
    return places


def _filled(times: Sequence[datetime], places: Sequence[int], frequency: Frequency) -> list[datetime]:
    """The times with those between them that are missing."""
    filled: list[datetime] = []
    for time, at in zip(times, places, strict=True):
        if missing := at - len(filled):
            filled += [fill(frequency, filled[-1], step) for step in range(1, missing + 1)]
        filled.append(time)
    return filled


def _spread(values: Sequence[Any], places: Sequence[int]) -> list[Any]:
    """The values at their places; None, or the category before, where there is none."""
    spread: list[Any] = []
    for value, at in zip(values, places, strict=True):
        between = spread[-1] if spread and isinstance(spread[-1], str) else None
        spread += [between] * (at - len(spread))
        spread.append(value)
    return spread


def _constant(name: Any, key: str, values: Sequence[Any]) -> Any:
    if any(value != values[0] for value in values):
        raise ValueError(f"{_called(name)}: the static column {key} varies")
    return values[0]


def _ahead(
    series: Series,
    table: Columns,
    rows: Sequence[int],
    columns: FrameColumns,
    horizon: int,
    frequency: Frequency,
) -> dict[str, list[Any]]:
    """The covariates of the steps to forecast, by their times."""
    last = series.times[-1]
    at = {place(frequency, last, to_grid(frequency, table[columns.time][row])): row for row in rows}
    if missing := [step for step in range(1, horizon + 1) if step not in at]:
        raise ValueError(
            f"{_called(series.id)}: the future has no row for step {missing[0]} after {last.isoformat()}"
        )
    names = [name for name in table if name not in (columns.id, columns.time)]
    return {name: [table[name][at[step]] for step in range(1, horizon + 1)] for name in names}


def _called(name: Any) -> str:
    return "the series" if name is None else f"series {name!r}"


def write_frame(
    like: FrameT,
    answered: Sequence[tuple[Series, TimeSeriesResponse]],
    frequency: Frequency,
    columns: FrameColumns,
) -> FrameT:
    """The forecasts as a frame of the same library: name, time, `mean`, and a column per quantile level."""
    levels = dict.fromkeys(level for _, answer in answered for level in answer.quantiles or ())
    table: Columns = {} if columns.id is None else {columns.id: []}
    table |= {columns.time: [], "mean": [], **{level: [] for level in levels}}
    for series, answer in answered:
        if columns.id is not None:
            table[columns.id] += [series.id] * len(answer.mean)
        times = answer.timestamps or [
            fill(frequency, series.times[-1], step + 1) for step in range(len(answer.mean))
        ]
        table[columns.time] += [from_grid(frequency, time, series.zone) for time in times]
        table["mean"] += answer.mean
        for level in levels:
            table[level] += (answer.quantiles or {})[level]
    return cast("FrameT", _frame_of(like, table))


def _frame_of(like: Any, table: Columns) -> Any:
    if comes_from(like, "pyarrow", "Table", "RecordBatch"):
        return importlib.import_module("pyarrow").table(table)
    library = "polars" if comes_from(like, "polars", "DataFrame") else "pandas"
    return importlib.import_module(library).DataFrame(table)
