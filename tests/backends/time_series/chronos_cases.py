"""Requests and comparisons that the tests of the three Chronos models share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sheaf.api.time_series import TimeSeriesRequest, TimeSeriesResponse

Array = np.ndarray[Any, Any]
HORIZONS = [1, 5, 64, 65, 130]


def walk(length: int, seed: int = 0, *, gaps: int = 0) -> list[float | None]:
    """A random walk with `gaps` values missing, the last one never."""
    rng = np.random.default_rng(seed)
    values: list[float | None] = (rng.normal(0, 1, length).cumsum() + 20).tolist()
    for i in rng.choice(max(length - 1, 1), size=min(gaps, length - 1), replace=False):
        values[i] = None
    return values


def ask(history: Any, **fields: Any) -> TimeSeriesRequest:
    body = {"model_name": "m", "history": history, "horizon": 5, "frequency": "1h", **fields}
    return TimeSeriesRequest.model_validate(body)


def random_mix(
    seed: int,
    size: int = 8,
    *,
    modes: Sequence[str] = ("mean", "quantiles"),
    horizons: Sequence[int] = tuple(HORIZONS),
) -> list[TimeSeriesRequest]:
    """Requests that differ in everything that may differ within a batch of univariate series."""
    rng = np.random.default_rng(seed)
    levels = [[0.5], [0.1, 0.9], [0.25, 0.5, 0.87], [0.9, 0.1, 0.333]]
    mix: list[TimeSeriesRequest] = []
    for i in range(size):
        length = int(rng.choice([1, 2, int(rng.integers(3, 601)), int(rng.integers(3, 100))]))
        mix.append(
            ask(
                walk(length, seed * 100 + i, gaps=int(rng.choice([0, 0, length // 5]))),
                horizon=int(rng.choice(list(horizons))),
                output_mode=str(rng.choice(list(modes))),
                quantile_levels=levels[int(rng.integers(len(levels)))],
                num_samples=int(rng.choice([1, 3, 20])),
                seed=int(rng.integers(2**31)),
            )
        )
    return mix


def target(request: TimeSeriesRequest) -> Array:
    return np.array(request.history, dtype=np.float32)


def quantiles_of(response: TimeSeriesResponse) -> Array:
    assert response.quantiles is not None
    return np.array(list(response.quantiles.values()))


def assert_equal(outcome: Any, expected: TimeSeriesResponse) -> None:
    """Equal but for the last bits of float32, which depend on the shapes that a pass has."""
    assert isinstance(outcome, TimeSeriesResponse), outcome
    assert outcome.model_dump(exclude={"mean", "quantiles", "samples"}) == expected.model_dump(
        exclude={"mean", "quantiles", "samples"}
    )
    assert_close(outcome.mean, expected.mean)
    assert (outcome.quantiles is None, outcome.samples is None) == (
        expected.quantiles is None,
        expected.samples is None,
    )
    if expected.quantiles is not None:
        assert list(outcome.quantiles or ()) == list(expected.quantiles)
        assert_close(quantiles_of(outcome), quantiles_of(expected))
    if expected.samples is not None:
        assert_close(outcome.samples, expected.samples)


def assert_close(found: Any, expected: Any) -> None:
    """allclose 2e-5, absolute in units of the largest value."""
    expected = np.asarray(expected, dtype=np.float64)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5 * float(np.abs(expected).max()))


def assert_batch_permuted_and_single_agree(backend: Any, requests: list[TimeSeriesRequest]) -> None:
    singles = [backend.predict(request) for request in requests]
    order = np.random.default_rng(0).permutation(len(requests))
    together = backend.batch_predict(requests)
    permuted = backend.batch_predict([requests[i] for i in order])
    for i, single in enumerate(singles):
        assert_equal(together[i], single)
    for place, i in enumerate(order):
        assert_equal(permuted[place], singles[i])
