"""The backend `esm2` against the library's own call for each sequence alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sheaf.api.molecular import MolecularRequest, MolecularResponse
from sheaf.backends.esm2 import ESM2Backend
from sheaf_client.errors import InvalidRequestError
from tests.backends.answers import fault_of
from tests.backends.conformance import BackendConformance
from tests.backends.proteins.checkpoints import ESM2_TOKENS, make_esm2
from tests.backends.proteins.protein_cases import (
    MIXES,
    assert_close,
    copy_files,
    library_inputs,
    protein,
    proteins,
    without_weight,
)

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_esm2(tmp_path_factory.mktemp("esm2"))


@pytest.fixture(scope="module")
def backends(checkpoint: Path) -> dict[str, ESM2Backend]:
    """One with the passes of a CPU, and one each whose passes are small, and full whatever is padded."""
    settings: dict[str, dict[str, Any]] = {
        "usual": {},
        "small": {"tokens_per_pass": 64},
        "full": {"pass_overhead": 1e6},
    }
    return {name: loaded(checkpoint, **given) for name, given in settings.items()}


@pytest.fixture(scope="module")
def backend(backends: dict[str, ESM2Backend]) -> ESM2Backend:
    return backends["usual"]


@pytest.fixture(scope="module")
def library(checkpoint: Path) -> Any:
    return of_library(checkpoint)


def loaded(path: Path, **settings: Any) -> ESM2Backend:
    backend = ESM2Backend(model_id=str(path), **settings)
    backend.load()
    backend.warm_up()
    return backend


def of_library(path: Path) -> Any:
    from transformers import EsmModel, EsmTokenizer

    model = EsmModel.from_pretrained(str(path), add_pooling_layer=False).eval()
    return model, EsmTokenizer.from_pretrained(str(path))


def direct(library: Any, sequence: str, *, pooling: str = "mean", normalize: bool = True) -> Any:
    """The vector of one sequence by one call of the library for it alone."""
    model, tokenizer = library
    with torch.inference_mode():
        states = model(**library_inputs(tokenizer, sequence)).last_hidden_state[0]
    vector = states[0] if pooling == "cls" else states[1:-1].mean(0)
    return (vector / vector.norm() if normalize else vector).numpy()


def ask(*sequences: str, **fields: Any) -> MolecularRequest:
    return MolecularRequest.model_validate({"model_name": "m", "sequences": list(sequences), **fields})


def vectors(outcome: Any) -> Any:
    assert isinstance(outcome, MolecularResponse), outcome
    return np.array(outcome.embeddings)


class TestESM2(BackendConformance):
    backend_class = ESM2Backend
    needed_files = ("config.json", "vocab.txt", "model.safetensors")
    needed_weights = (("model.safetensors", "esm.encoder.layer.1.attention.self.key.weight"),)

    @pytest.fixture(scope="class")
    def settings(self, checkpoint: Path) -> dict[str, Any]:
        return {"model_id": checkpoint}

    @pytest.fixture(scope="class")
    def neighbor(self, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
        return {"model_id": make_esm2(tmp_path_factory.mktemp("other"), seed=1, hidden_size=16)}

    @pytest.fixture(scope="class")
    def requests(self) -> list[MolecularRequest]:
        more = [ask(protein(60), pooling="cls"), ask("MKT", normalize=False)]
        return [*(ask(*proteins(mix)) for mix in ("one", "equal", "far")), *more]

    @pytest.fixture(scope="class")
    def direct(self, library: Any) -> Callable[[MolecularRequest], dict[str, Any]]:
        def call(request: MolecularRequest) -> dict[str, Any]:
            options = {"pooling": request.pooling, "normalize": request.normalize}
            return {"embeddings": [direct(library, s, **options) for s in request.sequences], "dim": 32}

        return call

    @pytest.fixture(scope="class")
    def refused(self) -> list[tuple[MolecularRequest, str, str]]:
        return [(ask("MKT", "MKJA"), "unsupported", "/sequences/1")]


def test_the_checkpoints_own_dtype_loads(checkpoint: Path, backend: ESM2Backend) -> None:
    request = ask(protein(60))
    found = loaded(checkpoint, dtype="auto").predict(request)
    assert_close(vectors(found), vectors(backend.predict(request)))


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("passes", ["small", "full"])
def test_any_mix_of_lengths_equals_the_librarys_single_calls(
    mix: str, passes: str, backends: dict[str, ESM2Backend], library: Any
) -> None:
    sequences = proteins(mix)
    expected = [direct(library, sequence, normalize=False) for sequence in sequences]
    backend = backends[passes]
    together = backend.predict(ask(*sequences, normalize=False))
    assert_close(vectors(together), expected)
    assert together.dim == 32
    apart = backend.batch_predict([ask(sequence, normalize=False) for sequence in sequences])
    assert_close([vectors(answer)[0] for answer in apart], expected)
    assert len(sequences) == 1 or np.std(expected, axis=0).max() > 0.1, "all alike proves nothing"


def test_vectors_are_of_residues_alone(backend: ESM2Backend, library: Any) -> None:
    model, tokenizer = library
    with torch.inference_mode():
        states = model(**library_inputs(tokenizer, "MKT")).last_hidden_state[0]
    found = vectors(backend.predict(ask("MKT", normalize=False)))[0]
    assert np.abs(found - states.mean(0).numpy()).max() > 1e-2
    assert np.linalg.norm(vectors(backend.predict(ask("MKT")))[0]) == pytest.approx(1)


def test_case_does_not_matter_and_masks_do(backend: ESM2Backend) -> None:
    upper, lower, masked = vectors(backend.predict(ask("MKTXA", "mktxa", "MKT<mask>A")))
    assert (upper == lower).all()
    assert np.abs(upper - masked).max() > 1e-2


def test_the_older_kind_with_positions_of_its_own_is_served(tmp_path: Path) -> None:
    options = {"position_embedding_type": "absolute", "emb_layer_norm_before": True}
    path = make_esm2(tmp_path, max_position_embeddings=40, **options)
    sequences = [protein(n) for n in (36, 5, 30, 1)]
    library = of_library(path)
    backend = loaded(path, pass_overhead=1e6)
    found = backend.predict(ask(*sequences))
    assert_close(vectors(found), [direct(library, sequence) for sequence in sequences])
    with pytest.raises(InvalidRequestError, match="36 residues at most"):
        backend.check(ask(protein(37)))


@pytest.mark.parametrize(
    ("sequence", "code", "words"),
    [
        ("MK" + "A" * 1021, "out_of_range", "1,022 residues at most; this sequence has 1,023"),
        ("MKJA", "unsupported", "no token for 'J', residue 3"),
        ("M<mask>k*", "unsupported", "no token for '*', residue 4"),
        ("mkjj", "unsupported", "'J', residue 3"),
    ],
)
def test_what_the_model_cannot_read_is_refused_with_its_path(
    sequence: str, code: str, words: str, backend: ESM2Backend
) -> None:
    bad, good = ask("MKT", sequence), ask("MKT", "M<mask>" + "A" * 1020)
    with pytest.raises(InvalidRequestError) as refused:
        backend.check(bad)
    assert fault_of(refused.value) == (code, "/sequences/1")
    assert words in refused.value.errors[0].message
    outcomes = backend.predict_all([good, bad, good])
    assert fault_of(outcomes[1]) == (code, "/sequences/1")
    assert vectors(outcomes[0]).shape == vectors(outcomes[2]).shape == (2, 32)


def test_cost_counts_tokens_with_those_at_both_ends(backend: ESM2Backend) -> None:
    assert backend.cost(ask("MKT")) == 5
    assert backend.cost(ask("MKT", "M<mask>")) == 9
    assert backend.padded


def test_what_metrics_tell_of_padding_is_what_the_passes_computed(backends: dict[str, ESM2Backend]) -> None:
    # Sixteen tokens are the price of a pass: 100 and 90 share one, 12 has its own.
    assert backends["usual"].padded_cost([100, 12, 90]) == 2 * 100 + 12
    assert backends["full"].padded_cost([100, 12, 90]) == 3 * 100


def test_vectors_that_are_not_finite_fail_alone(tmp_path: Path, checkpoint: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(checkpoint / "model.safetensors")
    weights["esm.embeddings.word_embeddings.weight"][ESM2_TOKENS.index("W")] = torch.inf
    save_file(weights, copy_files(checkpoint, tmp_path, leave="model.safetensors") / "model.safetensors",
              {"format": "pt"})  # fmt: skip
    good, bad = ask("MKTA"), ask("MKTA", "MKW")
    outcomes = loaded(tmp_path, pass_overhead=1e6).batch_predict([good, bad])
    assert vectors(outcomes[0]).shape == (1, 32)
    assert fault_of(outcomes[1]) == ("unsupported", "/sequences/1")


def test_weights_that_are_not_used_may_lack(checkpoint: Path, tmp_path: Path, backend: ESM2Backend) -> None:
    path = without_weight(checkpoint, "esm.contact_head.regression.weight", tmp_path)
    request = ask(*proteins("near"))
    assert_close(vectors(loaded(path).predict(request)), vectors(backend.predict(request)))


def test_a_model_of_something_else_is_refused(tmp_path: Path) -> None:
    path = make_esm2(tmp_path)
    words = (path / "vocab.txt").read_text().replace("\nW\n", "\nACGTGT\n")
    (path / "vocab.txt").write_text(words)
    with pytest.raises(ValueError, match="no token for W"):
        loaded(path)
    text = (path / "config.json").read_text().replace('"model_type": "esm"', '"model_type": "bert"')
    (path / "config.json").write_text(text)
    with pytest.raises(ValueError, match="checkpoint of bert, not of esm"):
        loaded(path)


def test_settings_that_make_no_sense_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="tokens_per_pass must be at least 1, not 0"):
        ESM2Backend(tokens_per_pass=0)
    with pytest.raises(ValueError, match="pass_overhead"):
        ESM2Backend(pass_overhead=-1)
    with pytest.raises(RuntimeError, match="load"):
        ESM2Backend().check(ask("MKT"))
