"""The published 0.x samples, as their readers wrote them, run on what exists of them with small checkpoints.

Their calls, names and arguments are kept; only the ids of weights are local folders.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from sheaf import ModelSpec
from sheaf.api.base import ModelType
from sheaf.api.materials import MaterialsRequest
from sheaf.api.tabular import TabularRequest
from sheaf.api.time_series import Frequency, OutputMode, TimeSeriesRequest
from sheaf.backends.chronos import Chronos2Backend
from sheaf.backends.mace import MACEBackend
from sheaf.backends.tabpfn import TabPFNBackend
from sheaf.cache import CacheConfig
from sheaf.embedded import EmbeddedServer
from sheaf.local import LocalModels
from sheaf.lora import LoRAAdapter, LoRAConfig
from sheaf.scheduling.batch import BatchPolicy, bucket_requests
from sheaf.server import ModelServer, build_app
from sheaf.spec import ResourceConfig
from tests.backends.diffusion.adapter_cases import Studio
from tests.backends.diffusion.diffusion_cases import picture
from tests.backends.materials.checkpoints import make_mace
from tests.backends.tabular.checkpoints import make_tabpfn
from tests.backends.time_series.checkpoints import make_chronos_bolt

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]

HISTORY = [312.0, 298, 275, 260, 255, 263, 285, 320, 368, 402, 421, 435, 442, 438, 430, 425]


@pytest.fixture(scope="module")
def bolt(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_chronos_bolt(tmp_path_factory.mktemp("bolt")))


def test_chronos_bolt_forecasts(bolt: str) -> None:
    backend = Chronos2Backend(model_id=bolt, device_map="cpu")
    backend.load()
    req = TimeSeriesRequest(
        model_name="chronos-bolt-tiny",
        history=HISTORY,
        horizon=12,
        frequency=Frequency.HOURLY,
        output_mode=OutputMode.QUANTILES,
        quantile_levels=[0.1, 0.5, 0.9],
    )
    response = backend.predict(req)
    quantiles = response.quantiles
    assert quantiles is not None
    assert {level: len(values) for level, values in quantiles.items()} == {"0.1": 12, "0.5": 12, "0.9": 12}
    assert np.isfinite(list(quantiles.values())).all()
    assert response.metadata.get("warnings") == response.metadata["warnings"] == []
    assert response.mean == quantiles["0.5"] != quantiles["0.9"]


def test_a_served_forecaster_is_updated_under_the_name_chronos(bolt: str, tmp_path: Path) -> None:
    spec = ModelSpec(
        name="chronos",
        model_type=ModelType.TIME_SERIES,
        backend="chronos2",
        backend_kwargs={"model_id": bolt},
        resources=ResourceConfig(num_gpus=1, replicas=2),
    )
    server = ModelServer(models=[spec])
    assert server.specs == [spec]
    newer = make_chronos_bolt(tmp_path / "newer", seed=1)
    upgraded = ModelSpec(
        name="chronos",
        backend="chronos",
        backend_kwargs={"model_id": str(newer)},
        resources=ResourceConfig(num_gpus=1, replicas=4),
    )
    assert build_app(upgraded) is not None  # what `server.update` deploys
    body = {"history": HISTORY, "horizon": 3, "frequency": "1h"}
    models = LocalModels.start(spec)
    try:
        request = TimeSeriesRequest.model_validate({**body, "model_name": "chronos"})
        before = models.get("chronos").predict_now(request, timeout=60).mean
        models.update(upgraded)
        after = models.get("chronos").predict_now(request, timeout=60).mean
    finally:
        models.stop()
    assert before != after
    with EmbeddedServer([spec], port=0) as served:
        routes = {route: httpx.get(f"{served.url}/chronos/{route}").json() for route in ("health", "ready")}
        assert routes == {"health": {"status": "ok"}, "ready": {"status": "ready", "model": "chronos"}}
        answer = httpx.post(f"{served.url}/chronos/predict", json=body, timeout=60).json()
        assert answer["mean"] == before


@pytest.mark.skipif(find_spec("mace") is None, reason="mace-torch is not installed")
def test_a_potential_gives_energy_and_forces(tmp_path: Path) -> None:
    from sheaf.backends.mace import convert

    convert(make_mace(tmp_path / "tiny.model"), tmp_path / "tiny")
    backend = MACEBackend(model=tmp_path / "tiny", device="cpu")
    backend.load()
    positions = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.16], [0.0, 0.0, -1.16]], dtype=np.float32)
    req = MaterialsRequest(
        model_name="mace",
        atomic_numbers=[6, 8, 8],
        positions_b64=base64.b64encode(positions.tobytes()).decode(),
        compute_forces=True,
    )
    response = backend.predict(req)
    assert np.isfinite(response.energy)
    forces = np.frombuffer(base64.b64decode(response.forces_b64), dtype=np.float32).reshape(3, 3)
    assert np.allclose(forces.sum(0), 0, atol=1e-4)


@pytest.mark.skipif(find_spec("tabpfn") is None, reason="tabpfn is not installed")
def test_a_table_is_read_in_context(tmp_path: Path) -> None:
    make_tabpfn(tmp_path / "v2", "tabpfn_v2", "classifier")
    backend = TabPFNBackend(model_id=str(tmp_path / "v2"), device="cpu")
    backend.load()
    req = TabularRequest(
        model_name="tabpfn",
        context_X=[[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 4.7, 1.6], [7.1, 3.0, 5.9, 2.1], [4.9, 3.0, 1.4, 0.2]],
        context_y=[0, 1, 2, 0],
        query_X=[[5.0, 3.4, 1.5, 0.2], [6.0, 2.9, 4.5, 1.5], [6.8, 3.0, 5.5, 2.1]],
        task="classification",
        output_mode="probabilities",
    )
    response = backend.predict(req)
    assert np.shape(response.probabilities) == (3, 3)
    assert np.allclose(np.sum(response.probabilities, axis=1), 1, atol=1e-5)  # type: ignore[arg-type]


def test_batches_have_a_window_and_buckets() -> None:
    plain = ModelSpec(
        name="forecaster",
        model_type=ModelType.TIME_SERIES,
        backend="chronos2",
        batch_policy=BatchPolicy(
            max_batch_size=64,
            timeout_ms=20,
        ),
    )
    assert (plain.batch_policy.max_batch_size, plain.batch_policy.timeout_ms) == (64, 20)
    assert plain.batch_policy.wait == "always"
    bucketed = ModelSpec(
        name="forecaster",
        model_type=ModelType.TIME_SERIES,
        backend="chronos2",
        batch_policy=BatchPolicy(
            max_batch_size=64,
            timeout_ms=20,
            bucket_by="horizon",
        ),
    )
    assert bucketed.batch_policy.bucket_by == "horizon"
    assert (BatchPolicy().max_batch_size, BatchPolicy().timeout_ms) == (32, 10)


def test_requests_are_put_into_buckets() -> None:
    reqs = [SimpleNamespace(horizon=6), SimpleNamespace(horizon=12), SimpleNamespace(horizon=6)]
    groups = bucket_requests(reqs, "horizon")
    assert groups == [([0, 2], [reqs[0], reqs[2]]), ([1], [reqs[1]])]
    assert bucket_requests(reqs, None) == [([0, 1, 2], reqs)]
    assert bucket_requests(reqs, "absent") == [([0, 1, 2], reqs)]
    assert bucket_requests([], None) == [([], [])]


def test_answers_are_kept(bolt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ModelSpec(
        name="chronos",
        model_type=ModelType.TIME_SERIES,
        backend="chronos2",
        backend_kwargs={"model_id": bolt},
        cache=CacheConfig(enabled=True, max_size=1024, exclude_fields=["item_id"]),  # type: ignore[arg-type]
    )
    assert spec.active_cache is not None
    monkeypatch.setenv("SHEAF_CACHE_DISABLED", "1")
    assert spec.active_cache is None


@pytest.mark.skipif(find_spec("peft") is None, reason="peft is not installed")
def test_images_are_redrawn_with_an_adapter_by_its_absolute_path(studio_of: Callable[[str], Studio]) -> None:
    studio = studio_of("sdxl")
    source = str(studio.file("sketch"))
    assert Path(source).is_absolute()
    spec = ModelSpec(
        name="sdxl",
        model_type=ModelType.MULTIMODAL_GENERATION,
        backend="sdxl",
        backend_kwargs={"model_id": studio.base, "device": "cpu", "torch_dtype": "float32"},
        lora=LoRAConfig(
            adapters={"sketch": LoRAAdapter(source=source, weight=0.8)},
            default=None,
        ),
    )
    image = base64.b64encode(picture()).decode()
    body: dict[str, Any] = {
        "model_type": "multimodal_generation",
        "model_name": "sdxl",
        "prompt": "a sheaf",
        "image_b64": image,
        "num_inference_steps": 2,
        "strength": 1.0,
        "seed": 1,
    }
    with EmbeddedServer([spec], port=0) as server:

        def draw(**fields: Any) -> Any:
            return httpx.post(f"{server.url}/sdxl/predict", json={**body, **fields}, timeout=120)

        plain, sketched = draw().json(), draw(adapters=["sketch"]).json()
        weighed = draw(adapters=["sketch"], adapter_weights=[0.8]).json()
        assert sketched["image_b64"] == weighed["image_b64"] != plain["image_b64"]
        assert draw(adapters=["oil"]).status_code == 422
