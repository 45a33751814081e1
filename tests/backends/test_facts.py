"""What is known of a loaded model is plain data: with it a process without any library checks requests."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from ase.build import bulk

from sheaf.api.diffusion import DiffusionRequest
from sheaf.api.molecular import MolecularRequest
from sheaf.api.protein_language import ProteinLanguageRequest
from sheaf.api.time_series import TimeSeriesRequest
from sheaf.backends.base import ModelBackend
from sheaf.backends.chgnet import CHGNetBackend
from sheaf.backends.chronos import Chronos2Backend
from sheaf.backends.esm2 import ESM2Backend
from sheaf.backends.esmc import ESMCBackend
from sheaf.backends.flux import FluxBackend
from sheaf.backends.mace import MACEBackend
from sheaf.backends.sdxl import SDXLBackend
from sheaf.backends.sklearn import SklearnBackend
from sheaf.backends.statsforecast import StatsForecastBackend
from sheaf.backends.tabpfn import TabPFNBackend
from tests.backends.facts_cases import told
from tests.backends.materials import materials_cases
from tests.backends.materials.checkpoints import make_mace
from tests.backends.proteins.checkpoints import make_esm2, make_esmc
from tests.backends.tabular import table_cases
from tests.backends.tabular.checkpoints import make_tabpfn
from tests.backends.time_series.checkpoints import make_chronos2, make_chronos_bolt, make_chronos_t5

pytestmark = pytest.mark.torch

#: What a process that only checks requests does without.
LIBRARIES = (
    *("accelerate", "ase", "chgnet", "chronos", "diffusers", "e3nn", "mace", "pandas", "peft", "pymatgen"),
    *("safetensors", "scipy", "sklearn", "statsforecast", "tabpfn", "torch", "transformers"),
)
#: A process that is given what another knows of a model, and the requests that are asked of it.
ELSEWHERE = f"""
import pickle, sys
sys.modules |= dict.fromkeys({LIBRARIES!r})
from tests.backends.facts_cases import told
made, settings, facts, requests = pickle.load(sys.stdin.buffer)
backend = made(**settings)
backend.facts = facts
sys.stdout.buffer.write(pickle.dumps([told(backend, request) for request in requests]))
"""


def series(**fields: Any) -> TimeSeriesRequest:
    body = {"model_name": "m", "history": [1.0, 3.0, 2.0] * 20, "horizon": 20, "frequency": "1h"}
    return TimeSeriesRequest.model_validate(body | fields)


def forecasts() -> list[Any]:
    quantiles, samples = {"output_mode": "quantiles"}, {"output_mode": "samples", "num_samples": 7}
    asked: list[dict[str, Any]] = [
        {},
        {"horizon": 300, "seed": 7},
        {"static_covariates": {"a": 1.0}},
        {"past_covariates": {"a": [1.0] * 60}},
        {"quantile_levels": [0.2, 0.5], **quantiles},
        {"quantile_levels": [0.0001], **quantiles},
        samples,
        {"history": [1e30, 1.0]},
    ]
    return [series(**fields) for fields in asked]


def proteins(kind: Any, **fields: Any) -> list[Any]:
    sequences = ["MKT"], ["MKT", "M<mask>" * 9], ["MKJA"], ["A" * 5000]
    return [kind(model_name="m", sequences=each, **fields) for each in sequences]


def structures() -> list[Any]:
    one = bulk("Si")
    asked: list[tuple[Any, dict[str, Any]]] = [
        (one, {"compute_stress": True}),
        (one, {"compute_forces": False}),
        ([one, bulk("Si", cubic=True)], {}),
        (bulk("Cm", "sc", a=3.35), {}),
    ]
    return [materials_cases.ask(atoms, **fields) for atoms, fields in asked]


def tables() -> list[Any]:
    rows = table_cases.numbers(30)
    wide = np.tile(rows, (1, 101))
    return [
        table_cases.classify(rows, rows),
        table_cases.regress(rows[:4], rows),
        table_cases.regress(wide[:4], wide),
        table_cases.ask(rows, rows, [f"class {i}" for i in range(30)]),
        table_cases.ask(rows, context_id="no-such-one", task="regression"),
    ]


def pictures() -> list[Any]:
    asked: list[dict[str, Any]] = [
        {},
        {"seed": 1},
        {"guidance_scale": 3.0, "negative_prompt": "dogs", "num_images": 3},
        {"guidance_scale": 90.0},
        {"width": 72},
        {"adapters": ["a"], "adapter_weights": [5e3]},
    ]
    fields = {"model_name": "m", "prompt": "a cat", "width": 64, "height": 64, "num_inference_steps": 4}
    return [DiffusionRequest.model_validate(fields | each) for each in asked]


def tabpfn(path: Path) -> Path:
    for task in ("classifier", "regressor"):
        make_tabpfn(path, "tabpfn_v2", task)
    return path


def diffusion(kind: str) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        from tests.backends.diffusion import checkpoints

        found: Path = getattr(checkpoints, f"make_{kind}")(path)
        return found

    return make


DRAWING = {"device": "cpu", "dtype": "float32"}
#: Of each backend its class, what makes a checkpoint for it, its settings, and requests of it.
Case = tuple[type[ModelBackend], Callable[[Path], Path] | None, dict[str, Any], Callable[[], list[Any]]]
CASES: dict[str, Case] = {
    "bolt": (Chronos2Backend, make_chronos_bolt, {}, forecasts),
    "chronos2": (Chronos2Backend, make_chronos2, {}, forecasts),
    "t5": (Chronos2Backend, make_chronos_t5, {"num_samples": 9}, forecasts),
    "statsforecast": (StatsForecastBackend, None, {}, forecasts),
    "esm2": (ESM2Backend, make_esm2, {}, lambda: proteins(MolecularRequest)),
    "esmc": (ESMCBackend, make_esmc, {}, lambda: proteins(ProteinLanguageRequest, output_hidden_states=True)),
    "mace": (MACEBackend, lambda path: make_mace(path / "tiny.model"), {"trust_pickle": True}, structures),
    "chgnet": (CHGNetBackend, None, {}, structures),
    "sklearn": (SklearnBackend, None, {}, tables),
    "tabpfn": (TabPFNBackend, tabpfn, {}, tables),
    "flux": (FluxBackend, diffusion("flux"), DRAWING, pictures),
    "sdxl": (SDXLBackend, diffusion("sdxl"), DRAWING, pictures),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_process_without_the_library_checks_and_weighs_as_the_model_does(name: str, tmp_path: Path) -> None:
    cls, make, settings, requests = CASES[name]
    if make is not None:
        (tmp_path / "checkpoint").mkdir()
        settings = {**settings, "model_id": str(make(tmp_path / "checkpoint"))}
    backend, asked = cls(**settings), requests()
    backend.load()
    expected = [told(backend, request) for request in asked]
    given = pickle.dumps((cls, settings, backend.facts, asked))
    done = subprocess.run([sys.executable, "-c", ELSEWHERE], input=given, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert pickle.loads(done.stdout) == expected  # noqa: S301 - of a process of our own
    assert {str, tuple} == set(map(type, expected))  # some are refused, and some are not
    if (facts := backend.facts) is not None:
        known: Any = dict[str, type(next(iter(facts.values())))] if isinstance(facts, dict) else type(facts)
        assert msgspec.json.decode(msgspec.json.encode(facts), type=known) == facts
        backend.unload()
        with pytest.raises(RuntimeError, match=r"load\(\) has not been called"):
            [told(backend, request) for request in asked]
