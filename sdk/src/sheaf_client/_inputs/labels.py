"""Labels as people hold them (a list, a series, a frame of one column, flags) as one list of cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from sheaf_client._inputs.arrays import plain
from sheaf_client._inputs.cells import as_cells, fault, oddity, refusal
from sheaf_client._inputs.frames import columns_of, is_frame

_FIELD = "/context_y"


def labels_of(value: Any, task: Any) -> Any:
    """Labels of shape (n_context,), also out of a frame of one column or an array of shape (n_context, 1).

    Truth values are the classes 0 and 1; whole floats are whole numbers where they are classes. What is no
    list stays as it is: the contract refuses it.

    Raises:
        InvalidRequestError: There are several columns, labels that are missing, or labels that are no number
            and no text. Each is told once.
    """
    labels = _one_column(value)
    if not isinstance(labels, list | tuple):
        return labels
    cells = as_cells(cast("Sequence[Any]", labels))
    gaps = [i for i, cell in enumerate(cells) if cell is None or cell != cell]  # noqa: PLR0124 - NaN alone
    if gaps:
        told = "1 label is missing, that" if len(gaps) == 1 else f"{len(gaps)} labels are missing, the first"
        message = f"{told} of row {gaps[0]} (counted from 0): leave such rows out."
        raise refusal(fault("wrong_type", f"{_FIELD}/{gaps[0]}", message))
    for i, cell in enumerate(cells):
        if (odd := oddity(cell)) is not None:
            message = f"The labels hold {odd.what}: give {odd.instead}."
            raise refusal(fault("wrong_type", f"{_FIELD}/{i}", message))
    if task == "regression":
        return cells
    return [int(cell) if _is_whole(cell) else cell for cell in cells]


def _is_whole(cell: Any) -> bool:
    """Whether a float is a whole number, and no other whole number is the same float."""
    return isinstance(cell, float) and cell.is_integer() and abs(cell) <= 2**53


def _one_column(value: Any) -> Any:
    """The one column of a frame, of an array or of rows; the labels themselves where they are flat."""
    if is_frame(value):
        columns = columns_of(value)
        if len(columns) != 1:
            names = ", ".join(map(repr, list(columns)[:10]))
            message = f"Must be one column of labels; the frame has {len(columns)}: {names}."
            raise refusal(fault("wrong_type", _FIELD, message))
        return next(iter(columns.values()))
    labels = plain(value)
    if not isinstance(labels, list | tuple):
        return labels
    rows = cast("Sequence[Any]", labels)
    widths = {len(cast("Sequence[Any]", row)) if isinstance(row, list | tuple) else None for row in rows}
    if widths == {1}:
        return [row[0] for row in rows]
    if len(widths) == 1 and (width := widths.pop()) is not None:
        message = f"Must be one label to a row; each row has {width}."
        raise refusal(fault("wrong_type", _FIELD, message))
    return rows
