"""Cells of tables as the contract has them, numbers, text and None, and what to say of any other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from sheaf_client._inputs.kinds import comes_from

if TYPE_CHECKING:
    from sheaf_client.contracts.problem import Fault

_PLAIN = frozenset({str, int, float, type(None)})


class Oddity(NamedTuple):
    """What a cell is that is no number and no text, and what to give in its place."""

    what: str
    instead: str


_ODDITIES: tuple[tuple[type, Oddity], ...] = (
    (date, Oddity("dates", "numbers, as the year or the days since one day, or text")),
    (timedelta, Oddity("durations", "numbers, as their seconds")),
    (time, Oddity("times of day", "numbers, as their hours, or text")),
    (bytes, Oddity("bytes", "text")),
)


def as_cell(value: Any) -> Any:
    """A number, text or None for a value that stands for one; any other value as it is.

    Truth values are 0 and 1, decimals and fractions are floats, intervals are text; `NA` and `NaT` are None.
    """
    if type(value) in _PLAIN:
        return value
    if comes_from(value, "numpy", "generic"):
        if value.dtype.kind in "mM":  # finer than microseconds numpy itself gives bare integers
            value = value.astype(f"{value.dtype.kind}8[us]")
        value = value.item()
    if type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, Decimal) and value.is_nan()):
        return None
    if isinstance(value, str) or comes_from(value, "pandas", "Interval"):
        return str.__str__(value) if isinstance(value, str) else str(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real | Decimal):
        try:
            return float(value)
        except OverflowError:  # a fraction beyond all floats
            return float("inf") if cast("Any", value) > 0 else float("-inf")
    return value


def as_cells(values: Sequence[Any]) -> list[Any]:
    """The cells of a column or of a row; see `as_cell`."""
    return list(values) if needs_no_work(values) else [as_cell(value) for value in values]


def needs_no_work(values: Iterable[Any]) -> bool:
    """Whether all are numbers, text or None already: by far the most common, so it is one quick look."""
    return _PLAIN.issuperset(map(type, values))


def oddity(cell: Any) -> Oddity | None:
    """What a cell is, where it is no number, no text and not missing."""
    if type(cell) in _PLAIN:
        return None
    unknown = Oddity(f"values of type {type(cell).__name__}", "numbers or text")
    return next((odd for kind, odd in _ODDITIES if isinstance(cell, kind)), unknown)


def fault(code: str, path: str, message: str) -> Fault:
    """One thing that is wrong, and where in the body."""
    from sheaf_client.contracts.problem import Fault

    return Fault(code=code, path=path, message=message)


def refusal(*faults: Fault) -> Exception:
    """The error that tells these faults."""
    from sheaf_client.errors import InvalidRequestError

    many = "" if len(faults) == 1 else f" in {len(faults)} places"
    return InvalidRequestError(f"The request is invalid{many}.", errors=list(faults))
