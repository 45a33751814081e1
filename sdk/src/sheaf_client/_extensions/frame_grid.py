"""Puts the times of one series on a grid, and refuses what lies off it or so far off that it is a typo."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

from sheaf_client._errors import InvalidFrameError
from sheaf_client._extensions.calendar import MONTH_END, MONTHS, Grid, to_grid
from sheaf_client._extensions.frequencies import Rule

#: Most steps of one series, as the contract has it.
MAX_STEPS = 1_000_000
#: Missing steps in a row that, if they are more than all other steps together, are taken for a typo.
FAR_OFF = 1_000


def on_grid(
    series: str, held: Sequence[datetime], rule: Rule, *, inferred: bool, one: bool
) -> tuple[Grid, list[int]]:
    """The grid of increasing times, and the place of each on it; nothing is filled in here.

    Args:
        series: how messages call the series; `one` says that the frame has no column of ids.
        inferred: the rule was read off the times.

    Raises:
        InvalidFrameError: A time is there twice, off the grid, or far off.
    """
    check_distinct(series, held, one=one)
    times = [to_grid(rule.frequency, time) for time in held]
    grid = Grid.of(rule.frequency, times)
    if rule.day is not None:
        grid = Grid(rule.frequency, times[0], rule.day)
    places: list[int] = []
    for time, shown in zip(times, held, strict=True):
        at = grid.place(time)
        if at is None or (places and at <= places[-1]) or (rule.fits and not rule.fits(time)):
            raise InvalidFrameError(
                f"{series}: {shown.isoformat()} is not on {_told(grid, rule)} that begins at "
                f"{held[0].isoformat()}{_advice(rule, inferred=inferred)}"
            )
        places.append(at)
    _check_spread(series, places, held, rule, inferred=inferred)
    return grid, places


def check_distinct(series: str, held: Sequence[datetime], *, one: bool) -> None:
    """Refuse a time that is there twice among times in order; the rest as for `on_grid`."""
    for before, time in pairwise(held):
        if before == time:
            hint = "; where the frame has several series, give `id_col`" if one else ""
            raise InvalidFrameError(f"{series} has the time {time.isoformat()} twice{hint}")


def _told(grid: Grid, rule: Rule) -> str:
    if grid.frequency not in MONTHS:
        return f"the {rule.name} grid"
    day = "the last day" if grid.day == MONTH_END else f"day {grid.day}"
    return f"the {rule.name} grid of {day} of the month"


def _advice(rule: Rule, *, inferred: bool) -> str:
    told = ""
    if rule.frequency in MONTHS:
        told = (
            "; months go from one day to the same day or from end to end, and no other rule, such as "
            "business months or four weeks, can be forecast: move the times to such days"
        )
    guess = f"; {rule.name} was inferred from most steps, give `frequency` if it is another"
    return told + (guess if inferred else "")


def _check_spread(
    series: str, places: Sequence[int], held: Sequence[datetime], rule: Rule, *, inferred: bool
) -> None:
    """Refuse times that are far off, before all that lies between them is filled in."""
    steps = places[-1] + 1
    span = f"{held[0].isoformat()} to {held[-1].isoformat()}"
    if steps > MAX_STEPS:
        raise InvalidFrameError(
            f"{series} has {steps:,} steps of {rule.name} from {span}, and at most {MAX_STEPS:,} can be "
            "sent; is one of its times a typo?"
        )
    widest, at = max(((b - a, i) for i, (a, b) in enumerate(pairwise(places))), default=(1, 0))
    if widest > FAR_OFF and widest > steps - widest:
        raise InvalidFrameError(
            f"{series}: {widest - 1:,} steps of {rule.name} are missing between {held[at].isoformat()} and "
            f"{held[at + 1].isoformat()}, more than there are; is one of the two a typo?"
        )
    if inferred and 2 * len(places) < steps:
        raise InvalidFrameError(
            f"{series} has {len(places):,} of the {steps:,} steps of {rule.name} from {span}; give "
            "`frequency` to have the others taken for missing values"
        )
