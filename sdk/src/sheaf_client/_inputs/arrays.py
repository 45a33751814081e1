"""Arrays, series and frames as the plain lists of the contracts, and as the arrays of its tensor fields.

Recognised by what they can do (`tolist`, `to_list`, `to_numpy`), so that nothing is imported for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Protocol, TypeAlias, cast, runtime_checkable

from sheaf_client._inputs.frames import is_frame, rows_of, values_of
from sheaf_client._inputs.kinds import comes_from
from sheaf_client._inputs.sequences import as_text


@runtime_checkable
class _HasToList(Protocol):
    def tolist(self) -> Any: ...


@runtime_checkable
class _HasToPyList(Protocol):
    def to_list(self) -> Any: ...


@runtime_checkable
class _HasToNumpy(Protocol):
    def to_numpy(self) -> Any: ...


#: A numpy array, a torch tensor, a pandas or polars series or frame, or anything that reads like one.
ArrayLike: TypeAlias = _HasToList | _HasToPyList | _HasToNumpy


#: Types whose values go into a body as they are.
_PLAIN = frozenset({str, int, float, bool, type(None)})


def plain(value: Any) -> Any:
    """Lists for arrays, rows for frames, text for sequences and molecules, however deep in lists."""
    # pandas' own time is a datetime that knows `to_numpy`, which gives a bare integer.
    if isinstance(value, str | bytes | int | float | date | None):
        return value
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        items = cast("Sequence[Any]", value)
        return [plain(item) for item in items] if _needs_work(items) else items
    if is_frame(value):
        return rows_of(value)
    if comes_from(value, "pandas", "Series", "Index"):
        return values_of(value.to_series() if comes_from(value, "pandas", "Index") else value)
    if comes_from(value, "pandas", "Period"):
        return value.to_timestamp()
    if comes_from(value, "numpy", "ndarray", "datetime64", "timedelta64") and value.dtype.kind in "mM":
        # Finer than microseconds numpy itself gives bare integers.
        return value.astype(f"{value.dtype.kind}8[us]").tolist()
    if isinstance(value, _HasToList):
        return value.tolist()
    if isinstance(value, _HasToPyList):
        return value.to_list()
    if isinstance(value, _HasToNumpy):
        return plain(value.to_numpy())
    return as_text(value)


def _needs_work(items: Sequence[Any]) -> bool:
    """A long list of plain numbers, by far the most common, is left alone after one quick look."""
    return not _PLAIN.issuperset(map(type, items))


def missing_as_none(value: Any) -> Any:
    """NaN in lists of numbers becomes None: pandas and numpy have no other way to say `missing`."""
    if isinstance(value, float) and value != value:  # noqa: PLR0124 - NaN alone differs from itself
        return None
    if isinstance(value, list | tuple):
        return [missing_as_none(item) for item in cast("Sequence[Any]", value)]
    if isinstance(value, Mapping):
        return {key: missing_as_none(item) for key, item in cast("Mapping[str, Any]", value).items()}
    return value


def dense(value: Any) -> Any:
    """What numpy can read in one go: torch tensors leave their device and their gradients behind."""
    if comes_from(value, "torch", "Tensor"):
        value = value.detach().cpu()
        # numpy knows no bfloat16; float32 holds each of its values.
        return (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    if isinstance(value, _HasToNumpy):
        return value.to_numpy()
    return rows_of(value) if is_frame(value) else value
