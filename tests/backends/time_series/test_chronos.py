"""The backend `chronos2` against the library's own direct calls, on all three kinds of checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from sheaf import ModelSpec
from sheaf.api.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf.backends.chronos import Chronos2Backend
from sheaf.cache import CacheConfig
from sheaf_client import Sheaf
from sheaf_client.contracts.events import ProgressEvent
from sheaf_client.errors import InvalidRequestError
from tests.backends.answers import fault_of
from tests.backends.conformance import BackendConformance
from tests.backends.time_series.checkpoints import make_chronos2, make_chronos_bolt, make_chronos_t5
from tests.backends.time_series.chronos_cases import (
    HORIZONS,
    ask,
    assert_close,
    assert_equal,
    quantiles_of,
    random_mix,
    target,
    walk,
)

pytest.importorskip("chronos")
torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:We recommend keeping"),
]

#: Horizons of the kind that takes a pass for each step.
SHORT = [1, 5, 12]
KINDS = {"bolt": make_chronos_bolt, "chronos2": make_chronos2, "t5": make_chronos_t5}


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("chronos")
    return {kind: make(folder / kind) for kind, make in KINDS.items()}


@pytest.fixture(scope="module")
def backends(checkpoints: dict[str, Path]) -> dict[str, Chronos2Backend]:
    """All three loaded side by side in one process."""
    found = {kind: Chronos2Backend(model_id=str(path)) for kind, path in checkpoints.items()}
    for backend in found.values():
        backend.load()
        backend.warm_up()
    return found


@pytest.fixture(scope="module")
def libraries(checkpoints: dict[str, Path]) -> dict[str, Any]:
    from chronos import BaseChronosPipeline

    return {
        kind: BaseChronosPipeline.from_pretrained(str(path), device_map="cpu", dtype=torch.float32)
        for kind, path in checkpoints.items()
    }


def direct(library: Any, request: Any) -> tuple[Any, Any]:
    """Point and quantiles of shape (levels, horizon) by one call of the library for one request."""
    quantiles, point = library.predict_quantiles(
        [torch.from_numpy(target(request))],
        prediction_length=request.horizon,
        quantile_levels=list(request.quantile_levels),
    )
    # Chronos-2 puts the variates before the horizon.
    return point[0].reshape(-1).numpy(), quantiles[0].reshape(request.horizon, -1).numpy().T


class Chronos(BackendConformance):
    """What holds for each kind of checkpoint."""

    backend_class = Chronos2Backend
    needed_files = ("config.json", "model.safetensors")
    options: ClassVar[Mapping[str, Sequence[Any]]] = {
        "horizon": HORIZONS,
        "quantile_levels": [[0.5], [0.1, 0.9], [0.25, 0.5, 0.87], [0.9, 0.1, 0.333]],
        "num_samples": [1, 3, 20],
        "seed": [0, 2**31],
    }
    kind: ClassVar[str]
    other: ClassVar[str]

    @pytest.fixture(scope="class")
    def settings(self, checkpoints: dict[str, Path]) -> dict[str, Any]:
        return {"model_id": checkpoints[self.kind]}

    @pytest.fixture(scope="class")
    def neighbor(self, checkpoints: dict[str, Path]) -> dict[str, Any]:
        return {"model_id": checkpoints[self.other]}

    @pytest.fixture(scope="class")
    def requests(self) -> Sequence[TimeSeriesRequest]:
        return [*random_mix(0), *random_mix(1)]

    @pytest.fixture(scope="class")
    def direct(self, libraries: dict[str, Any]) -> Callable[[TimeSeriesRequest], dict[str, Any]]:
        def call(request: TimeSeriesRequest) -> dict[str, Any]:
            point, rows = direct(libraries[self.kind], request)
            quantiles = dict(zip(map(str, request.quantile_levels), rows, strict=True))
            asked = request.output_mode == "quantiles"
            return {"mean": point, "quantiles": quantiles if asked else None, "point": "median"}

        return call

    @pytest.fixture(scope="class")
    def refused(self) -> list[tuple[TimeSeriesRequest, str, str]]:
        return [(ask(walk(50), static_covariates={"x": 1.0}), "unsupported", "/static_covariates")]

    @pytest.fixture(scope="class")
    def poison(self, refused: list[tuple[Any, str, str]]) -> list[tuple[TimeSeriesRequest, str, str]]:
        return [*refused, (ask([1e300, -1e300]), "out_of_range", "/history")]


class TestBolt(Chronos):
    kind, other = "bolt", "chronos2"
    # The library does not even mention the second.
    needed_weights = (
        ("model.safetensors", "encoder.final_layer_norm.weight"),
        ("model.safetensors", "output_patch_embedding.output_layer.weight"),
    )


class TestChronos2(Chronos):
    kind, other = "chronos2", "bolt"
    needed_weights = (("model.safetensors", "input_patch_embedding.hidden_layer.weight"),)


class TestT5(Chronos):
    kind, other = "t5", "bolt"
    needed_weights = (
        ("model.safetensors", "decoder.final_layer_norm.weight"),
        ("model.safetensors", "shared.weight"),
    )
    # It draws step after step.
    options: ClassVar[Mapping[str, Sequence[Any]]] = {
        **Chronos.options,
        "horizon": SHORT,
        "num_samples": [1, 3],
    }
    exempt: ClassVar[Mapping[str, str]] = {
        "test_answers_equal_the_librarys_own_call": "it draws; test_chronos_sampling.py compares the paths",
        "test_half_precision_is_near_and_another_dtype_is_refused": "other digits are another draw",
    }

    @pytest.fixture(scope="class")
    def requests(self) -> Sequence[TimeSeriesRequest]:
        return random_mix(10, modes=("mean", "quantiles", "samples"), horizons=SHORT)


@pytest.mark.parametrize("mode", ["mean", "quantiles", "samples"])
def test_chance_decides_over_the_sampling_kind_alone(mode: str, backends: dict[str, Chronos2Backend]) -> None:
    for kind, backend in backends.items():
        assert backend.deterministic(ask(walk(30), output_mode=mode)) == (kind != "t5")
        assert backend.deterministic(ask(walk(30), output_mode=mode, seed=0))


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_cache_keeps_what_draws_nothing(kind: str, checkpoints: dict[str, Path]) -> None:
    settings = {"model_id": str(checkpoints[kind])}
    spec = ModelSpec(name="m", backend="chronos2", backend_kwargs=settings, cache=CacheConfig())
    with Sheaf.local([spec]) as client:
        asked = [
            client.time_series.forecast(model="m", history=[1.0, 2.0, 3.0] * 9, horizon=3, frequency="1M")
            for _ in range(2)
        ]
    assert [answer.metadata.usage.cache_hit for answer in asked] == [False, kind != "t5"]


@pytest.mark.parametrize("kind", ["bolt", "chronos2"])
@pytest.mark.parametrize("horizon", [*HORIZONS, 200])
def test_one_request_equals_the_librarys_call(
    kind: str, horizon: int, backends: dict[str, Chronos2Backend], libraries: dict[str, Any]
) -> None:
    levels = [0.1, 0.2, 0.5, 0.9]
    request = ask(walk(700), horizon=horizon, output_mode="quantiles", quantile_levels=levels)
    point, quantiles = direct(libraries[kind], request)
    response = backends[kind].predict(request)
    assert_close(response.mean, point)
    assert_close(quantiles_of(response), quantiles)
    assert quantiles.std() > 0.1, "a checkpoint that says nothing proves nothing"


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_batch_takes_several_passes_and_changes_nothing(
    kind: str, backends: dict[str, Chronos2Backend]
) -> None:
    horizons = SHORT if kind == "t5" else HORIZONS
    requests = random_mix(21, 40, modes=("quantiles",), horizons=horizons)
    together = backends[kind].batch_predict(requests)
    for i in range(0, 40, 4):
        assert_equal(together[i], backends[kind].predict(requests[i]))


@pytest.mark.parametrize(
    ("kind", "horizon"), [("bolt", 5), ("bolt", 130), ("chronos2", 5), ("chronos2", 130), ("t5", 66)]
)
def test_streams_tell_each_block_of_steps(
    kind: str, horizon: int, backends: dict[str, Chronos2Backend]
) -> None:
    request = ask(walk(100), horizon=horizon, seed=1, output_mode="quantiles")
    *events, last = backends[kind].stream(request)
    blocks = -(-horizon // (128 if kind == "chronos2" else 64))
    assert events == [ProgressEvent(step=i + 1, total_steps=blocks) for i in range(blocks)]
    assert isinstance(last, TimeSeriesResponse)
    assert last == backends[kind].predict(request)


@pytest.mark.parametrize("kind", KINDS)
def test_streams_that_run_in_turns_do_not_meet(kind: str, backends: dict[str, Chronos2Backend]) -> None:
    horizon = 66 if kind == "t5" else 130
    requests = [ask(walk(60, seed), horizon=horizon, seed=seed) for seed in (1, 2)]
    streams = [backends[kind].stream(request) for request in requests]
    last: list[Any] = [None, None]
    for _ in range(4):
        for i, stream in enumerate(streams):
            last[i] = next(stream, last[i])
    for answer, request in zip(last, requests, strict=True):
        assert answer == backends[kind].predict(request)


@pytest.mark.parametrize("kind", ["bolt", "chronos2"])
def test_levels_and_samples_beyond_the_model_are_refused(
    kind: str, backends: dict[str, Chronos2Backend]
) -> None:
    low = 0.05 if kind == "bolt" else 0.005
    refused = ask(walk(50), output_mode="quantiles", quantile_levels=[0.5, low])
    good = ask(walk(50), quantile_levels=[0.5, low])  # not asked for: the mode is mean
    outcomes = backends[kind].predict_all([good, refused, ask(walk(50), output_mode="samples")])
    assert isinstance(outcomes[0], TimeSeriesResponse)
    assert fault_of(outcomes[1]) == ("unsupported", "/quantile_levels/1")
    assert fault_of(outcomes[2]) == ("unsupported", "/output_mode")
    with pytest.raises(InvalidRequestError):
        backends[kind].check(refused)


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"static_covariates": {"x": 1.0}}, "/static_covariates"),
        ({"past_covariates": {"x": [1.0] * 50}}, "/past_covariates"),
        ({"history": [*[1.0] * 5, *[None] * 512]}, "/history"),
        ({"history": [[1.0, None]] * 9, "target_index": 1}, "/history"),
        ({"start": "9999-12-31T20:00:00"}, "/horizon"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_model_cannot_do_is_refused(
    kind: str, fields: dict[str, Any], path: str, backends: dict[str, Chronos2Backend]
) -> None:
    request = ask(**{"history": walk(50), **fields})
    if kind == "chronos2" and path == "/past_covariates":
        backends[kind].check(request)
        return
    with pytest.raises(InvalidRequestError) as refused:
        backends[kind].check(request)
    assert fault_of(refused.value)[1] == path


@pytest.mark.parametrize("kind", ["bolt", "t5"])
def test_one_of_several_variates_is_forecast(kind: str, backends: dict[str, Chronos2Backend]) -> None:
    history = walk(40)
    several = ask([[0.0, value] for value in history], target_index=1, seed=1)
    response = backends[kind].predict(several)
    assert response.mean == backends[kind].predict(ask(history, seed=1)).mean
    assert "column 1 of 2" in response.metadata.warnings[0]


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_too_large_for_the_model_fail_alone(
    kind: str, backends: dict[str, Chronos2Backend], libraries: dict[str, Any]
) -> None:
    good = ask(walk(40), seed=1)
    histories = [[1e300, -1e300], [2e17, -2e17], [9e16, -9e16] * 256]
    outcomes = backends[kind].predict_all([*map(ask, histories), good])
    assert fault_of(outcomes[0]) == fault_of(outcomes[1]) == ("out_of_range", "/history")
    assert isinstance(outcomes[2], TimeSeriesResponse)
    if kind != "t5":
        assert_close(outcomes[2].mean, direct(libraries[kind], ask(histories[2]))[0])
    assert_equal(outcomes[3], backends[kind].predict(good))


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_too_small_for_the_model_fail_alone(kind: str, backends: dict[str, Chronos2Backend]) -> None:
    sizes = np.array(walk(40), dtype=np.float64)
    good, small = ask(walk(40), seed=1), ask((sizes * 1e-14).tolist(), seed=1)
    lost = [ask((sizes * size).tolist()) for size in (1e-300, 1e-100, 1e-40, 1e-20)]
    *refused, one, other = backends[kind].predict_all([*lost, small, good])
    assert {fault_of(outcome) for outcome in refused} == {("out_of_range", "/history")}
    assert_equal(other, backends[kind].predict(good))
    # The smallest that are taken are forecast as the same numbers in another unit.
    np.testing.assert_allclose(np.array(one.mean) * 1e14, other.mean, rtol=1e-2, atol=1e-2)
    assert isinstance(backends[kind].predict(ask([0.0] * 20, seed=1)), TimeSeriesResponse)


@pytest.mark.parametrize("kind", KINDS)
def test_horizons_beyond_a_block_carry_a_warning(kind: str, backends: dict[str, Chronos2Backend]) -> None:
    long = 65 if kind == "t5" else 129
    assert backends[kind].predict(ask(walk(40), horizon=64, num_samples=2)).metadata.warnings == []
    (warning,) = backends[kind].predict(ask(walk(40), horizon=long, num_samples=2)).metadata.warnings
    assert "steps at once" in warning


@pytest.mark.parametrize("kind", KINDS)
def test_a_shorter_context_is_the_end_of_the_history(kind: str, checkpoints: dict[str, Path]) -> None:
    backend = Chronos2Backend(model_id=str(checkpoints[kind]), context_length=48)
    backend.load()
    history, horizon = walk(200), 12 if kind == "t5" else 130
    long, short = (ask(values, horizon=horizon, seed=1) for values in (history, history[-48:]))
    assert backend.predict(long).mean == backend.predict(short).mean


def test_a_short_horizon_does_not_wait_for_a_long_one(backends: dict[str, Chronos2Backend]) -> None:
    short, long = ask(walk(40), horizon=64), ask(walk(40), horizon=65)
    assert backends["bolt"].batch_key(short) != backends["bolt"].batch_key(long)
    assert backends["bolt"].batch_key(short) == backends["bolt"].batch_key(ask(walk(9), horizon=1))
    assert backends["bolt"].cost(long) > 9 * backends["bolt"].cost(short)
