"""Places of times on the grid of a frequency: how far apart two times are, what lies between and after."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from sheaf_client.contracts.time_series import Frequency

DAY = timedelta(days=1)
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
#: The day of a grid of month ends: the last of each month, however long it is.
MONTH_END = 31
FRIDAY = 4


@dataclass(frozen=True)
class Grid:
    """The times that one series can have: every step of `frequency` from `first` on, forwards and backwards.

    Attributes:
        first: a time of the series, as `to_grid` counts it.
        day: day of the month where steps are months, the last one where a month is shorter.
    """

    frequency: Frequency
    first: datetime
    day: int = MONTH_END

    @classmethod
    def of(cls, frequency: Frequency, times: Sequence[datetime]) -> Grid:
        """The grid of these times, which may yet lie off it: month ends where all of them are."""
        ends = frequency in MONTHS and all(map(is_month_end, times))
        return cls(frequency, times[0], MONTH_END if ends else max(time.day for time in times))

    def place(self, time: datetime) -> int | None:
        """Steps from `first` to `time`, as `to_grid` counts it; None where it is off the grid."""
        if self.frequency in STEPS:
            steps, rest = divmod(time - self.first, STEPS[self.frequency])
            return None if rest else steps
        if self.frequency in MONTHS:
            between = 12 * (time.year - self.first.year) + time.month - self.first.month
            steps, odd = divmod(between, MONTHS[self.frequency])
            return None if odd or self.at(steps) != time else steps
        weeks, days = divmod((time.date() - self.first.date()).days + self.first.weekday(), 7)
        if days > FRIDAY or self.first.weekday() > FRIDAY or time.time() != self.first.time():
            return None
        return 5 * weeks + days - self.first.weekday()

    def at(self, place: int) -> datetime:
        """The time at a place; raises `OverflowError` or `ValueError` beyond the years 1 to 9999."""
        if self.frequency in STEPS:
            return self.first + place * STEPS[self.frequency]
        if self.frequency in MONTHS:
            months = 12 * self.first.year + self.first.month - 1 + place * MONTHS[self.frequency]
            year, month = divmod(months, 12)
            day = min(self.day, monthrange(year, month + 1)[1])
            return self.first.replace(year=year, month=month + 1, day=day)
        weeks, days = divmod(self.first.weekday() + place, 5)
        return self.first + timedelta(days=7 * weeks + days - self.first.weekday())


def is_month_end(time: datetime) -> bool:
    """Whether it is the last day of its month."""
    return time.day == monthrange(time.year, time.month)[1]


def to_grid(frequency: Frequency, time: datetime) -> datetime:
    """The time as it is counted: by the clock on the wall for whole days, in UTC for what is shorter."""
    if time.tzinfo is None:
        return time
    return time.astimezone(UTC) if within_a_day(frequency) else time.replace(tzinfo=None)


def from_grid(frequency: Frequency, time: datetime, zone: tzinfo | None) -> datetime:
    """The time of day in its zone again."""
    if zone is None:
        return time
    return time.astimezone(zone) if within_a_day(frequency) else time.replace(tzinfo=zone)


def within_a_day(frequency: Frequency) -> bool:
    """Whether its steps are shorter than a day."""
    return STEPS.get(frequency, DAY) < DAY
