"""Chronos-2 with several variates and covariates against the library's own direct calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sheaf.api.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf.backends.chronos import Chronos2Backend
from tests.backends.answers import fault_of
from tests.backends.time_series.checkpoints import CHRONOS2_LEVELS, make_chronos2
from tests.backends.time_series.chronos_cases import (
    ask,
    assert_batch_permuted_and_single_agree,
    assert_close,
    quantiles_of,
    walk,
)

pytest.importorskip("chronos")
torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:We recommend keeping")]

LEVELS = [0.01, 0.1, 0.5, 0.77]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chronos2(tmp_path_factory.mktemp("chronos2"))


@pytest.fixture(scope="module")
def backend(path: Path) -> Chronos2Backend:
    found = Chronos2Backend(model_id=str(path))
    found.load()
    return found


@pytest.fixture(scope="module")
def library(path: Path) -> Any:
    from chronos import BaseChronosPipeline

    return BaseChronosPipeline.from_pretrained(str(path), device_map="cpu", dtype=torch.float32)


def direct(library: Any, request: TimeSeriesRequest) -> tuple[Any, Any]:
    """Point and quantiles of the target by one call of the library for this request alone."""
    history = np.array(request.history, dtype=np.float32)
    task: dict[str, Any] = {"target": history if history.ndim == 1 else history.T}
    if request.past_covariates:
        task["past_covariates"] = arrays(request.past_covariates)
    if request.future_covariates:
        task["future_covariates"] = arrays(request.future_covariates)
    quantiles, point = library.predict_quantiles(
        [task], prediction_length=request.horizon, quantile_levels=list(request.quantile_levels)
    )
    return point[0][request.target_index].numpy(), quantiles[0][request.target_index].numpy().T


def arrays(covariates: dict[str, Any]) -> dict[str, Any]:
    return {
        name: np.array(values, dtype=str if isinstance(values[0], str) else np.float32)
        for name, values in covariates.items()
    }


def kinds(length: int) -> list[str]:
    return [("sun", "rain", "snow")[i * i % 3] for i in range(length)]


def columns(length: int, width: int, *, gaps: int = 0) -> list[list[float | None]]:
    series = [walk(length, seed, gaps=gaps) for seed in range(width)]
    return [list(row) for row in zip(*series, strict=True)]


def cases() -> dict[str, TimeSeriesRequest]:
    quantiles: dict[str, Any] = {"output_mode": "quantiles", "quantile_levels": LEVELS}
    temperature, wind = walk(100, 7), walk(100, 8, gaps=9)
    return {
        "univariate": ask(walk(100), horizon=20, **quantiles),
        "multivariate": ask(columns(200, 3), target_index=1, horizon=24, **quantiles),
        "multivariate with gaps": ask(columns(90, 4, gaps=20), target_index=3, horizon=5, **quantiles),
        "another variate all missing": ask([[v, None] for v in walk(50)], horizon=30, **quantiles),
        "past numbers": ask(
            walk(100), past_covariates={"t": temperature, "w": wind}, horizon=20, **quantiles
        ),
        "known future": ask(
            walk(100),
            past_covariates={"t": temperature, "w": wind},
            future_covariates={"t": walk(30, 9)},
            horizon=30,
            **quantiles,
        ),
        "categories": ask(
            walk(100),
            past_covariates={"kind": kinds(100), "t": temperature, "a": wind},
            future_covariates={"kind": [*kinds(19), "hail"]},
            horizon=20,
            **quantiles,
        ),
        "several targets with categories": ask(
            columns(100, 2),
            target_index=1,
            past_covariates={"kind": kinds(100)},
            future_covariates={"kind": kinds(31)},
            horizon=31,
            **quantiles,
        ),
        "known future beyond one pass": ask(
            walk(600),
            past_covariates={"t": walk(600, 5), "kind": kinds(600)},
            future_covariates={"t": walk(300, 6), "kind": kinds(300)},
            horizon=300,
            **quantiles,
        ),
        "several targets beyond one pass": ask(columns(600, 2), target_index=1, horizon=140, **quantiles),
    }


@pytest.mark.parametrize("name", cases())
def test_one_request_equals_the_librarys_call(name: str, backend: Chronos2Backend, library: Any) -> None:
    request = cases()[name]
    point, quantiles = direct(library, request)
    response = backend.predict(request)
    assert_close(response.mean, point)
    assert_close(quantiles_of(response), quantiles)
    assert response.point == "median"


def test_all_of_them_in_one_batch_equal_the_librarys_calls(backend: Chronos2Backend, library: Any) -> None:
    requests = list(cases().values())
    for request, outcome in zip(requests, backend.batch_predict(requests), strict=True):
        point, quantiles = direct(library, request)
        assert isinstance(outcome, TimeSeriesResponse)
        assert_close(outcome.mean, point)
        assert_close(quantiles_of(outcome), quantiles)


def test_batch_permuted_and_single_agree(backend: Chronos2Backend) -> None:
    assert_batch_permuted_and_single_agree(backend, list(cases().values()))


@pytest.mark.parametrize("horizon", [33, 64, 100])
def test_paths_that_part_from_one_another_equal_the_librarys(
    horizon: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Short blocks after a short history: most of what the later blocks see are the paths themselves."""
    from chronos import BaseChronosPipeline

    path = make_chronos2(tmp_path_factory.mktemp("short"), output_patches=2)
    library = BaseChronosPipeline.from_pretrained(str(path), device_map="cpu", dtype=torch.float32)
    backend = Chronos2Backend(model_id=str(path))
    backend.load()
    fields: dict[str, Any] = {
        "output_mode": "quantiles",
        "quantile_levels": CHRONOS2_LEVELS,
        "horizon": horizon,
    }
    requests = [
        ask(walk(12), **fields),
        ask(columns(30, 2), target_index=1, **fields),
        ask(walk(70), **fields),
    ]
    for request, outcome in zip(requests, backend.batch_predict(requests), strict=True):
        point, quantiles = direct(library, request)
        assert isinstance(outcome, TimeSeriesResponse)
        assert_close(outcome.mean, point)
        assert_close(quantiles_of(outcome), quantiles)


