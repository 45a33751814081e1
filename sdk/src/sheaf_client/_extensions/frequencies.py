"""Which frequency a frame has: by name, ours or pandas', or by its times where these leave no doubt."""

from __future__ import annotations

import re
from calendar import day_name, monthrange
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise
from typing import Any

from sheaf_client._errors import InvalidFrameError
from sheaf_client._extensions.calendar import (
    DAY,
    FRIDAY,
    MONTHS,
    STEPS,
    Grid,
    from_grid,
    is_month_end,
    within_a_day,
)
from sheaf_client.contracts.time_series import Frequency

#: Days that a step of whole months may have.
_DAYS = {Frequency.MONTHLY: (28, 31), Frequency.QUARTERLY: (89, 92), Frequency.YEARLY: (365, 366)}
_WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
_MONTH_NAMES = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
#: Length of pandas' units below a month.
_UNITS = {
    **dict.fromkeys(("s", "S", "sec"), timedelta(seconds=1)),
    **dict.fromkeys(("min", "T"), timedelta(minutes=1)),
    **dict.fromkeys(("h", "H"), timedelta(hours=1)),
    **dict.fromkeys(("d", "D"), timedelta(days=1)),
    "W": timedelta(weeks=1),
}
#: Months of pandas' other units, without the letter that says start or end.
_MONTH_UNITS = {"M": 1, "Q": 3, "Y": 12, "A": 12}
_NAME = re.compile(r"(\d*)([A-Za-z]+)(?:-([A-Z]{3}))?")


@dataclass(frozen=True)
class Rule:
    """A frequency, and what else its name says of the times: their weekday, their place in month and year."""

    frequency: Frequency
    name: str
    fits: Callable[[datetime], bool] | None = None
    #: Day of the month, where the name tells it.
    day: int | None = None

    def of_starts(self) -> Rule:
        """The rule of the starts of periods that are called by their ends."""
        return Rule(self.frequency, self.frequency.value)


def read_rule(name: Any) -> Rule:
    """The rule of a frequency's name, of a pandas name or offset that means the same, or of a `timedelta`.

    Raises:
        InvalidFrameError: It is none of the frequencies that there are.
    """
    text = str(getattr(name, "freqstr", name))
    try:
        return Rule(Frequency(text), text)
    except ValueError:
        pass
    found = _of_length(name, text) if isinstance(name, timedelta) else _of_name(text)
    if found is None:
        raise InvalidFrameError(
            f"no frequency is called {text!r}; there are {_listed()}, and pandas' names of these, such as h, "
            "D, W-MON, MS, ME, QS, YE"
        )
    return found


def _of_length(length: timedelta, text: str) -> Rule | None:
    return next((Rule(frequency, text) for frequency, step in STEPS.items() if step == length), None)


def _of_name(text: str) -> Rule | None:
    match = _NAME.fullmatch(text)
    if match is None:
        return None
    times, unit, anchor = int(match[1] or 1), match[2], match[3]
    if unit == "B":
        return Rule(Frequency.BUSINESS_DAILY, text) if times == 1 and anchor is None else None
    if unit in _UNITS:
        found = _of_length(times * _UNITS[unit], text)
        # A day of 24 hours is no day of the calendar where the clocks change.
        if found is None or (found.frequency in (Frequency.DAILY, Frequency.WEEKLY) and unit not in "dDW"):
            return None
        if anchor is None:
            return found
        return _on_weekday(text, anchor) if unit == "W" and anchor in _WEEKDAYS else None
    side = unit[1:]
    months = times * _MONTH_UNITS.get(unit[:1], 0)
    frequency = next((kind for kind, count in MONTHS.items() if count == months), None)
    if frequency is None or side not in ("", "S", "E") or (anchor and anchor not in _MONTH_NAMES):
        return None
    return _in_month(frequency, text, side, anchor if side else None)


def _on_weekday(text: str, anchor: str) -> Rule:
    weekday = _WEEKDAYS.index(anchor)
    return Rule(Frequency.WEEKLY, text, lambda time: time.weekday() == weekday)


def _in_month(frequency: Frequency, text: str, side: str, anchor: str | None) -> Rule:
    months = MONTHS[frequency]
    phase = None if anchor is None else (_MONTH_NAMES.index(anchor) + 1) % months

    def fits(time: datetime) -> bool:
        on_day = {"": True, "S": time.day == 1, "E": is_month_end(time)}[side]
        return on_day and phase in (None, time.month % months)

    return Rule(frequency, text, fits if side or anchor else None, {"S": 1, "E": 31}.get(side))


def infer_frequency(series: Iterable[Sequence[datetime]]) -> Frequency:
    """The frequency of most steps between times in order; a time that is there again is no step.

    Raises:
        InvalidFrameError: There are no steps, or most are none of the frequencies that there are.
    """
    gaps: Counter[timedelta] = Counter()
    weekend = False
    for times in series:
        gaps.update(_elapsed(a, b) for a, b in pairwise(times) if a != b)
        weekend = weekend or any(time.weekday() > FRIDAY for time in times)
    if not gaps:
        raise InvalidFrameError("one time tells no frequency; give `frequency`")
    common = gaps.most_common(1)[0][0]
    if common == DAY:
        over_weekends = gaps[timedelta(days=3)] and not weekend
        return Frequency.BUSINESS_DAILY if over_weekends else Frequency.DAILY
    for frequency, step in STEPS.items():
        if common == step:
            return frequency
    for frequency, (fewest, most) in _DAYS.items():
        if timedelta(days=fewest) <= common <= timedelta(days=most):
            return frequency
    raise InvalidFrameError(f"most steps are {common} long, which is none of {_listed()}; give `frequency`")


