"""A data frame of many series as the requests for each, and their answers as a data frame again."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from sheaf_client._errors import InvalidFrameError
from sheaf_client._extensions.calendar import Grid, from_grid, to_grid, within_a_day
from sheaf_client._extensions.frame_columns import Column, floats_like, frame_of, names_of, read_columns
from sheaf_client._extensions.frame_grid import check_distinct, on_grid
from sheaf_client._extensions.frequencies import Rule, check_certain, infer_frequency, read_rule
from sheaf_client.contracts.time_series import Frequency, TimeSeriesResponse


@dataclass(frozen=True)
class FrameColumns:
    """Which column is what: the series' name, the time, the target; `static` ones are constant per series."""

    id: Any
    time: Any
    target: Any
    static: Sequence[Any] = ()

    def check(self, made: Sequence[str]) -> None:
        """Refuse a column with two roles, and ids and times that are called as the columns `made` are."""
        roles = {"time_col": str(self.time), "target_col": str(self.target)}
        if self.id is not None:
            roles["id_col"] = str(self.id)
        roles |= {f"static_cols[{place}]": str(name) for place, name in enumerate(self.static)}
        by_name: dict[str, str] = {}
        for role, name in roles.items():
            if name in by_name:
                raise InvalidFrameError(
                    f"{by_name[name]} and {role} are one column, {name!r}; give each its own"
                )
            by_name[name] = role
        for name in (str(self.id), str(self.time)):
            if name in made and name in by_name:
                raise InvalidFrameError(
                    f"{by_name[name]} is {name!r}, and so is a column of the forecast called; rename it"
                )


@dataclass
class Series:
    """One series of a frame: its rows in the order of time, and the place of each on its grid.

    Attributes:
        zone: of its times; None where they have none.
        ahead: the row of `future_df` for each step of the horizon; empty without one.
    """

    id: Any
    rows: Sequence[int]
    places: Sequence[int]
    grid: Grid
    zone: tzinfo | None
    ahead: Sequence[int] = ()

    def __len__(self) -> int:
        return self.places[-1] + 1

    @property
    def called(self) -> str:
        """Its name, for a message."""
        return called(self.id)

    def time(self, place: int) -> datetime:
        """The time at a place, in its zone."""
        return from_grid(self.grid.frequency, self.grid.at(place), self.zone)


