"""The sampling Chronos: the library's own paths, but drawn from a generator of each request's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sheaf.api.time_series import TimeSeriesResponse
from sheaf.backends.chronos import Chronos2Backend
from sheaf_client.errors import InvalidRequestError
from tests.backends.answers import fault_of
from tests.backends.time_series.checkpoints import make_chronos_t5
from tests.backends.time_series.chronos_cases import (
    HORIZONS,
    ask,
    assert_close,
    quantiles_of,
    random_mix,
    target,
    walk,
)

pytest.importorskip("chronos")
torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

Make = Callable[..., tuple[Chronos2Backend, Any]]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """The backend and the library's pipeline on one checkpoint, once per setting."""
    from chronos import BaseChronosPipeline

    made: dict[Any, tuple[Chronos2Backend, Any]] = {}

    def found(**settings: Any) -> tuple[Chronos2Backend, Any]:
        key = tuple(sorted(settings.items()))
        if key not in made:
            path: Path = make_chronos_t5(tmp_path_factory.mktemp("t5"), **settings)
            backend = Chronos2Backend(model_id=str(path))
            backend.load()
            library = BaseChronosPipeline.from_pretrained(str(path), device_map="cpu", dtype=torch.float32)
            made[key] = backend, library
        return made[key]

    return found


@pytest.mark.parametrize("seed", range(2))
def test_without_chance_any_mix_equals_the_librarys_single_calls(seed: int, make: Make) -> None:
    backend, library = make(top_k=1)
    # Without seeds, so that all of them share their passes.
    requests = [
        request.model_copy(update={"seed": None})
        for request in random_mix(
            seed, 12, modes=("mean", "quantiles", "samples"), horizons=[1, 5, 12, 66 if seed else 20]
        )
    ]
    for request, outcome in zip(requests, backend.batch_predict(requests), strict=True):
        context = [torch.from_numpy(target(request))]
        options = {"prediction_length": request.horizon, "num_samples": request.num_samples}
        samples = library.predict(context, **options)[0].numpy()
        quantiles, mean = library.predict_quantiles(
            context, quantile_levels=list(request.quantile_levels), **options
        )
        assert isinstance(outcome, TimeSeriesResponse)
        assert outcome.point == "mean"
        assert_close(outcome.mean, mean[0].numpy())
        if request.output_mode == "quantiles":
            assert_close(quantiles_of(outcome), quantiles[0].numpy().T)
        if request.output_mode == "samples":
            assert_close(outcome.samples, samples)


