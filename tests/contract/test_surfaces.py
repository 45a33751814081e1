"""One suite, many targets: the forecasts of real models equal the library's own, wherever they run."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sheaf.api.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf.spec import ModelSpec
from sheaf_client import ProgressEvent, ResultEvent, Sheaf
from sheaf_client.errors import InvalidRequestError, ModelNotFoundError
from tests.backends.time_series.checkpoints import make_chronos2, make_chronos_bolt, make_chronos_t5
from tests.contract.targets import TARGETS

pytestmark = pytest.mark.torch

QUANTILES = {"output_mode": "quantiles"}
LEVELS = [0.1, 0.25, 0.5, 0.83, 0.9]
#: (length of the history, horizon): mixed in one batch, beyond one block and one context too.
MIX = [(24, 5), (300, 64), (37, 65), (512, 1), (700, 130), (24, 5), (3, 12), (100, 96)]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return {
        "bolt": make_chronos_bolt(folder / "bolt"),
        "chronos2": make_chronos2(folder / "chronos2"),
        "t5": make_chronos_t5(folder / "t5"),
    }


@pytest.fixture(scope="module", params=["local", "asgi", "http", pytest.param("ray", marks=pytest.mark.ray)])
def client(request: pytest.FixtureRequest, checkpoints: dict[str, Path]) -> Iterator[Sheaf]:
    specs = [
        ModelSpec(name=name, backend="chronos2", backend_kwargs={"model_id": str(path), "num_threads": 1})
        for name, path in checkpoints.items()
    ]
    with TARGETS[request.param]([*specs, ModelSpec(name="ets", backend="statsforecast")]) as running:
        yield running


def walk(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([length, seed]).standard_normal(length).cumsum().round(3) + 50


def quantile_request(model: str, length: int, horizon: int, **fields: Any) -> TimeSeriesRequest:
    given = {"output_mode": "quantiles", "quantile_levels": LEVELS, "frequency": "1h", **fields}
    return TimeSeriesRequest(model_name=model, history=walk(length).tolist(), horizon=horizon, **given)


def library_quantiles(path: Path, length: int, horizon: int) -> np.ndarray:
    """The library's own direct call, alone: shape (horizon, levels)."""
    import torch
    from chronos import BaseChronosPipeline

    pipeline = BaseChronosPipeline.from_pretrained(path, device_map="cpu", dtype=torch.float32)
    context = torch.tensor(walk(length), dtype=torch.float32)
    quantiles, _ = pipeline.predict_quantiles([context], prediction_length=horizon, quantile_levels=LEVELS)
    return np.asarray(quantiles[0]).reshape(horizon, len(LEVELS))


def check_equal(answer: TimeSeriesResponse, expected: np.ndarray) -> None:
    assert answer.quantiles is not None
    got = np.stack([answer.quantiles[repr(level)] for level in LEVELS], axis=-1)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("model", ["bolt", "chronos2"])
def test_a_mixed_batch_equals_the_librarys_calls_one_by_one(
    client: Sheaf, checkpoints: dict[str, Path], model: str
) -> None:
    answers = client.time_series.forecast_many([quantile_request(model, *shape) for shape in MIX])
    for shape, answer in zip(MIX, answers, strict=True):
        assert isinstance(answer, TimeSeriesResponse)
        check_equal(answer, library_quantiles(checkpoints[model], *shape))
        assert (answer.horizon, answer.point, len(answer.mean)) == (shape[1], "median", shape[1])


@pytest.mark.parametrize("model", ["bolt", "chronos2"])
def test_concurrent_callers_get_what_they_would_get_alone(
    client: Sheaf, checkpoints: dict[str, Path], model: str
) -> None:
    with ThreadPoolExecutor(len(MIX)) as pool:
        answers = list(
            pool.map(lambda shape: client.time_series.forecast(quantile_request(model, *shape)), MIX)
        )
    for shape, answer in zip(MIX, answers, strict=True):
        check_equal(answer, library_quantiles(checkpoints[model], *shape))


def test_statsforecast_equals_its_library(client: Sheaf) -> None:
    from statsforecast.models import AutoETS

    history = walk(60)
    answer = client.time_series.forecast(
        model="ets",
        history=history,
        horizon=12,
        frequency="1M",
        output_mode="quantiles",
        quantile_levels=[0.1, 0.9],
    )
    own = AutoETS(season_length=12).forecast(y=history, h=12, level=[80])
    assert answer.quantiles is not None
    np.testing.assert_allclose(answer.mean, own["mean"])
    np.testing.assert_allclose(answer.quantiles["0.1"], own["lo-80"])
    np.testing.assert_allclose(answer.quantiles["0.9"], own["hi-80"])


