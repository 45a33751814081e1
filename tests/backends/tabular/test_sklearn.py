"""The backend `sklearn` against direct calls of scikit-learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from sheaf.api.tabular import TabularRequest, TabularResponse
from sheaf.backends.sklearn import SklearnBackend
from sheaf_client.errors import InvalidRequestError
from tests.backends.conformance import CHECKPOINT_CHECKS, BackendConformance
from tests.backends.tabular.table_cases import (
    ask,
    assert_same,
    classes,
    classify,
    fault_of,
    numbers,
    probabilities_of,
    quantiles_of,
    refusal,
    regress,
    values,
)

SETTINGS: dict[str, Any] = {"max_iter": 20, "early_stopping": False, "random_state": 0}


def boosted(**settings: Any) -> SklearnBackend:
    backend = SklearnBackend(**{"max_iter": 20, **settings})
    backend.load()
    return backend


@pytest.fixture(scope="module")
def backend() -> SklearnBackend:
    return boosted()


def direct(request: TabularRequest) -> dict[str, Any]:
    """What the library's own estimators say of one request."""
    rows, query = (np.array(table, dtype=float) for table in (request.context_X, request.query_X))
    if request.task == "classification":
        classifier = HistGradientBoostingClassifier(**SETTINGS).fit(rows, request.context_y)
        found = {"classes": classifier.classes_.tolist(), "predictions": classifier.predict(query).tolist()}
        return {**found, "probabilities": classifier.predict_proba(query), "n_query": len(query)}
    mean = HistGradientBoostingRegressor(**SETTINGS).fit(rows, request.context_y).predict(query)
    if request.output_mode == "predictions":
        return {"predictions": mean, "quantiles": None}
    quantiles = {
        str(level): HistGradientBoostingRegressor(loss="quantile", quantile=level, **SETTINGS)
        .fit(rows, request.context_y)
        .predict(query)
        for level in request.quantile_levels
    }
    return {"predictions": mean, "quantiles": quantiles}


class TestSklearn(BackendConformance):
    backend_class = SklearnBackend
    tolerance = 1e-12
    import_changes = (*BackendConformance.import_changes, "random")
    options: ClassVar[Mapping[str, Sequence[Any]]] = {"quantile_levels": [[0.5], [0.9, 0.05]]}
    exempt: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(CHECKPOINT_CHECKS, "it has no checkpoint: every context is fitted"),
        "test_half_precision_is_near_and_another_dtype_is_refused": "it has no dtype",
    }

    @pytest.fixture(scope="class")
    def settings(self) -> dict[str, Any]:
        return {"max_iter": 20, "min_samples_leaf": 20}

    @pytest.fixture(scope="class")
    def neighbor(self) -> dict[str, Any]:
        return {"max_iter": 3}

    @pytest.fixture(scope="class")
    def requests(self) -> list[TabularRequest]:
        small, large = numbers(40), numbers(120, seed=5, gaps=20)
        asked = [numbers(n, seed=n, gaps=2) for n in (1, 2, 7)]
        found = [classify(query, rows) for query in asked for rows in (small, large)]
        found += [regress(query, large, quantile_levels=[0.9, 0.05]) for query in asked]
        return [*found, regress(asked[1], large, output_mode="predictions")]

    @pytest.fixture(scope="class")
    def direct(self) -> Callable[[TabularRequest], dict[str, Any]]:
        return direct

    @pytest.fixture(scope="class")
    def refused(self) -> list[tuple[TabularRequest, str, str]]:
        rows = [[1.0, "a"], [2.0, "b"]]
        mixed = ask(rows, rows, [1, 2.5], task="classification")
        return [(mixed, "not_allowed", "/context_y/1")]

    @pytest.fixture(scope="class")
    def poison(self, refused: list[tuple[Any, str, str]]) -> list[tuple[TabularRequest, str, str]]:
        rows = [[1.0, "a"], [2.0, "b"]]
        return [*refused, (ask([[1.0, "a"], ["x", "a"]], rows, ["p", "q"]), "mismatch", "/query_X/1/0")]


