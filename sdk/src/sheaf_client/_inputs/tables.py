"""Rows to learn from, their labels, and rows to predict: one order of columns, their names, categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from sheaf_client._inputs.arrays import plain
from sheaf_client._inputs.cells import as_cell, as_cells, fault, needs_no_work, oddity, refusal
from sheaf_client._inputs.frames import columns_of, is_frame, values_of
from sheaf_client._inputs.kinds import comes_from
from sheaf_client._inputs.labels import labels_of

if TYPE_CHECKING:
    from sheaf_client.contracts.problem import Fault

FIELDS = frozenset({"context_X", "context_y", "query_X", "feature_names", "categorical_feature_indices"})
_ROWS = ("context_X", "query_X")
#: How the types of columns begin that hold categories or text.
_CATEGORIES = ("category", "dictionary", "Categorical", "Enum", "string", "String", "large_string")


def table_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords with their rows as cells in one order of columns, and their labels as one list of cells.

    The order is that of `feature_names`, else of `context_X`, else of `query_X`. `feature_names` are filled
    in where the columns have names, `categorical_feature_indices` where columns of `context_X` hold
    categories or text. Truth values are 0 and 1, in cells and in labels.

    Raises:
        InvalidRequestError: A frame lacks a column, has one more, or has two of one name; a column holds what
            is no number and no text (a fault for each column); labels are missing, or are no one column.
    """
    fields = dict(given)
    frames = {field: _Frame(given[field]) for field in _ROWS if is_frame(given.get(field))}
    named = {field: frame for field, frame in frames.items() if frame.names is not None}
    source, order = "feature_names", given.get("feature_names")
    if order is None and named:
        source, frame = next(iter(named.items()))
        order = fields["feature_names"] = frame.names
    names = None if order is None else [str(name) for name in order]
    for field, frame in frames.items():
        if names is not None and field in named:
            frame.put_in_order(field, names, source)
        fields[field] = frame.rows()
    faults: dict[int, Fault] = {}
    for field in _ROWS:
        if fields.get(field) is not None:
            fields[field] = _cells(fields[field], field, names or [], faults)
    if faults:
        raise refusal(*faults.values())
    if given.get("context_y") is not None:
        fields["context_y"] = labels_of(given["context_y"], given.get("task", "classification"))
    context = frames.get("context_X")
    if context is not None and "categorical_feature_indices" not in given:
        fields["categorical_feature_indices"] = context.categories() or None
    return fields


def _cells(rows: Any, field: str, names: Sequence[str], faults: dict[int, Fault]) -> Any:
    """Rows with their cells read, and a fault for each column that has none yet and holds something else.

    What is no list of rows stays as it is: the contract refuses it.
    """
    if comes_from(rows, "numpy", "ndarray") and rows.dtype.kind in "iuf" and rows.dtype.itemsize <= 8:
        return rows  # numbers alone
    if not isinstance(rows, list | tuple):
        rows = plain(rows)
    if not isinstance(rows, list | tuple):
        return rows
    read: list[Any] = []
    for i, given in enumerate(cast("Sequence[Any]", rows)):
        row = given
        if not isinstance(row, list | tuple) or not needs_no_work(cast("Sequence[Any]", row)):
            row = plain(row)
        if not isinstance(row, list | tuple) or needs_no_work(cast("Sequence[Any]", row)):
            read.append(row)
            continue
        cells = [as_cell(cell) for cell in cast("Sequence[Any]", row)]
        read.append(cells)
        for j, cell in enumerate(cells):
            if (odd := oddity(cell)) is not None and j not in faults:
                name = repr(names[j]) if j < len(names) else str(j)
                message = f"Column {name} holds {odd.what}: give {odd.instead}."
                faults[j] = fault("wrong_type", f"/{field}/{i}/{j}", message)
    return read


class _Frame:
    """The columns of a frame, each with its type and its values."""

    def __init__(self, frame: Any) -> None:
        columns = _columns(frame)
        self._columns = [(name, kind, as_cells(values)) for name, kind, values in columns]
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
            raise _refused(field, "unique", f"Must have each column once; {_listed(twice)} is there twice.")
        if missing or extra:
            lacks = f"lacks {_listed(missing)}" if missing else ""
            has = f"has {_listed(extra)} more" if extra else ""
            found = " and ".join(part for part in (lacks, has) if part)
            raise _refused(field, "mismatch", f"Must have the columns of {source}: it {found}.")
        self._columns.sort(key=lambda column: order.index(column[0]))

    def rows(self) -> list[list[Any]]:
        """The rows, each a list in the order of the columns."""
        values = (column for *_, column in self._columns)
        return [list(row) for row in zip(*values, strict=True)]

    def categories(self) -> list[int]:
        """Places of the columns that hold categories or text."""
        return [
            place
            for place, (_, kind, values) in enumerate(self._columns)
            if kind == "str" or kind.startswith(_CATEGORIES) or str in set(map(type, values))
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


def _refused(field: str, code: str, message: str) -> Exception:
    return refusal(fault(code, f"/{field}", message))
