"""The backend `chronos2` against the library's own direct calls, on all three kinds of checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sheaf import ModelSpec
from sheaf.api.time_series import TimeSeriesResponse
from sheaf.backends.chronos import Chronos2Backend
from sheaf.cache import CacheConfig
from sheaf_client import Sheaf
from sheaf_client.contracts.events import ProgressEvent
from sheaf_client.errors import InvalidRequestError
from tests.backends.time_series.checkpoints import make_chronos2, make_chronos_bolt, make_chronos_t5
from tests.backends.time_series.chronos_cases import (
    HORIZONS,
    ask,
    assert_batch_permuted_and_single_agree,
    assert_close,
    assert_equal,
    fault_of,
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
@pytest.mark.parametrize("seed", range(4))
def test_any_mix_equals_the_librarys_single_calls(
    kind: str, seed: int, backends: dict[str, Chronos2Backend], libraries: dict[str, Any]
) -> None:
    requests = random_mix(seed)
    for request, outcome in zip(requests, backends[kind].batch_predict(requests), strict=True):
        point, quantiles = direct(libraries[kind], request)
        assert isinstance(outcome, TimeSeriesResponse), outcome
        assert_close(outcome.mean, point)
        assert outcome.point == "median"
        if request.output_mode == "quantiles":
            assert_close(quantiles_of(outcome), quantiles)
        else:
            assert outcome.quantiles is None


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
@pytest.mark.parametrize("seed", range(2))
def test_batch_permuted_and_single_agree(kind: str, seed: int, backends: dict[str, Chronos2Backend]) -> None:
    modes = ("mean", "quantiles", "samples") if kind == "t5" else ("mean", "quantiles")
    assert_batch_permuted_and_single_agree(backends[kind], random_mix(seed + 10, modes=modes))


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_batch_takes_several_passes_and_changes_nothing(
    kind: str, backends: dict[str, Chronos2Backend]
) -> None:
    requests = random_mix(21, 40, modes=("quantiles",))
    together = backends[kind].batch_predict(requests)
    for i in range(0, 40, 4):
        assert_equal(together[i], backends[kind].predict(requests[i]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("horizon", [5, 130])
def test_streams_end_in_the_answer_of_predict(
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
    requests = [ask(walk(60, seed), horizon=130, seed=seed) for seed in (1, 2)]
    streams = [backends[kind].stream(request) for request in requests]
    last: list[Any] = [None, None]
    for _ in range(4):
        for i, stream in enumerate(streams):
            last[i] = next(stream, last[i])
    for answer, request in zip(last, requests, strict=True):
        assert answer == backends[kind].predict(request)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_global_changes(kind: str, checkpoints: dict[str, Path]) -> None:
    def state() -> tuple[Any, ...]:
        return (
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.get_num_threads(),
            torch.random.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),
        )

    before = state()
    backend = Chronos2Backend(model_id=str(checkpoints[kind]))
    backend.load()
    loaded = state()
    for fields in ({"seed": 3}, {}):
        backend.predict(ask(walk(50), horizon=130, **fields))
        stream = backend.stream(ask(walk(50), horizon=130, **fields))
        next(stream)
        assert state() == loaded, "while a stream is open"
        stream.close()
    assert state() == loaded
    assert before == loaded


def test_threads_are_set_only_when_asked_for(checkpoints: dict[str, Path]) -> None:
    Chronos2Backend(model_id=str(checkpoints["bolt"]), num_threads=2).load()
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


@pytest.mark.parametrize("kind", KINDS)
def test_models_side_by_side_keep_to_themselves(kind: str, backends: dict[str, Chronos2Backend]) -> None:
    request = ask(walk(80), seed=1)
    before = backends[kind].predict(request)
    for backend in backends.values():
        backend.predict(ask(walk(30), horizon=70))
    assert backends[kind].predict(request) == before


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
    assert backends[kind].predict(ask(walk(40), horizon=64)).metadata.warnings == []
    (warning,) = backends[kind].predict(ask(walk(40), horizon=129)).metadata.warnings
    assert "steps at once" in warning


@pytest.mark.parametrize("kind", KINDS)
def test_a_shorter_context_is_the_end_of_the_history(kind: str, checkpoints: dict[str, Path]) -> None:
    backend = Chronos2Backend(model_id=str(checkpoints[kind]), context_length=48)
    backend.load()
    history = walk(200)
    long, short = (ask(values, horizon=130, seed=1) for values in (history, history[-48:]))
    assert backend.predict(long).mean == backend.predict(short).mean


def test_a_short_horizon_does_not_wait_for_a_long_one(backends: dict[str, Chronos2Backend]) -> None:
    short, long = ask(walk(40), horizon=64), ask(walk(40), horizon=65)
    assert backends["bolt"].batch_key(short) != backends["bolt"].batch_key(long)
    assert backends["bolt"].batch_key(short) == backends["bolt"].batch_key(ask(walk(9), horizon=1))
    assert backends["bolt"].cost(long) > 9 * backends["bolt"].cost(short)


def test_a_checkpoint_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        Chronos2Backend(model_id=str(tmp_path / "nowhere")).load()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("bolt", "encoder.final_layer_norm.weight"),
        ("bolt", "output_patch_embedding.output_layer.weight"),  # the library does not even mention these
        ("chronos2", "input_patch_embedding.hidden_layer.weight"),
        ("t5", "decoder.final_layer_norm.weight"),
        ("t5", "shared.weight"),
    ],
)
def test_weights_the_checkpoint_lacks_are_never_made_up(
    kind: str, name: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(checkpoints[kind] / "model.safetensors")
    del weights[name]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_bytes((checkpoints[kind] / "config.json").read_bytes())
    with pytest.raises(ValueError, match="lacks the weights"):
        Chronos2Backend(model_id=str(tmp_path)).load()


def test_a_checkpoint_without_weights_is_an_error(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((checkpoints["bolt"] / "config.json").read_bytes())
    with pytest.raises(OSError, match="safetensors"):
        Chronos2Backend(model_id=str(tmp_path)).load()


def test_half_precision_loads(checkpoints: dict[str, Path], libraries: dict[str, Any]) -> None:
    backend = Chronos2Backend(model_id=str(checkpoints["bolt"]), torch_dtype="bfloat16")
    backend.load()
    request = ask(walk(100))
    found, (point, _) = backend.predict(request).mean, direct(libraries["bolt"], request)
    assert not np.array_equal(found, point)
    np.testing.assert_allclose(found, point, rtol=0.05)
    with pytest.raises(ValueError, match="int8"):
        Chronos2Backend(model_id=str(checkpoints["bolt"]), dtype="int8").load()
