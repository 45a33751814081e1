"""A backend for tables: fits each context once, and answers all who ask it in one pass.

What a library adds is how to fit a table and how to predict with what was fitted.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from sheaf.api.tabular import TabularRequest, TabularResponse
from sheaf.backends._families.tabular.tables import (
    Column,
    Table,
    check_quantities,
    check_query,
    classes_of,
    context_key,
    read_table,
    sketch,
)
from sheaf.backends._shared.refusals import attempt, check_finite, compute_together, refuse
from sheaf.backends.base import ModelBackend, respond
from sheaf.backends.owners import owner_of
from sheaf_client.contracts.base import Metadata
from sheaf_client.errors import InvalidRequestError

#: Most bytes of an answer as JSON, and bytes of a number in it.
MAX_ANSWER, _NUMBER = 80_000_000, 20

Array = npt.NDArray[np.floating[Any]]


#: Where a context is kept: whose it is, and its identifier.
_Place: TypeAlias = tuple[str, str]


@dataclass(frozen=True)
class Prediction:
    """What a model says of rows.

    Attributes:
        probabilities: for classes, shape (n_rows, n_classes), each row summing to 1.
        mean: for quantities, shape (n_rows,).
        quantiles: by level, each of shape (n_rows,).
    """

    probabilities: Array | None = None
    mean: Array | None = None
    quantiles: dict[float, Array] | None = None

    def rows(self, start: int, stop: int) -> Prediction:
        """What it says of some of the rows."""
        return Prediction(
            None if self.probabilities is None else self.probabilities[start:stop],
            None if self.mean is None else self.mean[start:stop],
            {level: values[start:stop] for level, values in (self.quantiles or {}).items()},
        )


class Fitted(Protocol):
    """A model that has learned a table."""

    @property
    def size(self) -> int:
        """Bytes of memory it holds."""
        ...

    def predict(self, features: Sequence[Column], levels: Sequence[float]) -> Prediction:
        """Predict rows, given by columns; for quantities with their quantiles at `levels`."""
        ...

    def trim(self) -> None:
        """Let go of what can be made again from the rest."""
        ...


@dataclass(frozen=True)
class _Context:
    """A fitted context, with what a request must agree with to ask it; the rows themselves are not kept."""

    table: Table
    n_rows: int
    sketch: Hashable
    fitted: Fitted


class TabularBackend(ModelBackend[TabularRequest, TabularResponse]):
    """Classes and quantities from labelled rows, with fitted contexts kept within a bound in bytes.

    Args:
        max_context_bytes: most bytes of fitted contexts; 0 keeps none.
    """

    model_type: ClassVar[str] = "tabular"
    keeps_contexts: ClassVar[bool] = True

    #: The largest magnitude of a number that the model can take.
    largest: ClassVar[float] = sys.float_info.max

    def __init__(self, max_context_bytes: int = 2**30) -> None:
        if max_context_bytes < 0:
            raise ValueError(f"max_context_bytes must be at least 0, not {max_context_bytes}")
        self.contexts.max_bytes = max_context_bytes

    @abstractmethod
    def fit(self, table: Table) -> Fitted:
        """Learn a table; raises `InvalidRequestError` for one that the model cannot learn."""

    def check_context(self, request: TabularRequest, n_classes: int) -> None:
        """Raise `InvalidRequestError` for a context beyond the model's limits."""

    def check_task(self, task: str) -> None:
        """Raise `InvalidRequestError` for a task that this model does not serve."""

    def check(self, request: TabularRequest) -> None:
        self.check_task(request.task)
        check_quantities(request, self.largest)
        if request.context_id is None:
            classes = classes_of(request.context_y or []) if request.task == "classification" else ()
            self.check_context(request, len(classes))
        else:
            context: _Context | None = self.contexts.peek(self._place(request))
            fault = _gone() if context is None else check_query(request, context.table)
            if fault is not None:
                raise fault
        if (size := self.answer_size(request)) > MAX_ANSWER:
            most = len(request.query_X) * MAX_ANSWER // size
            message = f"The answer would have {size:,} bytes, {MAX_ANSWER:,} at most: send {most} rows."
            raise refuse("/query_X", message, "out_of_range")

    def answer_size(self, request: TabularRequest) -> int:
        columns, label = 1, 0
        if request.task == "classification":
            classes = self._classes_of(request)
            label = max((len(name) for name in classes if isinstance(name, str)), default=0)
            columns += len(classes) * (request.output_mode == "probabilities")
        elif request.output_mode == "quantiles":
            columns += len(request.quantile_levels)
        return len(request.query_X) * (columns * _NUMBER + label)

    def _classes_of(self, request: TabularRequest) -> Collection[object]:
        """The classes that an answer may name, in no order."""
        if request.context_id is None:
            return set(request.context_y or ())
        context: _Context | None = self.contexts.peek(self._place(request))
        return () if context is None else context.table.classes or ()

    def batch_key(self, request: TabularRequest) -> Hashable:
        """Equal for requests on one context, whether they bring its rows or its identifier."""
        if request.context_id is None:
            return sketch(request)
        context: _Context | None = self.contexts.peek(self._place(request))
        return request.context_id if context is None else context.sketch

    def cost(self, request: TabularRequest) -> float:
        """Rows to predict."""
        return float(len(request.query_X))

    def batch_predict(self, requests: Sequence[TabularRequest]) -> list[TabularResponse | Exception]:
        """Answer requests on any contexts; those on one context share a fit and a pass.

        What a context turns out not to fit is refused in its place: its rows are read only now, and one that
        was kept when the request was checked may be gone.
        """
        groups: dict[_Place, list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(self._place(request), []).append(index)
        answers: dict[int, TabularResponse | Exception] = {}
        for key, members in groups.items():
            found = self._answer(key, [requests[index] for index in members])
            answers |= zip(members, found, strict=True)
        return [answers[index] for index in range(len(requests))]

    def _place(self, request: TabularRequest) -> _Place:
        owner = owner_of(request)
        return owner, request.context_id or context_key(request, owner, self.contexts.secret)

    def _answer(self, key: _Place, requests: list[TabularRequest]) -> list[TabularResponse | Exception]:
        """Answers of requests on one context, in their order."""
        context: _Context | None = self.contexts.get(key)
        hit = context is not None
        try:
            if context is None:
                source = next((request for request in requests if request.context_X is not None), None)
                if source is None:
                    raise _gone()
                context = self._learn(source)
                self._keep(key, context)
        except InvalidRequestError as error:
            return [error for _ in requests]

        def read(request: TabularRequest) -> tuple[TabularRequest, list[Column]]:
            if (fault := check_query(request, context.table)) is not None:
                raise fault
            return request, context.table.columns.read(request.query_X, "query_X", self.largest)

        def predict(read: Sequence[tuple[TabularRequest, list[Column]]]) -> list[TabularResponse | Exception]:
            prediction = self._predict(key, context, read)
            kept = key[1] if key in self.contexts else None
            ends = np.cumsum([len(request.query_X) for request, _ in read]).tolist()
            return [
                attempt(_respond, request, context, prediction.rows(start, end), kept, hit=hit)
                for (request, _), start, end in zip(read, [0, *ends], ends, strict=False)
            ]

        return [*compute_together(requests, read, predict)]

    def _learn(self, request: TabularRequest) -> _Context:
        table = read_table(request, self.largest)
        fitted = self.fit(table)
        # What a query is read by; the rows live on in what was fitted, where it needs them.
        outline = Table(table.task, table.columns, [], table.target[:0], table.classes)
        return _Context(outline, len(table.target), sketch(request), fitted)

    def _keep(self, key: _Place, context: _Context) -> None:
        if context.fitted.size > self.contexts.max_bytes:
            context.fitted.trim()
        self.contexts.put(key, context, context.fitted.size)

    def _predict(
        self, key: _Place, context: _Context, read: Sequence[tuple[TabularRequest, list[Column]]]
    ) -> Prediction:
        """One pass over the rows of several requests, at the levels of all of them."""
        levels = {
            level
            for request, _ in read
            if request.output_mode == "quantiles"
            for level in request.quantile_levels
        }
        size = context.fitted.size
        joined = [np.concatenate(parts) for parts in zip(*(columns for _, columns in read), strict=True)]
        prediction = context.fitted.predict(joined, sorted(levels))
        if context.fitted.size != size and key in self.contexts:
            self._keep(key, context)
        return prediction


def _gone() -> InvalidRequestError:
    message = "No context of this identifier is kept (any more): send its rows again."
    return refuse("/context_id", message)


def _respond(
    request: TabularRequest, context: _Context, prediction: Prediction, kept: str | None, *, hit: bool
) -> TabularResponse:
    table, fields = context.table, dict[str, Any]()
    warnings: list[str] = []
    if table.classes is not None:
        probabilities = prediction.probabilities
        if probabilities is None:
            raise TypeError("the model gave no probabilities")
        _check_finite(probabilities)
        fields["predictions"] = [table.classes[i] for i in probabilities.argmax(axis=1).tolist()]
        fields["classes"] = list(table.classes)
        if request.output_mode == "probabilities":
            fields["probabilities"] = probabilities.tolist()
    else:
        if prediction.mean is None:
            raise TypeError("the model gave no mean")
        _check_finite(prediction.mean)
        fields["predictions"] = prediction.mean.tolist()
        if request.output_mode == "quantiles":
            quantiles = {level: (prediction.quantiles or {})[level] for level in request.quantile_levels}
            _check_finite(*quantiles.values())
            fields["quantiles"] = {repr(level): values.tolist() for level, values in quantiles.items()}
            warnings += _crossings(quantiles)
    return respond(
        request,
        TabularResponse,
        **fields,
        task=request.task,
        n_context=context.n_rows,
        n_query=len(request.query_X),
        context_id=kept,
        metadata=Metadata(warnings=warnings, context_hit=hit),
    )


def _crossings(quantiles: dict[float, Array]) -> list[str]:
    """A warning where the quantiles of a row do not rise with their levels."""
    ordered = np.stack([quantiles[level] for level in sorted(quantiles)])
    # Differences within the last bits of float32 are none.
    slack = 1e-5 * np.abs(ordered[1:])
    rows = int((np.diff(ordered, axis=0) < -slack).any(axis=0).sum())
    return [f"The quantiles of {rows} rows cross: each level is a model of its own."] if rows else []


def _check_finite(*parts: Array) -> None:
    check_finite("/context_y", "The model gives no finite answer for this context.", *parts)
