"""Reads the rows of a request into columns, with what each column of the context holds settled once.

Text is never taken for a number, though it may look like one; numbers in a column that holds text are the
names of categories too, so that `1` and `"1"` are one category there. A column without one value in the
context says nothing: whatever a query has there counts as missing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sheaf.api.tabular import TabularRequest
from sheaf.backends._shared.refusals import refuse
from sheaf.backends.contexts import content_key
from sheaf_client.errors import InvalidRequestError

Cell: TypeAlias = float | str | None
Rows: TypeAlias = Sequence[Sequence[Cell]]
#: A column: float64 with NaN for a missing value, or an object array of text and None. Shape (n_rows,).
Column: TypeAlias = npt.NDArray[Any]
#: What a prediction of classes may be.
Label: TypeAlias = int | float | str

#: Cells that are hashed at a time: nobody else runs in this process meanwhile.
_CELLS_AT_ONCE = 1 << 16


def context_key(request: TabularRequest, owner: str = "", secret: bytes = b"") -> str:
    """The identifier of a request's context: of its rows, labels, task, and what is said of its columns.

    No two owners' contexts have one. It takes time in proportion to the rows: for the model's own thread.
    """
    rows, labels = request.context_X or [], request.context_y or []
    if request.task == "regression":
        labels = [float(label) for label in labels]  # whole ones may not fit into 64 bits
    step = max(1, _CELLS_AT_ONCE // len(rows[0])) if rows else 1
    parts = [
        content_key(rows[start : start + step], labels[start : start + step])
        for start in range(0, len(rows), step)
    ]
    codes = sorted(request.categorical_feature_indices or ())
    return content_key("table", owner, request.task, request.feature_names, codes, parts, secret=secret)


def sketch(request: TabularRequest) -> Hashable:
    """A few cells of a context: equal for equal contexts, and taken in no time however large they are.

    Contexts that differ may have one sketch; it says which requests to look at together, not more.
    """
    rows, labels = request.context_X or [[]], request.context_y or []
    height, width = len(rows), len(rows[0])
    across = range(0, width, max(1, width // 8))
    down = range(0, height, max(1, height // 8))
    cells = tuple(rows[i][j] for i in down for j in across)
    return request.task, height, width, cells, tuple(labels[i] for i in down if i < len(labels))


@dataclass(frozen=True)
class Columns:
    """What the columns of a context hold.

    Attributes:
        width: how many there are.
        text: those that hold text, and so categories.
        codes: those that hold numbers which are codes of categories.
        empty: those without one value.
        names: names of the columns.
    """

    width: int
    text: frozenset[int]
    codes: frozenset[int]
    empty: frozenset[int]
    names: tuple[str, ...] | None = None

    @classmethod
    def of(cls, rows: Rows, declared: Collection[int], names: Sequence[str] | None = None) -> Columns:
        """What the columns of these rows hold, where the caller declared some to be categories."""
        kinds = [set(map(type, column)) for column in zip(*rows, strict=True)]
        text = {j for j, found in enumerate(kinds) if str in found}
        empty = {j for j, found in enumerate(kinds) if found == {type(None)}}
        codes = frozenset(declared) - text - empty
        return cls(
            len(kinds), frozenset(text), codes, frozenset(empty), None if names is None else tuple(names)
        )

    def name(self, j: int) -> str:
        """How an error speaks of a column."""
        return f"Column {j}" if self.names is None else f"Column {self.names[j]!r}"

    @property
    def categories(self) -> list[int]:
        """Columns that hold categories, in order."""
        return sorted(self.text | self.codes)

    def read(self, rows: Rows, field: str, largest: float = math.inf) -> list[Column]:
        """The columns of rows of this width, those of text as text.

        Raises:
            InvalidRequestError: There is text among numbers, or a number beyond `largest`; with its path.
        """
        columns: list[Column] = []
        for j, cells in enumerate(zip(*rows, strict=True)):
            if j in self.empty:
                column = np.full(len(cells), np.nan)
            elif j in self.text:
                column = np.empty(len(cells), dtype=object)
                column[:] = [_category(cell) for cell in cells]
            else:
                if str in set(map(type, cells)):
                    i = next(i for i, cell in enumerate(cells) if isinstance(cell, str))
                    message = f"{self.name(j)} of the context holds numbers, not text."
                    raise refuse(f"/{field}/{i}/{j}", message, "mismatch")
                column = np.array(cells, dtype=np.float64)
                beyond = np.flatnonzero(np.abs(column) > largest)
                if beyond.size:
                    message = f"The model takes numbers up to {largest:g}."
                    raise refuse(f"/{field}/{beyond[0]}/{j}", message, "out_of_range")
            columns.append(column)
        return columns


def _category(cell: Cell) -> str | None:
    if cell is None or isinstance(cell, str):
        return cell
    return repr(int(cell)) if float(cell).is_integer() else repr(cell)


@dataclass(frozen=True)
class Table:
    """A context as a model learns from it.

    Attributes:
        task: `classification` or `regression`.
        columns: what its columns hold.
        features: its columns, each of shape (n_rows,).
        target: shape (n_rows,): positions in `classes` as int64, or values as float64.
        classes: the classes met, numbers before names, each sorted; None for `regression`.
    """

    task: str
    columns: Columns
    features: list[Column]
    target: npt.NDArray[Any]
    classes: tuple[int | str, ...] | None


def read_table(request: TabularRequest, largest: float = math.inf) -> Table:
    """The context that a request carries; raises what `Columns.read` raises."""
    rows, labels = request.context_X or [], request.context_y or []
    columns = Columns.of(rows, request.categorical_feature_indices or (), request.feature_names)
    features = columns.read(rows, "context_X", largest)
    if request.task == "regression":
        check_quantities(request, largest)
        return Table(request.task, columns, features, np.array(labels, dtype=np.float64), None)
    classes = classes_of(labels)
    position: dict[Label, int] = {label: i for i, label in enumerate(classes)}
    target = np.array([position[label] for label in labels], dtype=np.int64)
    return Table(request.task, columns, features, target, classes)


def check_quantities(request: TabularRequest, largest: float) -> None:
    """Refuse a quantity to learn that is beyond `largest`, with its path; whole numbers come of any size."""
    labels: Any = request.context_y or ()
    if request.task == "regression" and any(abs(label) > largest for label in labels):
        beyond = next(i for i, label in enumerate(labels) if abs(label) > largest)
        raise refuse(f"/context_y/{beyond}", f"The model takes numbers up to {largest:g}.", "out_of_range")


def classes_of(labels: Sequence[Label]) -> tuple[int | str, ...]:
    """The classes among labels, numbers before names, each sorted; refuses what is no class, with its path.

    A class is a name, or a whole number that each encoding of an answer can carry and that a float can be
    told by.
    """
    met = set(labels)
    numbers = {label for label in met if not isinstance(label, str)}
    if strange := {label for label in numbers if not _is_class(label)}:
        i = next(i for i, label in enumerate(labels) if label in strange)
        message = (
            'A class is a whole number within 64 bits, or a name; for quantities give task="regression".'
        )
        raise refuse(f"/context_y/{i}", message, "not_allowed")
    return (*sorted(map(int, numbers)), *sorted(label for label in met if isinstance(label, str)))


def _is_class(label: float) -> bool:
    if isinstance(label, float):
        return label.is_integer() and abs(label) <= 2**53
    return -(2**63) <= label < 2**64


def check_query(request: TabularRequest, table: Table) -> InvalidRequestError | None:
    """Why a request cannot be asked of a context that it names by `context_id`, if it cannot."""
    if request.task != table.task:
        return refuse("/task", f"The context was sent for {table.task}.", "mismatch")
    if len(request.query_X[0]) != table.columns.width:
        message = f"The context has {table.columns.width} columns."
        return refuse("/query_X", message, "mismatch")
    if request.feature_names is not None and tuple(request.feature_names) != table.columns.names:
        said = "other names" if table.columns.names else "no names"
        return refuse("/feature_names", f"The context was sent with {said} of its columns.", "mismatch")
    return None
