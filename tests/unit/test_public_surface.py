"""The names that users' code and documentation import, each from the place they know it by."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

import pytest

import sheaf.api
from sheaf.contract.operations import all_operations
from sheaf.registry import backend_names, find_backend

SURFACE = {
    "sheaf": ["ModalServer", "ModelServer", "ModelSpec", "ResourceConfig", "build_app"],
    "sheaf.api": ["ModelType", "TimeSeriesRequest", "TTSResponse", "FeatureRef", "Metadata"],
    "sheaf.api.audio": [
        "AudioRequest",
        "AudioResponse",
        "AudioSegment",
        "TTSRequest",
        "TTSResponse",
        "WordTimestamp",
    ],
    "sheaf.api.base": ["BaseRequest", "BaseResponse", "ModelType"],
    "sheaf.api.satellite": ["SatelliteRequest", "SatelliteResponse"],
    "sheaf.api.structure": ["ChainInput", "StructureRequest", "StructureResponse"],
    "sheaf.api.time_series": [
        "FeatureRef",
        "Frequency",
        "OutputMode",
        "TimeSeriesRequest",
        "TimeSeriesResponse",
    ],
    "sheaf.api.union": ["AnyRequest", "AnyResponse"],
    "sheaf.backends.base": ["BackendDiedError", "ModelBackend"],
    "sheaf.backends.chgnet": ["CHGNetBackend"],
    "sheaf.backends.chronos": ["Chronos2Backend"],
    "sheaf.backends.contexts": ["ContextCache", "content_key"],
    "sheaf.backends.esm2": ["ESM2Backend"],
    "sheaf.backends.esmc": ["ESMCBackend"],
    "sheaf.backends.flux": ["FluxBackend", "FluxImageBackend"],
    "sheaf.backends.info": ["BackendInfo", "Weights"],
    "sheaf.backends.loops": ["LibraryLoop", "LoopBackend", "LoopCancelled"],
    "sheaf.backends.mace": ["MACEBackend", "convert"],
    "sheaf.backends.rendezvous": ["Course", "CourseCancelled", "RendezvousBackend"],
    "sheaf.backends.sdxl": ["SDXLBackend", "SDXLImageBackend"],
    "sheaf.backends.sklearn": ["SklearnBackend"],
    "sheaf.backends.statsforecast": ["StatsForecastBackend"],
    "sheaf.backends.stepwise": ["StepwiseBackend"],
    "sheaf.backends.tabpfn": ["TabPFNBackend"],
    "sheaf.batch": ["BatchRunner", "BatchSpec", "JsonlSink", "JsonlSource"],
    "sheaf.cache": ["CacheConfig"],
    "sheaf.embedded": ["EmbeddedServer"],
    "sheaf.hosts.embedded": ["EmbeddedServer"],
    "sheaf.hosts.modal": ["ModalServer"],
    "sheaf.hosts.ray": ["ModelServer", "UpdateFailedError", "build_app"],
    "sheaf.lora": [
        *("LoRAAdapter", "LoRAConfig", "bucket_with_adapter_resolution"),
        *("parse_source", "resolve_active_adapters"),
    ],
    "sheaf.modal_server": ["ModalServer"],
    "sheaf.openapi": ["generate"],
    "sheaf.registry": ["register_backend"],
    "sheaf.scheduling": ["BatchPolicy"],
    "sheaf.scheduling.batch": ["BatchPolicy", "bucket_requests"],
    "sheaf.server": ["ModelServer", "UpdateFailedError", "build_app"],
    "sheaf.spec": ["ModelSpec", "ResourceConfig"],
    "sheaf.worker": ["SheafWorker"],
    "sheaf_client": ["AsyncSheaf", "Sheaf"],
}


@pytest.mark.parametrize("module", SURFACE)
def test_the_names_are_where_users_import_them(module: str) -> None:
    held = importlib.import_module(module)
    assert [name for name in SURFACE[module] if not hasattr(held, name)] == []
    assert all(getattr(held, name).__doc__ for name in SURFACE[module] if not name.startswith("Any"))


def test_every_contract_is_exported_by_its_file_and_by_the_package() -> None:
    for operation in all_operations():
        for kind in (operation.request, operation.response):
            file = kind.__module__.rpartition(".")[2]
            assert getattr(importlib.import_module(f"sheaf.api.{file}"), kind.__name__) is kind
            assert getattr(sheaf.api, kind.__name__) is kind
    assert len(set(sheaf.api.__all__)) == len(sheaf.api.__all__)
    assert all(getattr(sheaf.api, name) is not None for name in sheaf.api.__all__)
    with pytest.raises(AttributeError, match="no attribute 'NoSuchRequest'"):
        _ = sheaf.api.NoSuchRequest  # type: ignore[attr-defined]


def test_every_backend_can_be_named() -> None:
    names = backend_names()
    assert {"chronos2", "statsforecast"} <= set(names)
    served = {operation.model_type for operation in all_operations()}
    assert {find_backend(name).model_type for name in names} <= served


def test_the_extras_of_published_install_lines_are_there() -> None:
    file = Path(__file__).parents[2] / "server/pyproject.toml"
    extras = tomllib.loads(file.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    published = ["time-series", "tabular", "molecular", "materials", "diffusion", "multimodal-generation"]
    assert {*published, "modal", "batch", "worker", "all"} <= extras.keys()
    # An extra that only names another one is a name of it; `all` holds what the others do.
    assert extras["molecular"] == ["sheaf-serve[proteins]"]
    assert extras["worker"] == ["sheaf-serve[jobs]"]
    held = {extra for extra, needs in extras.items() if extra != "all" and "sheaf-serve[" not in needs[0]}
    reached, todo = set[str](), ["all"]
    while todo:
        extra = todo.pop()
        reached.add(extra)
        for need in extras[extra]:
            name, _, inner = need.partition("[")
            if name == "sheaf-serve":
                todo += inner.removesuffix("]").split(",")
    assert held <= reached
