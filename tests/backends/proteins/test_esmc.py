"""The backend `esmc` against the library's own call for each sequence alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sheaf.api.protein_language import ProteinLanguageRequest, ProteinLanguageResponse
from sheaf.backends import esmc
from sheaf.backends.esmc import ESMCBackend
from sheaf_client.errors import InvalidRequestError
from tests.backends.answers import assert_alike, fault_of
from tests.backends.conformance import BackendConformance
from tests.backends.proteins.checkpoints import make_esmc
from tests.backends.proteins.protein_cases import (
    copy_files,
    library_inputs,
    protein,
    proteins,
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


def direct_of(library: Any) -> Callable[[ProteinLanguageRequest], dict[str, Any]]:
    """The fields that were asked for by one call of the library for each sequence; the others are absent."""
    model, tokenizer = library

    def call(request: ProteinLanguageRequest) -> dict[str, Any]:
        given = [library_inputs(tokenizer, sequence) for sequence in request.sequences]
        with torch.inference_mode():
            found = [model(**inputs, output_hidden_states=True) for inputs in given]
        layers = [[states[0].tolist() for states in out.hidden_states] for out in found]
        hidden = request.output_hidden_states
        embedded = request.return_embeddings or hidden
        return {
            "logits": [out.logits[0].tolist() for out in found] if request.return_logits else None,
            "vocab_size": 64 if request.return_logits else None,
            "embeddings": [each[-1] for each in layers] if embedded else None,
            "hidden_dim": 32 if embedded else None,
            # Of each layer, those of each sequence.
            "hidden_states": [list(layer) for layer in zip(*layers, strict=True)] if hidden else None,
            "seq_lens": [inputs["input_ids"].shape[1] for inputs in given],
        }

    return call


class TestESMC(BackendConformance):
    backend_class = ESMCBackend
    half_tolerance = 0.2
    needed_files = ("config.json", "model.safetensors")
    needed_weights = (("model.safetensors", "lm_head.decoder.weight"),)

    @pytest.fixture(scope="class")
    def settings(self, checkpoint: Path) -> dict[str, Any]:
        return {"model_id": checkpoint}

    @pytest.fixture(scope="class")
    def neighbor(self, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
        return {"model_id": make_esmc(tmp_path_factory.mktemp("other"), seed=1, vocab_size=40)}

    @pytest.fixture(scope="class")
    def requests(self) -> list[ProteinLanguageRequest]:
        more = [ask(protein(60), return_embeddings=True), ask("MKT", return_logits=False, **EVERYTHING)]
        return [*(ask(*proteins(mix), **EVERYTHING) for mix in ("one", "equal", "far")), ask("MKTXA"), *more]

    @pytest.fixture(scope="class")
    def direct(self, library: Any) -> Callable[[ProteinLanguageRequest], dict[str, Any]]:
        return direct_of(library)

    @pytest.fixture(scope="class")
    def refused(self) -> list[tuple[ProteinLanguageRequest, str, str]]:
        return [(ask("MKT", "MKJA"), "unsupported", "/sequences/1")]


@pytest.mark.parametrize("mix", ["near", "many"])
def test_full_passes_equal_the_librarys_single_calls(
    mix: str, backends: dict[str, ESMCBackend], library: Any
) -> None:
    apart, call = [ask(sequence, **EVERYTHING) for sequence in proteins(mix)], direct_of(library)
    for request, answer in zip(apart, backends["full"].batch_predict(apart), strict=True):
        expected = call(request)
        assert_alike({name: getattr(answer, name) for name in expected}, expected, 2e-5, unit=1.0)


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


def test_values_that_are_not_finite_fail_alone(checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(checkpoint / "model.safetensors")
    weights["esmc.embed_tokens.weight"][22] = torch.inf  # tryptophan
    copy_files(checkpoint, tmp_path, leave="model.safetensors")
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    outcomes = loaded(tmp_path, pass_overhead=1e6).batch_predict([ask("MKTA"), ask("MKTA", "MKW")])
    assert isinstance(outcomes[0], ProteinLanguageResponse)
    assert fault_of(outcomes[1]) == ("unsupported", "/sequences/1")