class SeriesFrame:
    """A frame as series, in the order in which they first occur.

    A series that cannot be forecast as it stands has the `InvalidFrameError` that says why in its place.

    Args:
        horizon: steps to forecast.
        frequency: name of the frequency; inferred from the times where it is None.
        made: names of the columns of the forecast, beside id and time.

    Raises:
        TypeError: `frame` or `future` is no frame.
        InvalidFrameError: Columns are missing, repeated or of the wrong type; a time cannot be read; or the
            frequency is none of ours, or not certain.
    """

    def __init__(
        self,
        frame: Any,
        future: Any,
        columns: FrameColumns,
        horizon: int,
        frequency: Any,
        made: Sequence[str],
    ) -> None:
        columns.check(made)
        self._frame, self._made, self._horizon = frame, made, horizon
        table = read_columns(frame, "the frame")
        self._id = None if columns.id is None else _find(table, columns.id, frame)
        self._time = _find(table, columns.time, frame)
        self._target = _find(table, columns.target, frame)
        self._static = [_find(table, name, frame) for name in columns.static]
        named = {column.name for column in (self._id, self._time, self._target, *self._static) if column}
        self.past = [column for name, column in table.items() if name not in named]
        self._future: list[Column] = []
        self._later: Column | None = None
        self._target_values = self._target.numbers()
        self._values: dict[str, list[Any]] = {}
        for column in (*self.past, *self._static):
            self._values[column.name] = column.covariate()
        later = {} if future is None else self._read_future(future, columns)
        self.ids: list[Any] = []
        self.series = self._read_series(frequency, None if future is None else later)

    def _read_future(self, future: Any, columns: FrameColumns) -> dict[Any, list[int]]:
        """The rows of `future_df` by series."""
        table = read_columns(future, "future_df")
        self._later = _find(table, columns.time, future, "future_df")
        key = None if columns.id is None else _find(table, columns.id, future, "future_df")
        self._future = [column for column in table.values() if column not in (self._later, key)]
        known = {column.name for column in self.past}
        if target := [column for column in self._future if column.name == self._target.name]:
            raise InvalidFrameError(f"future_df has the column to forecast, {names_of(target)}; leave it out")
        if static := [column for column in self._future if column.name in map(str, columns.static)]:
            raise InvalidFrameError(f"future_df has the static column {names_of(static)}; leave it out")
        if unknown := [column for column in self._future if column.name not in known]:
            raise InvalidFrameError(f"columns of future_df that the frame has not: {names_of(unknown)}")
        if self._later.values and self._later.zoned != self._time.zoned:
            kinds = ("with a zone", "without one")
            mine, other = kinds if self._time.zoned else reversed(kinds)
            raise InvalidFrameError(
                f"the times of the frame are {mine}, those of future_df {other}; give both a zone, or neither"
            )
        self._values |= {f"future {column.name}": column.covariate() for column in self._future}
        return _groups(key, len(self._later.values))

    def _read_series(
        self, frequency: Any, later: Mapping[Any, list[int]] | None
    ) -> list[Series | InvalidFrameError]:
        times = self._time.times
        if not times:
            raise InvalidFrameError("the frame has no rows")
        rows = {
            name: sorted(group, key=times.__getitem__)
            for name, group in _groups(self._id, len(times)).items()
        }
        self.ids = list(rows)
        rule = self._rule(frequency, {n: [times[row] for row in group] for n, group in rows.items()})
        inferred = frequency is None and not self._periods
        found = [self._try(name, group, rule, later, inferred=inferred) for name, group in rows.items()]
        sound = [series for series in found if isinstance(series, Series)]
        if inferred and sound:
            counted = [[series.grid.at(place) for place in series.places] for series in sound]
            check_certain(
                list(zip((s.grid for s in sound), counted, strict=True)), sound[0].zone, self._horizon
            )
        return found

    @property
    def _periods(self) -> Any:
        return getattr(self._time.type, "freq", None)

    def _rule(self, frequency: Any, times: Mapping[Any, Sequence[datetime]]) -> Rule:
        of_periods = None if self._periods is None else read_rule(self._periods).of_starts()
        if frequency is None:
            return of_periods or Rule(inferred := self._infer(times), inferred.value)
        rule = read_rule(frequency)
        if of_periods is None:
            return rule
        if of_periods.frequency is not rule.frequency:
            raise InvalidFrameError(
                f"column {self._time.name!r} has periods of {of_periods.frequency.value}, not of {rule.name}"
            )
        return of_periods

    def _infer(self, times: Mapping[Any, Sequence[datetime]]) -> Frequency:
        try:
            return infer_frequency(times.values())
        except InvalidFrameError:
            # Several series without a column of ids hold few steps, or none; this says so.
            for name, held in times.items():
                check_distinct(called(name), held, one=self._id is None)
            raise

    def _try(
        self,
        name: Any,
        rows: Sequence[int],
        rule: Rule,
        later: Mapping[Any, list[int]] | None,
        *,
        inferred: bool,
    ) -> Series | InvalidFrameError:
        try:
            series = self._read(name, rows, rule, inferred=inferred)
            if later is not None:
                series.ahead = self._ahead(series, later.get(name, []))
        except InvalidFrameError as error:
            return error
        except (OverflowError, ValueError):
            return InvalidFrameError(f"{called(name)}: the forecast runs past the year 9999")
        return series

    def _read(self, name: Any, rows: Sequence[int], rule: Rule, *, inferred: bool) -> Series:
        held = [self._time.times[row] for row in rows]
        grid, places = on_grid(called(name), held, rule, inferred=inferred, one=self._id is None)
        series = Series(name, rows, places, grid, _zone_of(held[-1]))
        for column in self._static:
            values = [self._values[column.name][row] for row in rows]
            if any(value != values[0] for value in values):
                raise InvalidFrameError(f"{called(name)}: the static column {column.name} varies")
            if values[0] is None:
                raise InvalidFrameError(f"{called(name)}: the static column {column.name} has no value")
        for column in self.past:
            self._check_text(series, column.name, rows, held)
        series.time(places[-1] + self._horizon)
        return series

    def _check_text(self, series: Series, key: str, rows: Sequence[int], times: Sequence[datetime]) -> None:
        """Refuse a category that is missing, which no contract can carry."""
        values = self._values[key]
        if any(isinstance(value, str) for value in values):
            for row, time in zip(rows, times, strict=True):
                if values[row] is None:
                    raise InvalidFrameError(
                        f"{series.called}: the text column {key} has no value at {time.isoformat()}; give "
                        "it a category of its own, such as 'unknown'"
                    )

    def _ahead(self, series: Series, rows: Sequence[int]) -> list[int]:
        """The rows of the future for the steps to forecast."""
        assert self._later is not None  # noqa: S101 - there is a future
        at: dict[int, int] = {}
        last = series.places[-1]
        times = self._later.times
        for row in rows:
            time = times[row]
            if isinstance(series.zone, ZoneInfo) and str(time.tzinfo) != str(series.zone):
                time = time.astimezone(series.zone)
            place = series.grid.place(to_grid(series.grid.frequency, time))
            if place is None:
                raise InvalidFrameError(
                    f"{series.called}: {times[row].isoformat()} of future_df is not on the grid of its past, "
                    f"{series.grid.frequency.value} to {series.time(last).isoformat()}"
                )
            if place - last in at:
                raise InvalidFrameError(f"{series.called}: future_df has {times[row].isoformat()} twice")
            at[place - last] = row
        if missing := [step for step in range(1, self._horizon + 1) if step not in at]:
            raise InvalidFrameError(
                f"{series.called}: future_df has no row for step {missing[0]}, "
                f"{series.time(last + missing[0]).isoformat()}"
            )
        ahead = [at[step] for step in range(1, self._horizon + 1)]
        for column in self._future:
            self._check_text(series, f"future {column.name}", ahead, [times[row] for row in ahead])
        return ahead

    @property
    def target(self) -> str:
        """Name of the column to forecast."""
        return self._target.name

    def covariates(self, field: str) -> list[str]:
        """Names of the columns that are covariates of one kind."""
        kinds = {"past_covariates": self.past, "future_covariates": self._future}
        return [column.name for column in kinds.get(field, self._static)]

    def needed(self) -> list[str]:
        """Names of the columns without which there is no forecast."""
        return [column.name for column in (self._id, self._time, self._target) if column]

    def is_missing(self, series: Series, place: int) -> bool:
        """Whether the target has no value at a place that has a row."""
        return self._target_values[series.rows[series.places.index(place)]] is None

    def fields(self, series: Series) -> dict[str, Any]:
        """History, times and covariates of the request for a series, without gaps."""
        rows, places = series.rows, series.places
        past = {c.name: _spread([self._values[c.name][row] for row in rows], places) for c in self.past}
        future = {
            c.name: [self._values[f"future {c.name}"][row] for row in series.ahead] for c in self._future
        }
        static = {column.name: self._values[column.name][rows[0]] for column in self._static}
        return {
            "history": _spread([self._target_values[row] for row in rows], places),
            "timestamps": [series.grid.at(place) for place in range(len(series))],
            "horizon": self._horizon,
            "frequency": series.grid.frequency,
            "past_covariates": past or None,
            "future_covariates": future or None,
            "static_covariates": static or None,
        }

    def size(self, series: Series) -> int:
        """Numbers in its request."""
        return len(series) * (1 + len(self.past)) + self._horizon * len(self._future)

    def write(self, answered: Sequence[tuple[Series, TimeSeriesResponse]]) -> Any:
        """The forecasts as a frame of the same library: name, time, `mean`, a column per quantile level."""
        steps = range(1, self._horizon + 1)
        columns: dict[Any, Any] = {}
        if self._id is not None:
            columns[self._id.label] = self._id.take([s.rows[0] for s, _ in answered for _ in steps])
        times = [series.time(series.places[-1] + step) for series, _ in answered for step in steps]
        wall = all(not within_a_day(series.grid.frequency) for series, _ in answered)
        columns[self._time.label] = self._time.like(times, wall=wall)
        for name in self._made:
            values = (a.mean if name == "mean" else (a.quantiles or {})[name] for _, a in answered)
            columns[name] = floats_like(self._frame, [value for part in values for value in part])
        return frame_of(self._frame, columns)


