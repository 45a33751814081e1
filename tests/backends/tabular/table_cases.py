"""Requests and comparisons that the tests of the backends for tables share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sheaf.api.tabular import TabularRequest, TabularResponse
from sheaf.backends._families.tabular.backend import TabularBackend
from sheaf_client.errors import InvalidRequestError

Array = np.ndarray[Any, Any]


def numbers(rows: int = 60, columns: int = 5, seed: int = 0, *, gaps: int = 0) -> Array:
    """Rows of numbers, some of them missing (NaN)."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(rows, columns))
    found[rng.integers(0, rows, gaps), rng.integers(0, columns, gaps)] = np.nan
    return found


def cells(rows: Array) -> list[list[float | None]]:
    """Rows as a request has them, None where a value is missing."""
    return [[None if np.isnan(cell) else cell for cell in row] for row in rows.tolist()]


def classes(rows: Array) -> list[str]:
    """Three classes that the rows tell."""
    total = np.nan_to_num(rows[:, 0]) + np.nan_to_num(rows[:, 1])
    return [("low", "middle", "high")[i] for i in np.digitize(total, [-0.7, 0.7])]


def values(rows: Array) -> list[float]:
    """Quantities that the rows tell, but for some noise."""
    noise = np.random.default_rng(9).normal(size=len(rows)) / 3
    return (10 + 3 * np.nan_to_num(rows[:, 0]) - np.nan_to_num(rows[:, 2]) ** 2 + noise).tolist()


def ask(query: Any, context: Any = None, labels: Any = None, **fields: Any) -> TabularRequest:
    """A request; arrays become cells, and labels of numbers make it a regression."""
    body: dict[str, Any] = {"model_name": "m", "query_X": cells(query) if hasattr(query, "shape") else query}
    if context is not None:
        body["context_X"] = cells(context) if hasattr(context, "shape") else context
        body["context_y"] = labels
        body["task"] = "regression" if isinstance(labels[0], float) else "classification"
    return TabularRequest.model_validate({**body, **fields})


def classify(query: Any, rows: Array, **fields: Any) -> TabularRequest:
    return ask(query, rows, classes(rows), **{"output_mode": "probabilities", **fields})


def regress(query: Any, rows: Array, **fields: Any) -> TabularRequest:
    return ask(query, rows, values(rows), **{"output_mode": "quantiles", **fields})


def probabilities_of(response: Any) -> Array:
    assert isinstance(response, TabularResponse), response
    assert response.probabilities is not None
    return np.array(response.probabilities)


def quantiles_of(response: Any) -> dict[float, Array]:
    assert isinstance(response, TabularResponse), response
    assert response.quantiles is not None
    return {float(level): np.array(column) for level, column in response.quantiles.items()}


def fault_of(outcome: Any) -> tuple[str, str]:
    assert isinstance(outcome, InvalidRequestError), outcome
    return outcome.errors[0].code, outcome.errors[0].path


def refusal(backend: TabularBackend, request: TabularRequest) -> tuple[str, str]:
    """The code and path by which `check` refuses a request; the batch must refuse it the same."""
    with pytest.raises(InvalidRequestError) as refused:
        backend.check(request)
    assert fault_of(backend.predict_all([request])[0]) == fault_of(refused.value)
    return fault_of(refused.value)


def assert_same(found: Any, expected: Any, tolerance: float = 1e-6) -> None:
    """Equal answers of two requests: all but what tells the requests, and how the answer came, apart."""
    assert isinstance(found, TabularResponse), found
    assert isinstance(expected, TabularResponse), expected
    numbers = {"predictions", "probabilities", "quantiles"}
    other = {"request_id", "metadata", *numbers}
    assert found.model_dump(exclude=other) == expected.model_dump(exclude=other)
    if found.task == "classification":
        assert found.predictions == expected.predictions
    else:
        np.testing.assert_allclose(found.predictions, expected.predictions, rtol=tolerance, atol=tolerance)
    if expected.probabilities is not None:
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=tolerance)
    if expected.quantiles is not None:
        assert list(found.quantiles or ()) == list(expected.quantiles)
        for level, column in quantiles_of(expected).items():
            np.testing.assert_allclose(quantiles_of(found)[level], column, rtol=tolerance, atol=tolerance)
    assert (found.probabilities is None, found.quantiles is None) == (
        expected.probabilities is None,
        expected.quantiles is None,
    )
