"""Checkpoints of transformers: what may be wrong with one is told once, for all backends that load them."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import transformers

from sheaf.api.molecular import MolecularRequest, MolecularResponse
from sheaf.backends._shared.pretrained import PretrainedBackend
from sheaf.backends.base import respond
from sheaf.backends.info import BackendInfo
from sheaf.extras import install_command

pytestmark = pytest.mark.torch

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


class Letters(PretrainedBackend[MolecularRequest, MolecularResponse]):
    """The first state of a BERT that reads letters: what a backend writes where its family shares nothing."""

    model_type: ClassVar[str] = "molecular"
    info: ClassVar[BackendInfo | None] = BackendInfo(
        title="Letters", extra="proteins", libraries=("torch", "transformers"), default_model="letters/none"
    )
    architectures: ClassVar[tuple[str, ...]] = ("bert",)
    model_class: ClassVar[str] = "AutoModel"
    processor_class: ClassVar[str | None] = "AutoTokenizer"
    required_files: ClassVar[tuple[str, ...]] = ("vocab.txt",)
    unused_weights: ClassVar[tuple[str, ...]] = ("pooler.",)

    def smallest(self) -> MolecularRequest:
        return MolecularRequest(model_name="warm-up", sequences=["A"])

    def batch_predict(self, requests: Sequence[MolecularRequest]) -> list[MolecularResponse | Exception]:
        return [respond(r, MolecularResponse, embeddings=self.states(r), dim=8) for r in requests]

    def states(self, request: MolecularRequest) -> list[list[float]]:
        with torch.inference_mode():
            spaced = [" ".join(sequence) for sequence in request.sequences]
            given = self.processor(spaced, return_tensors="pt", padding=True)
            found: list[list[float]] = self.model(**given).last_hidden_state[:, 0].float().tolist()
        return found


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("letters")
    config = transformers.BertConfig(
        vocab_size=len(SPECIAL) + len(LETTERS), hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=32,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *LETTERS]))
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    return folder


def copied(checkpoint: Path, folder: Path, **texts: str) -> Path:
    """A copy of a checkpoint with other texts for some of its files; an empty one leaves the file out."""
    for file in checkpoint.iterdir():
        content = texts.get(file.stem)
        if content is None:
            (folder / file.name).write_bytes(file.read_bytes())
        elif content:
            (folder / file.name).write_text(content)
    return folder


def loaded(path: Path, **settings: Any) -> Letters:
    backend = Letters(str(path), **settings)
    backend.load()
    backend.warm_up()
    return backend


ASKED = MolecularRequest(model_name="m", sequences=["MKT", "GIVEQC"])


def test_answers_equal_the_librarys_own(checkpoint: Path) -> None:
    model = transformers.AutoModel.from_pretrained(checkpoint)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    with torch.inference_mode():
        given = tokenizer(["M K T", "G I V E Q C"], return_tensors="pt", padding=True)
        expected = model(**given).last_hidden_state[:, 0]
    np.testing.assert_array_equal(loaded(checkpoint).predict(ASKED).embeddings, expected.tolist())


def test_the_dtype_is_the_settings_or_the_checkpoints(checkpoint: Path) -> None:
    assert loaded(checkpoint, dtype="bfloat16").model.dtype == torch.bfloat16
    assert loaded(checkpoint, dtype="auto").model.dtype == torch.float32
    assert loaded(checkpoint, torch_dtype=torch.float16).model.dtype == torch.float16
    with pytest.raises(ValueError, match="dtype must be float32, bfloat16, float16 or auto, not 'int8'"):
        loaded(checkpoint, dtype="int8")


def test_older_spellings_are_understood_and_not_mixed() -> None:
    older = Letters(model_name="x", device_map="cuda:1", torch_dtype="float16")
    newer = Letters("x", device="cuda:1", dtype="float16")
    for name in ("model_id", "device", "dtype", "revision", "num_threads"):
        assert getattr(older, name) == getattr(newer, name)
    plain = Letters()
    assert (plain.model_id, plain.device, plain.dtype) == ("letters/none", "cpu", "float32")
    for mixed in (
        {"model_id": "x", "model_name": "y"},
        {"device": "cpu", "device_map": "cuda"},
        {"dtype": "float32", "torch_dtype": "float16"},
    ):
        with pytest.raises(TypeError, match="are two spellings of one setting"):
            Letters(**mixed)


@pytest.mark.parametrize("library", ["torch", "transformers"])
def test_a_missing_library_is_told_with_the_command_that_installs_it(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ModuleNotFoundError, match=re.escape(install_command("proteins"))) as missing:
        Letters().load()
    assert f"needs {library}, of the extra proteins" in str(missing.value)


def test_threads_are_set_only_where_asked_for(checkpoint: Path) -> None:
    before = torch.get_num_threads()
    try:
        loaded(checkpoint)
        assert torch.get_num_threads() == before
        loaded(checkpoint, num_threads=3)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_what_is_not_there_is_named(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        loaded(tmp_path / "nowhere")
    for name in ("config", "vocab", "model"):
        (folder := tmp_path / name).mkdir()
        with pytest.raises(OSError, match=name):
            loaded(copied(checkpoint, folder, **{name: ""}))


def test_weights_that_are_missing_are_never_made_up(checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(checkpoint / "model.safetensors")
    copied(checkpoint, tmp_path, model="")
    without = {name: value for name, value in weights.items() if not name.startswith("pooler.")}
    save_file(without, tmp_path / "model.safetensors", {"format": "pt"})
    assert loaded(tmp_path).predict(ASKED).embeddings == loaded(checkpoint).predict(ASKED).embeddings
    for name in ("embeddings.word_embeddings.weight", "encoder.layer.0.output.dense.bias"):
        save_file(
            {n: v for n, v in weights.items() if n != name}, tmp_path / "model.safetensors", {"format": "pt"}
        )
        with pytest.raises(ValueError, match=re.escape(f"lacks the weights {name}")):
            loaded(tmp_path)


def test_weights_in_a_pickle_are_not_read(checkpoint: Path, tmp_path: Path) -> None:
    weights = transformers.AutoModel.from_pretrained(checkpoint).state_dict()
    torch.save(weights, copied(checkpoint, tmp_path, model="") / "pytorch_model.bin")
    with pytest.raises(OSError, match=r"has no model\.safetensors: .* a pickle can run code"):
        loaded(tmp_path)


def test_code_in_a_checkpoint_is_not_run(checkpoint: Path, tmp_path: Path) -> None:
    text = (checkpoint / "config.json").read_text().rstrip().removesuffix("}")
    code = f"open({str(tmp_path / 'run')!r}, 'w')"
    named = text + ', "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}'
    copied(checkpoint, tmp_path, config=named)
    (tmp_path / "evil.py").write_text(code)
    assert loaded(tmp_path).predict(ASKED).embeddings == loaded(checkpoint).predict(ASKED).embeddings
    (tmp_path / "config.json").write_text(named.replace('"bert"', '"evil"'))
    with pytest.raises(ValueError, match="is a checkpoint of evil, not of bert"):
        loaded(tmp_path)
    assert not (tmp_path / "run").exists()


def test_it_is_there_between_load_and_unload_alone(checkpoint: Path) -> None:
    backend = Letters(str(checkpoint))
    for part in ("model", "processor"):
        with pytest.raises(RuntimeError, match=r"load\(\) has not been called"):
            getattr(backend, part)
    backend.load()
    assert type(backend.model).__name__ == "BertModel"
    assert not backend.model.training
    backend.unload()
    with pytest.raises(RuntimeError, match=r"load\(\) has not been called"):
        _ = backend.model
