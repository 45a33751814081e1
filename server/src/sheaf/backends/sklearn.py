"""Gradient-boosted trees from scikit-learn: tables answered with nothing to download and no torch.

A context is fitted when it is first seen, in a fraction of a second; after that only its trees are asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sheaf.api.tabular import TabularRequest
from sheaf.backends._families.tabular.backend import Fitted, Prediction, TabularBackend
from sheaf.backends._families.tabular.sizes import bytes_of
from sheaf.backends._families.tabular.tables import Column, Table
from sheaf.backends._shared.loading import libraries_of, loaded
from sheaf.backends._shared.refusals import refuse
from sheaf.backends.info import BackendInfo
from sheaf.registry import register_backend

#: Most categories in one column.
MAX_CATEGORIES = 255


@register_backend("sklearn")
class SklearnBackend(TabularBackend):
    """HistGradientBoosting: a classifier, a regressor, and a regressor of its own for each quantile level.

    Predictions equal the library's own on the same settings. Categories that a context does not have count as
    missing, which the trees know how to treat. Nothing is held out to stop early, so that an answer depends
    on the context alone.

    Args:
        max_iter: rounds of boosting.
        learning_rate: the weight of each round.
        max_leaf_nodes: most leaves of a tree.
        min_samples_leaf: fewest rows in a leaf; by default 20, and a tenth of the rows of contexts below 200,
            from which no tree would grow otherwise.
        l2_regularization: penalty on large leaves.
        max_trees: most trees that one request may have grown: each takes milliseconds on the smallest table,
            and nothing ends a fit before its time. A round grows one for each of more than two classes; each
            quantile level has rounds of its own, besides those of the mean.
        max_context_bytes: most bytes of fitted contexts; 0 keeps none.
    """

    info: ClassVar[BackendInfo | None] = BackendInfo(
        title="scikit-learn's boosted trees",
        extra="sklearn",
        libraries=("sklearn",),
        papers=("https://scikit-learn.org/stable/modules/ensemble.html",),
    )

    #: Beyond it the gradients, which are in float32, lose what they say.
    largest: ClassVar[float] = 1e30

    def __init__(
        self,
        *,
        max_iter: int = 100,
        learning_rate: float = 0.1,
        max_leaf_nodes: int = 31,
        min_samples_leaf: int | None = None,
        l2_regularization: float = 0.0,
        max_trees: int = 2500,
        max_context_bytes: int = 2**30,
    ) -> None:
        super().__init__(max_context_bytes)
        self.min_samples_leaf = min_samples_leaf
        self.max_per_round = max(1, max_trees // max_iter)
        self.settings: dict[str, Any] = {
            "max_iter": max_iter,
            "learning_rate": learning_rate,
            "max_leaf_nodes": max_leaf_nodes,
            "l2_regularization": l2_regularization,
            "early_stopping": False,
            "random_state": 0,
        }
        self._library: Any = None

    def load(self) -> None:
        """Import the library; raises `ModuleNotFoundError` where it is not installed."""
        with libraries_of(self):
            from sklearn import ensemble  # type: ignore[import-untyped]
        self._library = ensemble

    def unload(self) -> None:
        self._library = None
        self.contexts.clear()

    def check(self, request: TabularRequest) -> None:
        super().check(request)
        if request.output_mode == "quantiles" and len(request.quantile_levels) >= self.max_per_round:
            most = self.max_per_round - 1
            raise refuse("/quantile_levels", f"At most {most} levels at once: `max_trees` bounds them.")

    def check_context(self, request: TabularRequest, n_classes: int) -> None:  # noqa: ARG002
        most = max(2, self.max_per_round)  # two classes share a tree
        if n_classes > most:
            message = f"At most {most} classes, not {n_classes}: `max_trees` bounds them."
            raise refuse("/context_y", message)

    def fit(self, table: Table) -> Fitted:
        library = loaded(self._library)
        encoding = _Encoding.of(table)
        rows = encoding.encode(table.features)
        leaf = self.min_samples_leaf or min(20, max(1, len(rows) // 10))
        settings = {**self.settings, "min_samples_leaf": leaf, "categorical_features": encoding.categorical}
        if table.classes is None:
            return _Regressor(encoding, settings, library, rows, table.target)
        if len(table.classes) == 1:
            return _OneClass()
        model = library.HistGradientBoostingClassifier(**settings).fit(rows, table.target)
        return _Classifier(encoding, model)


@dataclass(frozen=True)
class _Encoding:
    """Columns as the numbers that the trees take; categories are counted from 0.

    Attributes:
        categories: by column, the categories in order; their positions are their codes.
        empty: columns without one value, which the library cannot bin: they become 0.
        categorical: positions of the categorical columns, None where there are none.
    """

    categories: dict[int, dict[float | str, int]]
    empty: frozenset[int]
    categorical: list[int] | None

    @classmethod
    def of(cls, table: Table) -> _Encoding:
        categories: dict[int, dict[float | str, int]] = {}
        for j, column in enumerate(table.features):
            if j in table.columns.text or j in table.columns.codes:
                met = sorted(set(column[_present(column)].tolist()))
                if len(met) > MAX_CATEGORIES:
                    message = f"{table.columns.name(j)} has {len(met)} categories; at most {MAX_CATEGORIES}."
                    raise refuse("/context_X", message)
                categories[j] = {category: code for code, category in enumerate(met)}
        return cls(categories, table.columns.empty, sorted(categories) or None)

    def encode(self, columns: Sequence[Column]) -> npt.NDArray[np.float64]:
        """Rows of shape (n_rows, n_features), NaN for a missing value and for a category not met before."""
        rows = np.empty((len(columns[0]), len(columns)))
        for j, column in enumerate(columns):
            if j in self.empty:
                rows[:, j] = 0
            elif j in self.categories:
                codes = self.categories[j]
                rows[:, j] = [codes.get(cell, np.nan) for cell in column.tolist()]
            else:
                rows[:, j] = column
        return rows


def _present(column: Column) -> npt.NDArray[np.bool_]:
    """Which cells hold a value, shape (n_rows,)."""
    if column.dtype.hasobject:
        return np.array([cell is not None for cell in column], dtype=np.bool_)
    return ~np.isnan(column)


class _Classifier:
    def __init__(self, encoding: _Encoding, model: Any) -> None:
        self._encoding, self._model = encoding, model
        self.size = bytes_of(encoding, model)

    def predict(self, features: Sequence[Column], levels: Sequence[float]) -> Prediction:  # noqa: ARG002
        return Prediction(probabilities=self._model.predict_proba(self._encoding.encode(features)))

    def trim(self) -> None:
        pass


class _OneClass:
    """A context of one class has one answer; the library would see two classes in it."""

    size = 1024

    def predict(self, features: Sequence[Column], levels: Sequence[float]) -> Prediction:  # noqa: ARG002
        return Prediction(probabilities=np.ones((len(features[0]), 1)))

    def trim(self) -> None:
        pass


@dataclass
class _Regressor:
    """The model of the mean, those of the levels asked for so far, and the rows, which new ones need."""

    encoding: _Encoding
    settings: dict[str, Any]
    library: Any
    rows: npt.NDArray[np.float64]
    target: npt.NDArray[np.float64]
    mean: Any = None
    levels: dict[float, Any] = field(default_factory=dict[float, Any])
    size: int = 0

    def __post_init__(self) -> None:
        self.mean = self._fitted()
        self.size = bytes_of(self.encoding, self.rows, self.target, self.mean)

    def predict(self, features: Sequence[Column], levels: Sequence[float]) -> Prediction:
        rows = self.encoding.encode(features)
        for level in levels:
            if level not in self.levels:
                model = self._fitted(loss="quantile", quantile=level)
                self.levels[level] = model
                self.size += bytes_of(model)
        quantiles = {level: self.levels[level].predict(rows) for level in levels}
        return Prediction(mean=self.mean.predict(rows), quantiles=quantiles)

    def trim(self) -> None:
        self.levels.clear()
        self.size = bytes_of(self.encoding, self.rows, self.target, self.mean)

    def _fitted(self, **settings: Any) -> Any:
        model = self.library.HistGradientBoostingRegressor(**self.settings, **settings)
        return model.fit(self.rows, self.target)