def test_categories_equal_those_of_a_frame() -> None:
    rng = np.random.default_rng(0)
    colours = ["red", "green", "blue", None]
    frame = pd.DataFrame(
        {
            "size": rng.normal(size=200),
            "colour": rng.choice(np.array(colours, dtype=object), 200),
            "code": rng.choice([3.0, 7.0, 11.0], 200),
        }
    )
    labels = [str(colour) + str(code > 5) for colour, code in zip(frame.colour, frame.code, strict=True)]
    query = [[0.1, "red", 7], [None, "violet", 4], [-1.0, None, None], [2.0, "blue", 11]]
    response = boosted().predict(
        ask(
            query,
            frame.astype(object).where(frame.notna(), None).to_numpy().tolist(),
            labels,
            categorical_feature_indices=[2],
            output_mode="probabilities",
        )
    )
    kinds = {"colour": pd.CategoricalDtype(colours[:3]), "code": pd.CategoricalDtype([3.0, 7.0, 11.0])}
    direct = HistGradientBoostingClassifier(categorical_features="from_dtype", **SETTINGS)
    direct.fit(frame.astype(kinds), labels)
    asked = pd.DataFrame(query, columns=frame.columns).astype({"size": float}).astype(kinds)
    np.testing.assert_allclose(response.probabilities, direct.predict_proba(asked), atol=1e-12)


def test_text_that_looks_like_numbers_is_text(backend: SklearnBackend) -> None:
    rows = [["10", 1.0], ["9", 2.0], ["10", 3.0], ["9", 4.0]] * 10
    labels = ["ten", "nine"] * 20
    answer = backend.predict(ask([["10", 0.0], ["9", 0.0], [10, 0.0]], rows, labels))
    assert answer.predictions == ["ten", "nine", "ten"]


@pytest.mark.parametrize("labels", [[3, 1], ["b", "a"], [2, "a"], [2, "2"], [1.0, 0.0]])
def test_classes_come_back_as_they_were_given(backend: SklearnBackend, labels: list[Any]) -> None:
    rows = [[0.0], [5.0]] * 20
    answer = backend.predict(ask([[0.0], [5.0], [0.0]], rows, labels * 20, task="classification"))
    assert answer.predictions == [*labels, labels[0]]
    assert answer.classes is not None
    assert set(answer.classes) == set(labels)


def test_one_class_is_certain(backend: SklearnBackend) -> None:
    answer = backend.predict(classify(numbers(3), np.zeros((5, 5)), context_y=["a"] * 5))
    assert (answer.predictions, answer.probabilities, answer.classes) == (["a"] * 3, [[1.0]] * 3, ["a"])


@pytest.mark.parametrize("rows", [1, 2, 6, 19, 100])
def test_small_contexts_grow_trees(backend: SklearnBackend, rows: int) -> None:
    table = np.arange(rows, dtype=float)[:, None]
    answer = backend.predict(ask(table, table, table[:, 0].tolist()))
    assert np.corrcoef(answer.predictions, table[:, 0])[0, 1] > 0.9 if rows > 2 else answer.predictions
    assert isinstance(answer, TabularResponse)


def test_columns_without_a_value_say_nothing(backend: SklearnBackend) -> None:
    rows, empty = numbers(100), numbers(100)
    empty[:, 3] = np.nan
    query = numbers(10, seed=1)
    found = probabilities_of(backend.predict(classify(query, empty, context_y=classes(rows))))
    rows[:, 3] = 0
    query[:, 3] = 0
    np.testing.assert_array_equal(found, probabilities_of(backend.predict(classify(query, rows))))


def test_what_cannot_be_served_is_refused(backend: SklearnBackend) -> None:
    rows = [[1.0, "a"], [2.0, "b"]]
    assert refusal(backend, ask(rows, rows, [1, 2.5], task="classification")) == (
        "not_allowed",
        "/context_y/1",
    )
    many = [[float(i)] for i in range(1001)]
    assert refusal(backend, ask(many[:1], many, list(range(1001)))) == ("unsupported", "/context_y")
    text = ask([[1.0, "a"], ["x", "a"]], rows, ["p", "q"])
    wide = ask([[f"{0}"]], [[f"{i}"] for i in range(256)], [0, 1] * 128)
    endless = ask([[1.0]], [[1.0], [2.0]], [1.0, -1.7e308])
    answers = backend.predict_all([text, ask(rows, rows, ["p", "q"]), wide, endless])
    assert fault_of(answers[0]) == ("mismatch", "/query_X/1/0")
    assert isinstance(answers[1], TabularResponse)
    assert fault_of(answers[2]) == ("unsupported", "/context_X")
    assert fault_of(answers[3]) == ("out_of_range", "/context_y/1")


