"""Rows to learn from and rows to predict out of frames: one order of columns, their names, categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from sheaf_client._inputs.frames import columns_of, is_frame, values_of
from sheaf_client._inputs.kinds import comes_from

FIELDS = frozenset({"context_X", "query_X", "feature_names", "categorical_feature_indices"})
_ROWS = ("context_X", "query_X")
#: How the types of columns begin that hold categories or text.
_CATEGORIES = ("category", "dictionary", "Categorical", "Enum", "string", "String", "large_string")


def table_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords with the rows of their frames in one order of columns, and what the frames tell of these.

    The order is that of `feature_names`, else of `context_X`, else of `query_X`. `feature_names` are filled
    in where the columns have names, `categorical_feature_indices` where columns of `context_X` hold
    categories or text. Truth values are 0 and 1.

    Raises:
        InvalidRequestError: A frame lacks a column, has one more, or has two of one name.
    """
    fields = dict(given)
    frames = {field: _Frame(given[field]) for field in _ROWS if is_frame(given.get(field))}
    named = {field: frame for field, frame in frames.items() if frame.names is not None}
    source, order = "feature_names", given.get("feature_names")
    if order is None and named:
        source, frame = next(iter(named.items()))
        order = fields["feature_names"] = frame.names
    for field, frame in frames.items():
        if order is not None and field in named:
            frame.put_in_order(field, [str(name) for name in order], source)
        fields[field] = frame.rows()
    context = frames.get("context_X")
    if context is not None and "categorical_feature_indices" not in given:
        fields["categorical_feature_indices"] = context.categories() or None
    return fields


class _Frame:
    """The columns of a frame, each with its type and its values."""

    def __init__(self, frame: Any) -> None:
        columns = _columns(frame)
        self._columns = [(name, kind, values) for name, kind, values in columns]
        #: None where the columns are numbered, as those of a bare array are.
        self.names = (
            [name for name, *_ in columns] if all(isinstance(name, str) for name, *_ in columns) else None
        )

    def put_in_order(self, field: str, order: Sequence[str], source: str) -> None:
        """Bring the columns into this order of names."""
        names = cast("list[str]", self.names)
        missing = [name for name in order if name not in names]
        extra = [name for name in names if name not in order]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise _refusal(field, "unique", f"Must have each column once; {_listed(twice)} is there twice.")
        if missing or extra:
            lacks = f"lacks {_listed(missing)}" if missing else ""
            has = f"has {_listed(extra)} more" if extra else ""
            found = " and ".join(part for part in (lacks, has) if part)
            raise _refusal(field, "mismatch", f"Must have the columns of {source}: it {found}.")
        self._columns.sort(key=lambda column: order.index(column[0]))

    def rows(self) -> list[list[Any]]:
        """The rows, each a list in the order of the columns."""
        values = ([int(v) if isinstance(v, bool) else v for v in column] for *_, column in self._columns)
        return [list(row) for row in zip(*values, strict=True)]

    def categories(self) -> list[int]:
        """Places of the columns that hold categories or text."""
        return [
            place
            for place, (_, kind, values) in enumerate(self._columns)
            if kind == "str"
            or kind.startswith(_CATEGORIES)
            or any(isinstance(value, str) for value in values)
        ]


def _columns(frame: Any) -> list[tuple[Any, str, list[Any]]]:
    """Name, type and values of each column; a missing value is None, NaN stays."""
    if comes_from(frame, "pandas", "DataFrame"):
        places = [frame.iloc[:, place] for place in range(len(frame.columns))]
        return [(column.name, str(column.dtype), values_of(column)) for column in places]
    types = frame.schema.types if comes_from(frame, "pyarrow", "Table", "RecordBatch") else frame.dtypes
    columns = columns_of(frame).items()
    return [(name, str(kind), values) for (name, values), kind in zip(columns, types, strict=True)]


def _listed(names: Sequence[str]) -> str:
    most = 10
    more = f" and {len(names) - most} others" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more


def _refusal(field: str, code: str, message: str) -> Exception:
    from sheaf_client.contracts.problem import Fault
    from sheaf_client.errors import InvalidRequestError

    fault = Fault(code=code, path=f"/{field}", message=message)
    return InvalidRequestError("The request is invalid.", errors=[fault])
