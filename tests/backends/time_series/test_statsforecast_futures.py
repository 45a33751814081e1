"""What the backend `statsforecast` says of the future: points, quantiles and paths of one model agree.

The paths are held against the models' equations written out step by step, the quantiles against many paths.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from sheaf import ModelSpec
from sheaf.backends._models.statsforecast.ets import smoothing
from sheaf.backends._models.statsforecast.predictive import Predictive
from sheaf.backends._models.statsforecast.theta import theta
from sheaf.backends.statsforecast import MODELS, StatsForecastBackend
from sheaf.cache import CacheConfig
from sheaf_client import Sheaf
from tests.backends.time_series.test_statsforecast import ask, quantiles_of, series

models = pytest.importorskip("statsforecast.models")
air_passengers = pytest.importorskip("statsforecast.utils").AirPassengers.astype(float)

Array = np.ndarray[Any, Any]

#: Every kind that the library fits: error, trend, season, and whether the trend is damped.
KINDS = [
    (kind, damped)
    for kind in ("ANN", "ANA", "AAN", "AAA", "MNN", "MNA", "MNM", "MAN", "MAA", "MAM", "MMN", "MMM")
    for damped in (False, True)
    if not (damped and kind[1] == "N")
]


@pytest.fixture(autouse=True)
def no_warnings_of_the_library() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def fitted_ets(kind: str, *, damped: bool, history: Array = air_passengers) -> dict[str, Any]:
    found: dict[str, Any] = models.AutoETS(season_length=12, model=kind, damped=damped).fit(history).model_
    assert found["components"] == kind + ("D" if damped else "N")
    return found


def backend_of(name: str) -> StatsForecastBackend:
    found = StatsForecastBackend(model=name)
    found.load()
    return found


def ets_by_hand(fitted: dict[str, Any], errors: Array) -> Array:
    """One path by the equations of Hyndman et al. (2008), kind by kind, in their error form."""
    error, trend, seasonal, damped = fitted["components"]
    alpha, beta, gamma, phi = fitted["par"][:4]
    phi = phi if damped == "D" else 1.0
    state = list(fitted["states"][-1])
    level = state.pop(0)
    growth = state.pop(0) if trend != "N" else 0.0
    seasons = state[::-1]  # the oldest first
    path = []
    for e in errors:
        base = level
        if trend == "A":
            base = level + phi * growth
        elif trend == "M":
            base = level * growth**phi
        mean = base
        if seasonal == "A":
            mean = base + seasons[0]
        elif seasonal == "M":
            mean = base * seasons[0]
        value = mean + e if error == "A" else mean * (1 + e)
        path.append(value)
        miss = value - mean
        if seasonal == "A":
            seasons.append(seasons.pop(0) + gamma * miss)
        elif seasonal == "M":
            season = seasons.pop(0)
            seasons.append(season + gamma * miss / base)
            miss = miss / season
        if trend == "A":
            growth = phi * growth + beta * miss
        elif trend == "M":
            growth = growth**phi + beta * miss / level
        level = base + alpha * miss
    return np.array(path)


def theta_by_hand(fitted: dict[str, Any], errors: Array) -> Array:
    """One path by the equations of Fiorucci et al. (2016), without the season."""
    alpha, share, n = fitted["par"]["alpha"], 1 - 1 / fitted["par"]["theta"], fitted["n"]
    level, mean, intercept, slope, _ = fitted["states"][-1]
    path = []
    for t, e in enumerate(errors, n):
        line = intercept * (1 - alpha) ** t + slope * (1 - (1 - alpha) ** (t + 1)) / alpha
        value = level + share * line + e
        path.append(value)
        level = alpha * value + (1 - alpha) * level
        before, mean = mean, (t * mean + value) / (t + 1)
        if fitted["modeltype"].startswith("D"):
            slope = ((t - 1) * slope + 6 * (value - before) / (t + 1)) / (t + 2)
            intercept = mean - slope * (t + 2) / 2
    return np.array(path)


def assert_agree(future: Predictive, horizon: int = 26, count: int = 20_000) -> None:
    """Quantiles are those of paths: at each level the share of paths below is the level."""
    levels = [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99]
    quantiles = future.quantiles(levels, horizon)
    paths = future.paths(count, horizon, np.random.default_rng(11))
    below = (paths[None] < quantiles[:, None]).mean(axis=1)
    expected = np.array(levels)[:, None]
    chance = np.sqrt(expected * (1 - expected) / count)
    # Standard errors of these paths and, where there is no closed form, of the fewer ones behind quantiles.
    assert (np.abs(below - expected) < 8 * chance).all()
    assert (np.diff(quantiles, axis=0) > 0).all()


@pytest.mark.parametrize(("kind", "damped"), KINDS)
def test_every_kind_of_ets_agrees_with_its_equations_and_itself(kind: str, *, damped: bool) -> None:
    fitted = fitted_ets(kind, damped=damped)
    future = smoothing(fitted)
    errors = np.random.default_rng(5).normal(0.0, np.sqrt(fitted["sigma2"]), (30, 3))
    by_hand = [ets_by_hand(fitted, path) for path in errors.T]
    np.testing.assert_allclose(future.paths(3, 30, np.random.default_rng(5)), by_hand, rtol=1e-10)
    np.testing.assert_allclose(future.point(30), ets_by_hand(fitted, np.zeros(30)), rtol=1e-10)
    assert_agree(future)
    # A longer horizon says the same of the steps before: no interval depends on what else is asked.
    short, long = future.quantiles([0.1, 0.9], 7), future.quantiles([0.1, 0.9], 30)
    np.testing.assert_allclose(long[:, :7], short, rtol=1e-12)


def test_the_deviations_of_additive_models_are_those_of_the_book() -> None:
    """Table 6.2 of Hyndman et al. (2008), as the library has it where the horizon is within a season."""
    for kind, damped in [("ANN", False), ("AAN", False), ("AAN", True), ("AAA", False), ("AAA", True)]:
        model = models.AutoETS(season_length=12, model=kind, damped=damped).fit(air_passengers)
        direct = model.predict(12, level=[80])
        low, high = smoothing(model.model_).quantiles([0.1, 0.9], 12)
        np.testing.assert_allclose(high - low, direct["hi-80"] - direct["lo-80"], rtol=1e-9)


def test_the_intervals_of_air_passengers() -> None:
    history = air_passengers.tolist()
    fields: dict[str, Any] = {"horizon": 12, "output_mode": "quantiles", "quantile_levels": [0.1, 0.9]}
    low, high = quantiles_of(backend_of("AutoETS").predict(ask(history, **fields)))
    known = [56, 58, 71, 73, 76, 89, 103, 106, 94, 86, 76, 87]
    np.testing.assert_allclose(high - low, known, rtol=0.03)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("trend", [0.0, 0.5])
def test_every_model_of_the_backend_agrees_with_itself(name: str, trend: float) -> None:
    history, backend = series(96, 12, trend=trend), backend_of(name)
    levels = [0.1, 0.5, 0.9]
    fields: dict[str, Any] = {"horizon": 20, "seed": 5}
    samples = backend.predict(ask(history, output_mode="samples", num_samples=10_000, **fields)).samples
    request = ask(history, output_mode="quantiles", quantile_levels=levels, **fields)
    low, median, high = quantiles_of(backend.predict(request))
    sampled = np.quantile(np.array(samples), levels, axis=0)
    # A lost trend would be off by ten at the last step, some times the interval.
    off = np.abs(sampled - [low, median, high]) / (high - low)
    assert off.max() < 0.05
    widths = high - low
    assert (widths[12:] > 0.98 * widths[:-12]).all(), "wider from season to season"
    assert np.abs(np.array(backend.predict(request).mean) - median).max() < 0.02 * widths.min()


@pytest.mark.parametrize("kind", ["STM", "OTM", "DSTM", "DOTM"])
@pytest.mark.parametrize("base", [0.0, 100.0])
def test_every_theta_model_agrees_with_its_equations_and_itself(kind: str, base: float) -> None:
    history = np.array(series(96, 12)) - 100 + base
    model = models.AutoTheta(season_length=12, model=kind).fit(history)
    fitted = model.model_
    assert fitted["decomposition_type"] == ("multiplicative" if base else "additive")
    future = theta(fitted)
    np.testing.assert_allclose(future.point(30), model.predict(30)["mean"], rtol=1e-9)
    season = np.resize(fitted["seas_forecast"]["mean"], 30)
    errors = np.random.default_rng(5).normal(0.0, 1.0, (30, 3)) * sigma_of(history, fitted)
    by_hand = np.array([theta_by_hand(fitted, path) for path in errors.T])
    by_hand = by_hand * season if base else by_hand + season
    np.testing.assert_allclose(future.paths(3, 30, np.random.default_rng(5)), by_hand, rtol=1e-9)
    assert_agree(future)


def sigma_of(history: Array, fitted: dict[str, Any]) -> float:
    """The deviation of the errors of a Theta model: what it missed of the series without its season."""
    season = np.resize(fitted["seas_forecast"]["mean"], len(history))
    additive = fitted["decomposition_type"] == "additive"
    missed = (history - season if additive else history / season) - fitted["states"][:, 4]
    return float(np.std(missed[3:], ddof=1))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("base", [1e6, 1e8, 1e10])
def test_small_changes_of_large_numbers_keep_their_intervals(name: str, base: float) -> None:
    noise = np.random.default_rng(3).normal(0.0, 1.0, 60)
    fields: dict[str, Any] = {"output_mode": "quantiles", "quantile_levels": [0.1, 0.9]}
    low, high = quantiles_of(backend_of(name).predict(ask((base + noise).tolist(), **fields)))
    assert (high - low > 2).all()
    assert (high - low < 8).all()


@pytest.mark.parametrize("name", MODELS)
def test_the_unit_of_the_numbers_makes_no_difference(name: str) -> None:
    backend, history = backend_of(name), np.array(series(60, 12))
    fields: dict[str, Any] = {"output_mode": "quantiles", "quantile_levels": [0.1, 0.9]}
    known = quantiles_of(backend.predict(ask(history.tolist(), **fields)))
    for scale in (1e-300, 1e-12, 1e12, 1e300):
        found = quantiles_of(backend.predict(ask((history * scale).tolist(), **fields))) / scale
        # AutoTheta's optimiser sees the unit.
        np.testing.assert_allclose(found, known, rtol=2e-3 if name == "AutoTheta" else 1e-6)


def test_only_paths_without_a_seed_are_left_to_chance() -> None:
    backend, history = backend_of("AutoETS"), series(60, 12)
    assert backend.deterministic(ask(history))
    assert backend.deterministic(ask(history, output_mode="quantiles"))
    assert backend.deterministic(ask(history, output_mode="samples", seed=1))
    assert not backend.deterministic(ask(history, output_mode="samples"))


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({}, True),
        ({"output_mode": "quantiles"}, True),
        ({"output_mode": "samples"}, False),
        ({"output_mode": "samples", "seed": 1}, True),
    ],
)
def test_the_cache_keeps_what_chance_does_not_decide(fields: dict[str, Any], *, kept: bool) -> None:
    spec = ModelSpec(name="sf", backend="statsforecast", cache=CacheConfig())
    with Sheaf.local([spec]) as client:
        answers = [
            client.time_series.forecast(
                model="sf", history=series(60, 12), horizon=3, frequency="1M", **fields
            )
            for _ in range(2)
        ]
    assert [answer.metadata.usage.cache_hit for answer in answers] == [False, kept]
    assert (answers[0].samples == answers[1].samples) == (kept or "output_mode" not in fields)