@pytest.mark.parametrize(
    "settings",
    [{}, {"top_k": 0}, {"temperature": 0.6, "top_k": 20}, {"top_k": 0, "top_p": 0.8, "temperature": 1.4}],
    ids=str,
)
@pytest.mark.parametrize("horizon", [*HORIZONS])
def test_the_librarys_sampling_with_the_same_numbers_gives_the_same_paths(
    settings: dict[str, Any], horizon: int, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Give the library's draws the numbers that the request's generator has, and compare every path.

    `torch.multinomial` is where the library draws: everything before and after it is the library's own.
    """
    backend, library = make(**settings)
    request = ask(walk(80), horizon=horizon, num_samples=9, seed=4, output_mode="samples")
    samples = backend.predict(request).samples
    generator = torch.Generator().manual_seed(4)
    rows = iter(
        [
            row
            for done in range(0, horizon, 64)
            for row in torch.rand((min(64, horizon - done), 9), generator=generator, dtype=torch.float64)
        ]
    )

    def draw(shares: Any, num_samples: int) -> Any:
        assert num_samples == 1
        borders = shares.double().cumsum(-1)
        return torch.searchsorted(borders, next(rows)[:, None] * borders[:, -1:], right=True)

    monkeypatch.setattr(torch, "multinomial", draw)
    expected = library.predict([torch.from_numpy(target(request))], prediction_length=horizon, num_samples=9)
    assert next(rows, None) is None, "the library drew as often as we did"
    np.testing.assert_array_equal(samples, expected[0].numpy())
    assert np.std(samples) > 0


def test_the_first_step_has_the_librarys_distribution(make: Make) -> None:
    backend, library = make(num_tokens=64, top_k=8)
    history = walk(60)
    drawn = np.array(
        backend.predict(ask(history, horizon=1, num_samples=10_000, seed=9, output_mode="samples")).samples
    )[:, 0]
    tokens, mask, scale = library.tokenizer.context_input_transform(
        torch.tensor([history], dtype=torch.float32)
    )
    start = torch.zeros((1, 1), dtype=torch.long)
    with torch.no_grad():
        logits = library.model.model(input_ids=tokens, attention_mask=mask, decoder_input_ids=start).logits[
            0, -1
        ]
    logits[library.model.config.eos_token_id] = -torch.inf
    best = torch.topk(logits, 8)
    shares = torch.softmax(best.values, -1).numpy()
    values = library.tokenizer.output_transform(best.indices[None, None], scale)[0, 0].numpy()
    counts = {float(value): int((drawn == value).sum()) for value in np.unique(drawn)}
    assert sum(counts.values()) == 10_000
    for value in np.unique(values):
        expected = float(shares[values == value].sum())
        tolerance = 5 * np.sqrt(expected * (1 - expected) / 10_000)
        assert abs(counts.get(float(value), 0) / 10_000 - expected) < tolerance


def test_a_seed_repeats_whatever_else_is_in_the_batch(make: Make) -> None:
    backend, _ = make()
    request = ask(walk(70), horizon=70, num_samples=11, seed=8, output_mode="samples")
    alone = backend.predict(request)
    for seed in range(3):
        mix = random_mix(seed, 5, modes=("samples",), horizons=[1, 5, 12, 20])
        mix.insert(seed, request)
        assert backend.batch_predict(mix)[seed] == alone
    assert backend.predict(ask(walk(70), horizon=70, num_samples=11, seed=9)).mean != alone.mean


def test_without_a_seed_answers_differ(make: Make) -> None:
    backend, _ = make()
    request = ask(walk(70))
    first, second = backend.batch_predict([request, request])
    assert isinstance(first, TimeSeriesResponse)
    assert isinstance(second, TimeSeriesResponse)
    assert first.mean != second.mean
    assert first.mean != backend.predict(request).mean


def test_a_shorter_horizon_is_the_beginning_of_a_longer_one(make: Make) -> None:
    backend, _ = make()
    long, short = (
        np.array(backend.predict(ask(walk(70), horizon=h, seed=1, output_mode="samples")).samples)
        for h in (64, 9)
    )
    assert_close(long[:, :9], short)


def test_more_paths_than_one_pass_takes(make: Make) -> None:
    backend, _ = make()
    fields: dict[str, Any] = {"horizon": 3, "num_samples": 700, "output_mode": "samples"}
    requests = [ask(walk(40, seed), seed=seed, **fields) for seed in (1, 2)]
    outcomes = backend.batch_predict(requests)
    for request, outcome in zip(requests, outcomes, strict=True):
        assert isinstance(outcome, TimeSeriesResponse)
        assert np.array(outcome.samples).shape == (700, 3)
        assert outcome == backend.predict(request)
    unseeded = backend.batch_predict(
        [ask(walk(40), **fields), ask(walk(40, 1), **{**fields, "num_samples": 40})]
    )
    shapes = [
        np.array(outcome.samples).shape for outcome in unseeded if isinstance(outcome, TimeSeriesResponse)
    ]
    assert shapes == [(700, 3), (40, 3)]


def test_quantiles_and_mean_are_those_of_the_paths(make: Make) -> None:
    backend, _ = make()
    fields: dict[str, Any] = {"horizon": 7, "seed": 2, "num_samples": 33}
    samples = np.array(backend.predict(ask(walk(70), output_mode="samples", **fields)).samples)
    response = backend.predict(ask(walk(70), output_mode="quantiles", quantile_levels=[0.003, 0.4], **fields))
    assert_close(response.mean, samples.mean(axis=0))
    assert_close(quantiles_of(response), np.quantile(samples, [0.003, 0.4], axis=0))


def test_the_backends_own_count_of_paths_is_for_those_who_name_none(make: Make) -> None:
    path = make()[0].model_id
    backend = Chronos2Backend(model_id=path, num_samples=3)
    backend.load()
    assert len(backend.predict(ask(walk(20), output_mode="samples")).samples or ()) == 3
    assert len(backend.predict(ask(walk(20), output_mode="samples", num_samples=20)).samples or ()) == 20


def test_too_many_numbers_are_refused(make: Make) -> None:
    backend, _ = make()
    with pytest.raises(InvalidRequestError) as refused:
        backend.check(ask(walk(20), num_samples=10_000, horizon=101))
    assert fault_of(refused.value) == ("out_of_range", "/num_samples")


def test_only_requests_without_a_seed_share_a_batch(make: Make) -> None:
    backend, _ = make()
    free, same, seeded = ask(walk(20)), ask(walk(9)), ask(walk(20), seed=1)
    assert backend.batch_key(free) == backend.batch_key(same)
    assert backend.batch_key(seeded) != backend.batch_key(ask(walk(20), seed=1))