def check_certain(
    series: Sequence[tuple[Grid, Sequence[datetime]]], zone: tzinfo | None, horizon: int
) -> None:
    """Refuse an inferred frequency where the same times, all on their grids, allow for other ones.

    Raises:
        InvalidFrameError: A weekday or an hour never occurs, or another rule goes on to other times.
    """
    frequency = series[0][0].frequency
    _check_cycles(frequency, [times for _, times in series])
    if frequency is Frequency.HOURLY:
        _check_office_hours(
            [[from_grid(frequency, time, zone) for time in times] for _, times in series], horizon
        )
    for name, follow in _other_rules(frequency, [times for _, times in series]):
        for grid, times in series:
            last = grid.place(times[-1]) or 0
            for step in range(1, horizon + 1):
                if (time := grid.at(last + step)) != follow(grid, times, step):
                    raise InvalidFrameError(
                        f"the times fit {frequency.value} and {name} alike, which differ from "
                        f"{time.isoformat()} on; give `frequency`"
                    )


def _check_cycles(frequency: Frequency, series: Sequence[Sequence[datetime]]) -> None:
    """Refuse times that leave out a weekday or an hour of the day whenever it comes."""
    if frequency is not Frequency.BUSINESS_DAILY and frequency not in STEPS:
        return
    if frequency is not Frequency.WEEKLY and any(times[-1] - times[0] >= 14 * DAY for times in series):
        seen = {time.weekday() for times in series for time in times}
        due = range(5 if frequency is Frequency.BUSINESS_DAILY else 7)
        if absent := [day_name[day] for day in due if day not in seen]:
            raise _never(frequency, ", ".join(absent))
    if within_a_day(frequency) and any(times[-1] - times[0] >= 2 * DAY for times in series):
        hour = timedelta(hours=1)
        step = max(STEPS[frequency], hour) // hour
        first = series[0][0].hour % step
        seen = {time.hour for times in series for time in times}
        if absent := [f"{hour:02}" for hour in range(first, 24, step) if hour not in seen]:
            raise _never(frequency, f"hour {', '.join(absent)}" + (" (UTC)" if series[0][0].tzinfo else ""))


def _check_office_hours(series: Sequence[Sequence[datetime]], horizon: int) -> None:
    """Refuse hours of working days, 9 to 17 as pandas' `bh` has them, where the forecast leaves these."""
    inside = all(time.weekday() <= FRIDAY and 9 <= time.hour < 17 for times in series for time in times)
    if inside and any(times[-1].hour + horizon >= 17 for times in series):
        raise InvalidFrameError("the times fit 1h and business hours (bh) alike; give `frequency`")


def _never(frequency: Frequency, absent: str) -> InvalidFrameError:
    return InvalidFrameError(
        f"the times are {frequency.value} apart, but none is of {absent}; give `frequency` to have what lies "
        "between them forecast too, as missing values in the past"
    )


_Follow = Callable[[Grid, Sequence[datetime], int], datetime]


def _other_rules(frequency: Frequency, series: Sequence[Sequence[datetime]]) -> Iterator[tuple[str, _Follow]]:
    """Names of the other rules that all the times fit, and the time that each has after so many steps."""
    every = [time for times in series for time in times]
    if frequency is Frequency.DAILY and all(time.weekday() <= FRIDAY for time in every):
        yield (
            "1B",
            lambda _, times, step: Grid(Frequency.BUSINESS_DAILY, times[-1]).at(step),
        )
    if frequency not in MONTHS:
        return
    letter = frequency.value[1]
    for side, business_day in (("S", _first_business_day), ("E", _last_business_day)):
        if all(time.day == business_day(time) for time in every):

            def on_business_day(
                _: Grid, times: Sequence[datetime], step: int, day: Callable[[datetime], int] = business_day
            ) -> datetime:
                month = Grid(frequency, times[-1].replace(day=1), 1).at(step)
                return month.replace(day=day(month))

            yield f"B{letter}{side}", on_business_day
    latest = max(time.day for time in every)
    if all(map(is_month_end, every)) and latest < 31:
        yield (
            f"day {latest} of the month",
            lambda _, times, step: Grid(frequency, times[-1], latest).at(step),
        )
    days = {b - a for times in series for a, b in pairwise(times)}
    if len(days) == 1:
        length = days.pop()
        yield f"{length.days}D", lambda _, times, step: times[-1] + step * length


def _first_business_day(time: datetime) -> int:
    weekday = time.replace(day=1).weekday()
    return 1 if weekday <= FRIDAY else 8 - weekday


def _last_business_day(time: datetime) -> int:
    last = monthrange(time.year, time.month)[1]
    return last - max(0, time.replace(day=last).weekday() - FRIDAY)


def _elapsed(before: datetime, after: datetime) -> timedelta:
    """Time between two times, by the clock on the wall for whole days and as it passes within a day."""
    wall = after.replace(tzinfo=None) - before.replace(tzinfo=None)
    if before.tzinfo is None or after.tzinfo is None or not wall % DAY:
        return wall
    return after.astimezone(UTC) - before.astimezone(UTC)


def _listed() -> str:
    return ", ".join(frequency.value for frequency in Frequency)
