"""The backend `statsforecast` against the library's own direct calls."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, cast

import numpy as np
import pytest

from sheaf.api.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf.backends.statsforecast import MODELS, StatsForecastBackend
from sheaf_client.errors import InvalidRequestError
from tests.backends.answers import fault_of
from tests.backends.conformance import CHECKPOINT_CHECKS, BackendConformance

models = pytest.importorskip("statsforecast.models")

LEVELS = [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99]


@pytest.fixture(autouse=True)
def no_warnings_of_the_library() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module", params=MODELS)
def backend(request: pytest.FixtureRequest) -> StatsForecastBackend:
    found = StatsForecastBackend(model=request.param)
    found.load()
    found.warm_up()
    return found


def ets(**settings: Any) -> StatsForecastBackend:
    found = StatsForecastBackend(**settings)
    found.load()
    return found


def series(length: int, season: int, seed: int = 0, *, trend: float = 0.2) -> list[float]:
    steps = np.arange(length)
    noise = np.random.default_rng(seed).normal(0, 1, length)
    return (100 + trend * steps + 10 * np.sin(2 * np.pi * steps / season) + noise).tolist()


def ask(history: list[Any], **fields: Any) -> TimeSeriesRequest:
    body = {"model_name": "m", "history": history, "horizon": 6, "frequency": "1M", **fields}
    return TimeSeriesRequest.model_validate(body)


def quantiles_of(response: TimeSeriesResponse) -> np.ndarray[Any, Any]:
    assert response.quantiles is not None
    return np.array(list(response.quantiles.values()))


def library_model(name: str, history: list[float], season: int) -> Any:
    return getattr(models, name)(season_length=season).fit(np.array(history))


def is_damped(model: Any) -> bool:
    fitted = getattr(model, "trend_forecaster", model).model_
    return fitted.get("components", "NNNN")[3] == "D"


class TestStatsForecast(BackendConformance):
    """For each of the models."""

    backend_class = StatsForecastBackend
    tolerance = 1e-12
    options: ClassVar[Mapping[str, Sequence[Any]]] = {
        "horizon": [1, 5, 13],
        "quantile_levels": [[0.5], [0.1, 0.9], [0.999]],
        "num_samples": [3],
        "seed": [0],
    }
    exempt: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(CHECKPOINT_CHECKS, "it has no checkpoint: every history is fitted anew"),
        "test_half_precision_is_near_and_another_dtype_is_refused": "it computes in float64 alone",
        "test_memory_comes_back": "it holds nothing but the library's module: each fit ends with its answer",
    }

    @pytest.fixture(scope="class", params=MODELS)
    def settings(self, request: pytest.FixtureRequest) -> dict[str, Any]:
        return {"model": request.param}

    @pytest.fixture(scope="class")
    def neighbor(self, settings: dict[str, Any]) -> dict[str, Any]:
        return {"model": "SeasonalNaive" if settings["model"] != "SeasonalNaive" else "AutoTheta"}

    @pytest.fixture(scope="class")
    def requests(self) -> list[TimeSeriesRequest]:
        quarters: dict[str, Any] = {"frequency": "1Q", "seed": 1, "num_samples": 7}
        return [
            ask(series(30, 4), **quarters),
            ask(series(25, 4, 1), horizon=13, output_mode="quantiles", quantile_levels=LEVELS, **quarters),
            ask(series(41, 4, 2), horizon=1, item_id="one", **quarters),
            ask(series(24, 4, 3), output_mode="samples", **quarters),
        ]

    @pytest.fixture(scope="class")
    def direct(self, settings: dict[str, Any]) -> Callable[[TimeSeriesRequest], dict[str, Any]]:
        def call(request: TimeSeriesRequest) -> dict[str, Any]:
            model = library_model(settings["model"], cast("list[float]", request.history), 4)
            told = {"horizon": request.horizon, "item_id": request.item_id, "point": "mean"}
            # The library takes the first step of a damped trend twice; the equations say once.
            return told if is_damped(model) else {"mean": model.predict(request.horizon)["mean"], **told}

        return call

    @pytest.fixture(scope="class")
    def refused(self) -> list[tuple[TimeSeriesRequest, str, str]]:
        return [(ask([1.0, None, 3.0]), "unsupported", "/history/1")]


@pytest.mark.parametrize(("frequency", "season"), [("1M", 12), ("1Q", 4), ("1d", 7), ("1h", 24)])
def test_means_equal_those_of_the_direct_call(
    backend: StatsForecastBackend, frequency: str, season: int
) -> None:
    history = series(5 * season + 3, season)
    request = ask(history, frequency=frequency, output_mode="quantiles", quantile_levels=LEVELS, horizon=9)
    response = backend.predict(request)
    model = library_model(backend.model, history, season)
    # The library takes the first step of a damped trend twice; the equations say once.
    tolerance = 2e-3 if is_damped(model) else 1e-12
    np.testing.assert_allclose(response.mean, model.predict(9)["mean"], rtol=tolerance)
    assert response.point == "mean"
    assert response.metadata.warnings == []
    assert (np.diff(quantiles_of(response), axis=0) > 0).all()


def test_levels_answer_in_the_order_asked(backend: StatsForecastBackend) -> None:
    history = series(48, 12)
    shuffled = backend.predict(ask(history, output_mode="quantiles", quantile_levels=[0.9, 0.1, 0.5]))
    assert shuffled.quantiles is not None
    assert list(shuffled.quantiles) == ["0.9", "0.1", "0.5"]
    assert shuffled.quantiles["0.9"][0] > shuffled.quantiles["0.5"][0] > shuffled.quantiles["0.1"][0]


def test_the_median_is_about_the_mean(backend: StatsForecastBackend) -> None:
    levels = [0.1, 0.5, 0.9]
    response = backend.predict(ask(series(60, 12), output_mode="quantiles", quantile_levels=levels))
    low, median, high = quantiles_of(response)
    # Exactly so where the model is linear; the errors of others are not symmetric around the mean.
    share = 1e-9 if backend.model in ("AutoTheta", "SeasonalNaive") else 0.02
    assert (np.abs(median - np.array(response.mean)) < share * (high - low)).all()


def test_mean_mode_gives_the_mean_alone(backend: StatsForecastBackend) -> None:
    response = backend.predict(ask(series(60, 12)))
    assert (response.quantiles, response.samples) == (None, None)
    assert len(response.mean) == response.horizon == 6


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 23, 24])
@pytest.mark.parametrize("kind", ["constant", "walk"])
def test_short_and_constant_histories_answer_or_are_refused(
    backend: StatsForecastBackend, length: int, kind: str
) -> None:
    walk = np.random.default_rng(length).normal(0, 1, length).cumsum() + 50
    history = [7.0] * length if kind == "constant" else walk.tolist()
    (outcome,) = backend.batch_predict([ask(history, output_mode="quantiles")])
    if isinstance(outcome, Exception):
        assert fault_of(outcome) == ("unsupported", "/history")
        assert length < 9, "long enough for every model"
    else:
        assert np.isfinite(quantiles_of(outcome)).all()
        if kind == "constant":
            np.testing.assert_allclose(outcome.mean, 7.0, atol=1e-6)


def test_a_history_below_two_seasons_is_forecast_without_one(backend: StatsForecastBackend) -> None:
    response = backend.predict(ask(series(23, 12)))
    assert any("two seasons" in warning for warning in response.metadata.warnings)
    name = "AutoETS" if backend.model == "MSTL" else backend.model
    direct = library_model(name, series(23, 12), 1)
    assert not is_damped(direct)
    np.testing.assert_allclose(response.mean, direct.predict(6)["mean"], rtol=1e-12)


def test_the_season_can_be_set() -> None:
    history = series(60, 5)
    response = ets(model="SeasonalNaive", season_length=5).predict(ask(history))
    assert response.mean == [*history[-5:], history[-5]]


def test_a_season_too_long_for_ets_goes_to_mstl() -> None:
    history = series(4 * 52, 52)
    response = ets().predict(ask(history, frequency="1W", output_mode="quantiles"))
    direct = library_model("MSTL", history, 52)
    assert not is_damped(direct)
    np.testing.assert_allclose(response.mean, direct.predict(6)["mean"], rtol=1e-12)
    assert any("MSTL" in warning for warning in response.metadata.warnings)


def test_histories_beyond_the_bound_are_cut_and_the_answer_says_so() -> None:
    history = series(80, 12)
    response = ets(context_length=48).predict(ask([None, *history]))
    assert response.mean == ets().predict(ask(history[-48:])).mean
    assert response.metadata.warnings == ["Only the last 48 of 81 observations were used."]
    with pytest.raises(InvalidRequestError) as refused:
        ets(context_length=48).predict(ask([*history[:40], None, *history[41:]]))
    assert fault_of(refused.value) == ("unsupported", "/history/40")


def test_one_of_several_variates_is_forecast(backend: StatsForecastBackend) -> None:
    history = series(60, 12)
    several = [[0.0, value, -1.0] for value in history]
    response = backend.predict(ask(several, target_index=1))
    assert response.mean == backend.predict(ask(history)).mean
    assert "column 1 of 3" in response.metadata.warnings[0]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"past_covariates": {"x": [1.0] * 60}}, "/past_covariates"),
        ({"static_covariates": {"x": "a"}}, "/static_covariates"),
        ({"output_mode": "samples", "num_samples": 10_000, "horizon": 101}, "/num_samples"),
    ],
)
def test_what_the_models_cannot_do_is_refused(fields: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        ets().check(ask(series(60, 12), **fields))
    assert fault_of(refused.value)[1] == path


def test_naive_paths_equal_the_direct_simulation() -> None:
    history = series(60, 12)
    request = ask(history, output_mode="samples", num_samples=7, seed=3, horizon=30)
    response = ets(model="SeasonalNaive").predict(request)
    model = models.SeasonalNaive(season_length=12)
    state = np.random.get_state()
    direct = model.simulate(h=30, n_paths=7, y=np.array(history), seed=3)
    np.random.set_state(state)
    np.testing.assert_array_equal(response.samples, direct)
    assert response.quantiles is None


def test_a_seed_repeats_and_none_does_not() -> None:
    backend = ets(model="SeasonalNaive")
    history = series(60, 12)

    def paths(**fields: Any) -> Any:
        return backend.predict(ask(history, output_mode="samples", **fields)).samples

    assert paths(seed=1) == paths(seed=1)
    assert paths(seed=1) != paths(seed=2)
    assert paths(seed=2**53 - 1) == paths(seed=2**53 - 1)
    assert paths() != paths()


def test_timestamps_and_item_come_back(backend: StatsForecastBackend) -> None:
    response = backend.predict(ask(series(24, 12), start="2022-01-31", item_id="s", horizon=2))
    assert response.timestamps is not None
    assert [time.date().isoformat() for time in response.timestamps] == ["2024-01-31", "2024-02-29"]
    assert response.item_id == "s"


def test_a_large_answer_costs_more_than_the_fit_to_a_short_history() -> None:
    history = series(40, 7)
    small, long = ask(history, horizon=7), ask(history * 5, horizon=7)
    large = ask(
        history, horizon=16384, output_mode="quantiles", quantile_levels=[i / 62 for i in range(1, 62)]
    )
    model = ets()
    assert model.cost(large) > 10 * model.cost(small)
    assert model.cost(long) == pytest.approx(5 * model.cost(small), rel=0.01)
