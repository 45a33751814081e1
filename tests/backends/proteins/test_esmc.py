"""The backend `esmc` against the library's own call for each sequence alone."""

from __future__ import annotations

import random
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sheaf.api.protein_language import ProteinLanguageRequest, ProteinLanguageResponse
from sheaf.backends import esmc
from sheaf.backends.esmc import ESMCBackend
from sheaf.extras import install_command
from sheaf.spec import ModelSpec
from sheaf_client import Sheaf
from sheaf_client.errors import InvalidRequestError
from tests.backends.proteins.checkpoints import make_esmc
from tests.backends.proteins.protein_cases import (
    MIXES,
    assert_close,
    copy_files,
    fault_of,
    library_inputs,
    protein,
    proteins,
    without_weight,
)

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_thread")]

EVERYTHING = {"return_embeddings": True, "output_hidden_states": True}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_esmc(tmp_path_factory.mktemp("esmc"))


@pytest.fixture(scope="module")
def backends(checkpoint: Path) -> dict[str, ESMCBackend]:
    """One with the passes of a CPU, and one whose passes are full whatever is padded."""
    return {"usual": loaded(checkpoint), "full": loaded(checkpoint, pass_overhead=1e6)}


@pytest.fixture(scope="module")
def backend(backends: dict[str, ESMCBackend]) -> ESMCBackend:
    return backends["usual"]


@pytest.fixture(scope="module")
def library(checkpoint: Path) -> Any:
    from transformers import EsmcForMaskedLM, EsmcTokenizer

    model = EsmcForMaskedLM.from_pretrained(str(checkpoint)).eval()
    return model, EsmcTokenizer.from_pretrained(str(checkpoint))


def loaded(path: Path, **settings: Any) -> ESMCBackend:
    backend = ESMCBackend(model_id=str(path), **settings)
    backend.load()
    backend.warm_up()
    return backend


def ask(*sequences: str, **fields: Any) -> ProteinLanguageRequest:
    body = {"model_name": "m", "sequences": list(sequences), **fields}
    return ProteinLanguageRequest.model_validate(body)


def assert_is_the_librarys(request: ProteinLanguageRequest, outcome: Any, library: Any) -> None:
    """Each field that was asked for equals that of one call for each sequence; the others are absent."""
    assert isinstance(outcome, ProteinLanguageResponse), outcome
    assert outcome.request_id == request.request_id
    model, tokenizer = library
    asked = {
        "logits": request.return_logits,
        "embeddings": request.return_embeddings or request.output_hidden_states,
        "hidden_states": request.output_hidden_states,
    }
    assert {name for name, wanted in asked.items() if wanted} == {
        name for name in asked if getattr(outcome, name) is not None
    }
    assert outcome.vocab_size == (64 if request.return_logits else None)
    assert outcome.hidden_dim == (32 if asked["embeddings"] else None)
    for i, sequence in enumerate(request.sequences):
        inputs = library_inputs(tokenizer, sequence)
        assert outcome.seq_lens[i] == inputs["input_ids"].shape[1]
        with torch.inference_mode():
            out = model(**inputs, output_hidden_states=True)
        if outcome.logits is not None:
            assert_close(outcome.logits[i], out.logits[0])
        if outcome.embeddings is not None:
            assert_close(outcome.embeddings[i], out.hidden_states[-1][0])
        if outcome.hidden_states is not None:
            layers = [layer[i] for layer in outcome.hidden_states]
            assert_close(layers, torch.stack(out.hidden_states, 1)[0])


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("passes", ["usual", "full"])
def test_any_mix_of_lengths_equals_the_librarys_single_calls(
    mix: str, passes: str, backends: dict[str, ESMCBackend], library: Any
) -> None:
    together = ask(*proteins(mix), **EVERYTHING)
    apart = [ask(sequence, **EVERYTHING) for sequence in proteins(mix)]
    backend = backends[passes]
    assert_is_the_librarys(together, backend.predict(together), library)
    for request, outcome in zip(apart, backend.batch_predict(apart), strict=True):
        assert_is_the_librarys(request, outcome, library)


@pytest.mark.parametrize("seed", range(3))
def test_requests_of_every_kind_share_a_batch(seed: int, backend: ESMCBackend, library: Any) -> None:
    rng = random.Random(seed)
    fields = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1)]
    requests = [
        ask(
            *[protein(rng.randint(1, 80), rng.randint(0, 99)) for _ in range(rng.randint(1, 3))],
            return_logits=bool(logits),
            return_embeddings=bool(embeddings),
            output_hidden_states=bool(hidden),
        )
        for logits, embeddings, hidden in rng.sample(fields, len(fields))
    ]
    for request, outcome in zip(requests, backend.batch_predict(requests), strict=True):
        assert_is_the_librarys(request, outcome, library)
    permuted = backend.batch_predict(requests[::-1])[::-1]
    for request, outcome in zip(requests, permuted, strict=True):
        assert_is_the_librarys(request, outcome, library)


def test_a_checkpoint_tells_residues_apart(backend: ESMCBackend) -> None:
    response = backend.predict(ask("MKTAYIAKQR"))
    assert response.logits is not None
    assert np.std(response.logits[0], axis=0).max() > 0.1, "all alike proves nothing"


def test_case_does_not_matter_and_masks_do(backend: ESMCBackend) -> None:
    response = backend.predict(ask("MKTXA", "mktxa", "MKT<mask>A"))
    assert response.logits is not None
    upper, lower, masked = response.logits
    assert upper == lower != masked
    assert response.seq_lens == [7, 7, 7]