def test_large_numbers_are_learned_or_refused(backend: SklearnBackend) -> None:
    rows = np.linspace(-9e29, 9e29, 100)[:, None]
    answer = backend.predict(ask(rows, rows, rows[:, 0].tolist()))
    assert np.corrcoef(answer.predictions, rows[:, 0])[0, 1] > 0.9
    assert fault_of(backend.predict_all([ask(rows * 2, rows, classes(numbers(100)))])[0]) == (
        "out_of_range",
        "/query_X/0/0",
    )


def test_a_fit_that_would_take_long_is_refused() -> None:
    """A fit has the model to itself, and cannot be ended before its time."""
    backend, rows = boosted(max_iter=10, max_trees=50), numbers(60)
    many = [f"class {n % 6}" for n in range(60)]
    with pytest.raises(InvalidRequestError) as refused:
        backend.predict(ask(rows, rows, many))
    assert fault_of(refused.value) == ("unsupported", "/context_y")
    assert len(backend.predict(ask(rows, rows, [name.replace("5", "4") for name in many])).classes or []) == 5
    levels = [0.1, 0.3, 0.5, 0.7, 0.9]
    with pytest.raises(InvalidRequestError) as refused:
        backend.predict(regress(rows, rows, quantile_levels=levels))
    assert fault_of(refused.value) == ("unsupported", "/quantile_levels")
    assert set(backend.predict(regress(rows, rows, quantile_levels=levels[:4])).quantiles or {}) == {
        str(level) for level in levels[:4]
    }


def test_quantiles_that_cross_are_told() -> None:
    backend, rows = boosted(max_iter=60, min_samples_leaf=1), numbers(40)
    levels = [0.49, 0.5, 0.51]
    answer = backend.predict(regress(numbers(200, seed=3), rows, quantile_levels=levels))
    crossed = np.diff(np.stack(list(quantiles_of(answer).values())), axis=0) < -1e-3
    assert crossed.any()
    assert answer.metadata.warnings
    assert "cross" in answer.metadata.warnings[0]
    assert not backend.predict(regress(numbers(9), rows, quantile_levels=[0.5])).metadata.warnings


def test_a_model_that_is_not_loaded_says_so() -> None:
    with pytest.raises(RuntimeError, match="load"):
        SklearnBackend().predict_all([classify(numbers(1), numbers(9))])
    with pytest.raises(ValueError, match="max_context_bytes"):
        SklearnBackend(max_context_bytes=-1)
    with pytest.raises(InvalidRequestError):
        boosted().check(ask([[1.0]], context_id="0123456789"))


def test_quantities_beyond_the_model_are_refused_however_they_are_written(backend: SklearnBackend) -> None:
    good = regress(numbers(2), numbers(30))
    for huge in (1e31, -1e308, 10**39, -(10**400)):
        targets: list[Any] = [*values(numbers(30))[1:], huge]
        request = ask(numbers(2), numbers(30), targets)
        assert refusal(backend, request) == ("out_of_range", "/context_y/29")
        outcome, other = backend.predict_all([request, good])
        assert fault_of(outcome) == ("out_of_range", "/context_y/29")
        assert_same(other, backend.predict(good))
    # A whole number beyond 64 bits is a number like others.
    rest = values(numbers(30))[1:]
    written, whole = (ask(numbers(2), numbers(30), [*rest, big]) for big in (10**20, 1e20))
    assert isinstance((written.context_y or [])[-1], int)
    one, other = backend.batch_predict([written, whole])
    assert_same(one, other)


@pytest.mark.parametrize("field", ["context_X", "query_X"])
def test_cells_beyond_the_model_are_refused_in_their_place(field: str, backend: SklearnBackend) -> None:
    good = regress(numbers(3), numbers(30))
    for huge in (1e31, 1e39, -1e308):
        body = regress(numbers(3), numbers(30)).model_dump()
        body[field][2][1] = huge
        outcome, other = backend.batch_predict([TabularRequest.model_validate(body), good])
        assert fault_of(outcome) == ("out_of_range", f"/{field}/2/1")
        assert_same(other, backend.predict(good))
