"""Places of times on the grid of a frequency: which it is, how far apart two times are, what lies between."""

from __future__ import annotations

from calendar import monthrange
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise

from sheaf_client.contracts.time_series import Frequency

_DAY = timedelta(days=1)
#: Time from one step to the next, for frequencies whose steps are all of one length.
STEPS = {
    Frequency.TEN_SECONDLY: timedelta(seconds=10),
    Frequency.MINUTELY: timedelta(minutes=1),
    Frequency.FIVE_MINUTELY: timedelta(minutes=5),
    Frequency.TEN_MINUTELY: timedelta(minutes=10),
    Frequency.FIFTEEN_MINUTELY: timedelta(minutes=15),
    Frequency.HALF_HOURLY: timedelta(minutes=30),
    Frequency.HOURLY: timedelta(hours=1),
    Frequency.FOUR_HOURLY: timedelta(hours=4),
    Frequency.SIX_HOURLY: timedelta(hours=6),
    Frequency.TWELVE_HOURLY: timedelta(hours=12),
    Frequency.DAILY: timedelta(days=1),
    Frequency.WEEKLY: timedelta(weeks=1),
}
#: Months from one step to the next, for frequencies of the calendar.
MONTHS = {Frequency.MONTHLY: 1, Frequency.QUARTERLY: 3, Frequency.YEARLY: 12}
#: Days that a step of whole months may have.
_DAYS = {Frequency.MONTHLY: (28, 31), Frequency.QUARTERLY: (89, 92), Frequency.YEARLY: (365, 366)}


def infer_frequency(series: Iterable[Sequence[datetime]]) -> Frequency:
    """The frequency of most steps between increasing times; raises `ValueError` where it is none we have."""
    gaps: Counter[timedelta] = Counter()
    weekend = False
    for times in series:
        gaps.update(_elapsed(a, b) for a, b in pairwise(times))
        weekend = weekend or any(time.weekday() > 4 for time in times)
    if not gaps:
        raise ValueError("one time tells no frequency; give `frequency`")
    common = gaps.most_common(1)[0][0]
    if common == _DAY:
        over_weekends = gaps[timedelta(days=3)] and not weekend
        return Frequency.BUSINESS_DAILY if over_weekends else Frequency.DAILY
    for frequency, step in STEPS.items():
        if common == step:
            return frequency
    for frequency, (fewest, most) in _DAYS.items():
        if timedelta(days=fewest) <= common <= timedelta(days=most):
            return frequency
    known = ", ".join(frequency.value for frequency in Frequency)
    raise ValueError(f"most steps are {common} long, which is none of {known}; give `frequency`")


def to_grid(frequency: Frequency, time: datetime) -> datetime:
    """The time as it is counted: by the clock on the wall for whole days, in UTC for what is shorter."""
    if time.tzinfo is None:
        return time
    return time.astimezone(UTC) if _within_a_day(frequency) else time.replace(tzinfo=None)


def from_grid(frequency: Frequency, time: datetime, zone: tzinfo | None) -> datetime:
    """The time of day in its zone again."""
    if zone is None:
        return time
    return time.astimezone(zone) if _within_a_day(frequency) else time.replace(tzinfo=zone)


def _within_a_day(frequency: Frequency) -> bool:
    return STEPS.get(frequency, _DAY) < _DAY


def place(frequency: Frequency, first: datetime, time: datetime) -> int | None:
    """Steps from `first` to `time`, both `to_grid`; None where `time` is not on the grid of `first`."""
    if frequency in STEPS:
        steps, rest = divmod(time - first, STEPS[frequency])
        return None if rest else steps
    if frequency in MONTHS:
        months, odd = divmod(12 * (time.year - first.year) + time.month - first.month, MONTHS[frequency])
        return None if odd else months
    weeks, days = divmod((time.date() - first.date()).days + first.weekday(), 7)
    if days > 4 or first.weekday() > 4 or time.time() != first.time():
        return None
    return 5 * weeks + days - first.weekday()


def fill(frequency: Frequency, before: datetime, steps: int) -> datetime:
    """The time that lies `steps` after `before`, both `to_grid`."""
    if frequency in STEPS:
        return before + steps * STEPS[frequency]
    if frequency in MONTHS:
        last = before.day == monthrange(before.year, before.month)[1]
        year, month = divmod(12 * before.year + before.month - 1 + steps * MONTHS[frequency], 12)
        most = monthrange(year, month + 1)[1]
        return before.replace(year=year, month=month + 1, day=most if last else min(before.day, most))
    weeks, days = divmod(before.weekday() + steps, 5)
    return before + timedelta(days=7 * weeks + days - before.weekday())


def _elapsed(before: datetime, after: datetime) -> timedelta:
    """Time between two times, by the clock on the wall for whole days and as it passes within a day."""
    wall = after.replace(tzinfo=None) - before.replace(tzinfo=None)
    if before.tzinfo is None or after.tzinfo is None or not wall % _DAY:
        return wall
    return after.astimezone(UTC) - before.astimezone(UTC)