@pytest.mark.parametrize(
    ("sequence", "code"),
    [("A" * 2047, "out_of_range"), ("MKJA", "unsupported"), ("MK*", "unsupported")],
)
def test_what_the_model_cannot_read_is_refused_with_its_path(
    sequence: str, code: str, backend: ESMCBackend
) -> None:
    good, bad = ask("MKT", "A" * 2046), ask("MKT", sequence)
    backend.check(good)
    with pytest.raises(InvalidRequestError) as refused:
        backend.check(bad)
    assert fault_of(refused.value) == (code, "/sequences/1")
    outcomes = backend.predict_all([ask("MK"), bad])
    assert isinstance(outcomes[0], ProteinLanguageResponse)
    assert fault_of(outcomes[1]) == (code, "/sequences/1")


def test_an_answer_too_large_to_send_is_refused_before_it_is_computed(
    backend: ESMCBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Five tokens: 64 logits, 32 numbers of an embedding, three times 32 of the hidden states.
    monkeypatch.setattr(esmc, "MAX_VALUES", 5 * (64 + 32 + 96))
    backend.check(ask("MKT", **EVERYTHING))
    with pytest.raises(InvalidRequestError) as refused:
        backend.check(ask("MKTA", **EVERYTHING))
    assert fault_of(refused.value) == ("out_of_range", "/sequences")
    assert "1,152 numbers, 192 for each token; at most 960" in refused.value.errors[0].message
    backend.check(ask("MKTA", return_embeddings=True))


def test_passes_that_hold_all_layers_are_for_those_who_ask(backend: ESMCBackend) -> None:
    keys = {backend.batch_key(ask("MK", output_hidden_states=hidden)) for hidden in (True, False)}
    assert len(keys) == 2
    assert backend.batch_key(ask("MK", return_embeddings=True)) == backend.batch_key(ask("MKT"))
    assert (backend.padded, backend.cost(ask("MKT", "M<mask>"))) == (True, 9)


def test_concurrent_calls_through_the_engine_get_their_own_answers(checkpoint: Path, library: Any) -> None:
    spec = ModelSpec(
        name="esmc",
        backend="esmc",
        backend_kwargs={"model_name": str(checkpoint), "device_map": "cpu"},
        batch_policy={"max_batch_cost": 256},
    )
    requests = [ask(s, output_hidden_states=i % 4 == 0) for i, s in enumerate(proteins("many"))]
    with Sheaf.local([spec]) as client, ThreadPoolExecutor(len(requests)) as callers:

        def call(request: ProteinLanguageRequest) -> Any:
            return client.protein_language.infer(
                model="esmc",
                sequences=request.sequences,
                output_hidden_states=request.output_hidden_states,
                request_id=request.request_id,
            )

        answers = list(callers.map(call, requests))
        with pytest.raises(InvalidRequestError) as refused:
            client.protein_language.infer(model="esmc", sequences=["MKT", "J"])
    assert fault_of(refused.value) == ("unsupported", "/sequences/1")
    for request, answer in zip(requests, answers, strict=True):
        assert_is_the_librarys(request, answer, library)


def test_models_side_by_side_keep_to_themselves(backend: ESMCBackend, tmp_path: Path) -> None:
    request = ask(*proteins("near"))
    before = backend.predict(request)
    other = loaded(make_esmc(tmp_path, seed=1, vocab_size=40))
    assert other.predict(request).vocab_size == 40
    assert backend.predict(request) == before


def test_nothing_global_changes(checkpoint: Path) -> None:
    import os

    def state() -> tuple[Any, ...]:
        return (
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.get_num_threads(),
            torch.random.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),
            dict(os.environ),
        )

    before = state()
    backend = loaded(checkpoint)
    assert state() == before
    backend.predict(ask(*proteins("far"), **EVERYTHING))
    assert state() == before


def test_values_that_are_not_finite_fail_alone(checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(checkpoint / "model.safetensors")
    weights["esmc.embed_tokens.weight"][22] = torch.inf  # tryptophan
    copy_files(checkpoint, tmp_path, leave="model.safetensors")
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    outcomes = loaded(tmp_path, pass_overhead=1e6).batch_predict([ask("MKTA"), ask("MKTA", "MKW")])
    assert isinstance(outcomes[0], ProteinLanguageResponse)
    assert fault_of(outcomes[1]) == ("unsupported", "/sequences/1")


def test_half_precision_loads(checkpoint: Path, backend: ESMCBackend) -> None:
    request = ask(protein(60))
    found = np.array(loaded(checkpoint, dtype="bfloat16").predict(request).logits)
    expected = np.array(backend.predict(request).logits)
    assert not np.allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found, expected, atol=0.3)


def test_a_checkpoint_without_a_file_or_a_weight_says_which(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        loaded(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"lacks the weights lm_head\.decoder\.weight"):
        loaded(without_weight(checkpoint, "lm_head.decoder.weight", tmp_path))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"model\.safetensors"):
        loaded(tmp_path)


def test_a_missing_library_is_told_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModuleNotFoundError, match=f"'esmc' needs .*{re.escape(install_command('proteins'))}"):
        ESMCBackend().load()


def test_older_spellings_are_understood_and_not_mixed() -> None:
    backend = ESMCBackend(model_name="x", device_map="cuda")
    assert (backend.model_id, backend.device) == ("x", "cuda")
    assert (ESMCBackend("y").model_id, ESMCBackend().device) == ("y", "cpu")
    with pytest.raises(TypeError, match="model_name"):
        ESMCBackend("x", model_name="other")
    with pytest.raises(TypeError, match="device_map"):
        ESMCBackend(device="cpu", device_map="cuda")
    assert ESMCBackend(device="cpu", device_map="cpu").device == "cpu"  # said twice, and the same