def test_a_seed_repeats_samples_whatever_else_is_in_the_batch(client: Sheaf) -> None:
    def ask(seed: int, horizon: int = 8, num_samples: int = 5) -> TimeSeriesRequest:
        return TimeSeriesRequest(
            model_name="t5", history=walk(50).tolist(), horizon=horizon, frequency="1d",  # type: ignore[arg-type]
            output_mode="samples", num_samples=num_samples, seed=seed,  # type: ignore[arg-type]
        )  # fmt: skip

    alone = client.time_series.forecast(ask(7))
    many = client.time_series.forecast_many([ask(1, 20, 3), ask(7), ask(2), ask(7)])
    samples = [answer.samples for answer in many if isinstance(answer, TimeSeriesResponse)]
    assert alone.samples is not None
    assert np.shape(alone.samples) == (5, 8)
    np.testing.assert_allclose(samples[1], alone.samples)
    np.testing.assert_allclose(samples[3], alone.samples)
    assert not np.allclose(samples[2], alone.samples)
    np.testing.assert_allclose(alone.mean, np.mean(alone.samples, axis=0), rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "fields", "fault"),
    [
        ("bolt", {**QUANTILES, "quantile_levels": [0.5, 0.99]}, ("unsupported", "/quantile_levels/1")),
        ("chronos2", {**QUANTILES, "quantile_levels": [0.001]}, ("unsupported", "/quantile_levels/0")),
        ("bolt", {"output_mode": "samples"}, ("unsupported", "/output_mode")),
        ("bolt", {"past_covariates": {"x": [1.0, 2.0, 3.0]}}, ("unsupported", "/past_covariates")),
        ("ets", {"history": [1.0, None, 3.0]}, ("unsupported", "/history/1")),
        ("ets", {"horizon": 0}, ("out_of_range", "/horizon")),
        ("ets", {"history": []}, ("too_short", "/history")),
        ("ets", {"history": [1.0, float("inf"), 2.0]}, ("not_finite", "/history/1")),
        ("ets", {"static_covariates": {"size": 1.0}}, ("unsupported", "/static_covariates")),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_model_cannot_do_is_refused_with_its_path(
    client: Sheaf, model: str, fields: dict[str, Any], fault: tuple[str, str]
) -> None:
    given: dict[str, Any] = {
        "model": model,
        "history": [1.0, 2.0, 3.0],
        "horizon": 3,
        "frequency": "1h",
        **fields,
    }
    with pytest.raises(InvalidRequestError) as caught:
        client.time_series.forecast(**given)
    assert [(f.code, f.path) for f in caught.value.errors] == [fault]
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own exception
    assert (type(again), again.errors, str(again)) == (
        InvalidRequestError,
        caught.value.errors,
        str(caught.value),
    )
    assert client.time_series.forecast(model=model, history=walk(40), horizon=3, frequency="1h").horizon == 3


def test_an_unknown_model_is_the_same_error_everywhere(client: Sheaf) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        client.time_series.forecast(model="nobody", history=[1.0], horizon=1, frequency="1h")
    assert caught.value.status == 404


def test_a_stream_tells_each_block_and_ends_with_the_forecast(
    client: Sheaf, checkpoints: dict[str, Path]
) -> None:
    request = quantile_request("bolt", 100, 130)
    with client.time_series.stream(request) as stream:
        events = list(stream)
    steps = [(e.step, e.total_steps) for e in events if isinstance(e, ProgressEvent)]
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert isinstance(events[-1], ResultEvent)
    check_equal(stream.final(), library_quantiles(checkpoints["bolt"], 100, 130))
    assert stream.final().request_id == request.request_id


def test_times_and_names_come_back(client: Sheaf) -> None:
    answer = client.time_series.forecast(
        model="ets", history=walk(30), horizon=3, frequency="1M", start="2024-01-31", item_id="shop-7"
    )
    assert answer.timestamps is not None
    assert [f"{t:%Y-%m-%d}" for t in answer.timestamps] == ["2026-07-31", "2026-08-31", "2026-09-30"]
    assert answer.item_id == "shop-7"


def test_arrays_frames_and_missing_values_as_people_hold_them(client: Sheaf) -> None:
    import pandas as pd

    values = [1.0, float("nan"), 3.0, 4.0, 2.0, 5.0]
    ask = {"model": "bolt", "horizon": 4, "frequency": "1h"}
    plain = client.time_series.forecast(history=[1.0, None, 3.0, 4.0, 2.0, 5.0], **ask)  # type: ignore[arg-type]
    for held in (np.array(values), np.array(values, dtype=np.float32), pd.Series(values), tuple(values)):
        assert client.time_series.forecast(history=held, **ask).mean == plain.mean  # type: ignore[arg-type]


def test_the_client_lists_what_is_deployed(client: Sheaf) -> None:
    models = client.models.list()
    assert [(m.name, m.model_type, m.backend, m.ready) for m in models] == [
        ("bolt", "time_series", "chronos2", True),
        ("chronos2", "time_series", "chronos2", True),
        ("ets", "time_series", "statsforecast", True),
        ("t5", "time_series", "chronos2", True),
    ]
    assert models[0].operations == ["/bolt/time_series/forecast"]
