"""Turns arrays and frames as people hold them into the plain lists of the contracts.

Recognised by what they can do (`tolist`, `to_list`, `to_numpy`), so that nothing is imported for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias, cast, runtime_checkable


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
    """Lists for arrays, at any depth of lists and mappings; anything else stays as it is."""
    if isinstance(value, str | bytes | int | float | None):
        return value
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        items = cast("Sequence[Any]", value)
        return [plain(item) for item in items] if _needs_work(items) else items
    if isinstance(value, _HasToList):
        return value.tolist()
    if isinstance(value, _HasToPyList):
        return value.to_list()
    if isinstance(value, _HasToNumpy):
        return value.to_numpy().tolist()
    return value


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