def test_covariates_and_other_variates_matter(backend: Chronos2Backend) -> None:
    """Else the tests above would pass on a model that looks at the target alone."""
    alone = np.array(backend.predict(ask(walk(100), horizon=20)).mean)
    covariates = {"t": walk(100, 7)}
    past = np.array(backend.predict(ask(walk(100), horizon=20, past_covariates=covariates)).mean)
    known = ask(walk(100), horizon=20, past_covariates=covariates, future_covariates={"t": walk(20, 9)})
    future = np.array(backend.predict(known).mean)
    both = np.array(backend.predict(ask(columns(100, 2), horizon=20)).mean)
    for one, other in ((alone, past), (past, future), (alone, both)):
        assert np.abs(one - other).max() > 1e-2


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        (
            {"past_covariates": {"a/b": kinds(50)}, "future_covariates": {"a/b": [1.0] * 5}},
            ("mismatch", "/future_covariates/a~1b"),
        ),
        ({"past_covariates": {"x": [1e18] * 50}}, ("out_of_range", "/past_covariates/x")),
        ({"past_covariates": {"x": [1e-30, 0.0] * 25}}, ("out_of_range", "/past_covariates/x")),
        ({"history": [[1.0, 1e-30]] * 50}, ("out_of_range", "/history")),
        ({"history": [[1.0] * 513] * 3}, ("too_long", "/history")),
        ({"past_covariates": {str(i): [1.0] * 50 for i in range(512)}}, ("too_long", "/past_covariates")),
    ],
)
def test_what_the_model_cannot_take_is_refused(
    fields: dict[str, Any], fault: tuple[str, str], backend: Chronos2Backend
) -> None:
    (outcome,) = backend.predict_all([ask(**{"history": walk(50), **fields})])
    assert fault_of(outcome) == fault


def test_requests_of_equal_output_patches_share_a_batch(backend: Chronos2Backend) -> None:
    keys = [backend.batch_key(ask(walk(9), horizon=horizon)) for horizon in (1, 16, 17, 32, 33)]
    assert keys == [1, 1, 2, 2, 3]