def _zone_of(time: datetime) -> tzinfo | None:
    """Its zone, which knows the changes of the clocks; those of pytz each know one offset."""
    name: str | None = getattr(time.tzinfo, "zone", None)
    return time.tzinfo if name is None else ZoneInfo(name)


def called(name: Any) -> str:
    """The name of a series, for a message."""
    return "the series" if name is None else f"series {name if not isinstance(name, str) else repr(name)}"


def _find(table: Mapping[str, Column], name: Any, frame: Any, what: str = "the frame") -> Column:
    if (column := table.get(str(name))) is not None:
        return column
    hint = ""
    index = getattr(getattr(frame, "index", None), "names", ())
    if name in index:
        hint = "; it is the index: df.reset_index()"
    raise InvalidFrameError(f"{what} has no column {name}; it has {', '.join(table)}{hint}")


def _groups(key: Column | None, count: int) -> dict[Any, list[int]]:
    """The rows of each series, by its name."""
    if key is None:
        return {None: list(range(count))} if count else {}
    groups: dict[Hashable, list[int]] = {}
    for row, name in enumerate(key.keys):
        if name is None:
            raise InvalidFrameError(f"row {row} has no {key.name}")
        if isinstance(name, list | dict | set):
            raise InvalidFrameError(f"row {row} of column {key.name!r}: {name!r} cannot name a series")
        groups.setdefault(name, []).append(row)
    return groups


def _spread(values: Sequence[Any], places: Sequence[int]) -> list[Any]:
    """The values at their places; None, or the category before, where there is none."""
    spread: list[Any] = []
    for value, at in zip(values, places, strict=True):
        between = spread[-1] if spread and isinstance(spread[-1], str) else None
        spread += [between] * (at - len(spread))
        spread.append(value)
    return spread
