"""Loads a Chronos checkpoint and finds its kind; never serves weights that the checkpoint does not hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import chronos  # type: ignore[import-untyped]
import torch
from safetensors import safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils import hub as _hub

from sheaf.backends._models.chronos.bolt import Bolt
from sheaf.backends._models.chronos.chronos2 import Chronos2
from sheaf.backends._models.chronos.facts import BoltFacts, Chronos2Facts, T5Facts
from sheaf.backends._models.chronos.t5 import T5
from sheaf.backends._models.chronos.variant import Variant
from sheaf.backends._shared.loading import check_weights
from sheaf.backends._shared.pretrained import check_files, read_config
from sheaf.backends._shared.settings import torch_dtype

_library: Any = chronos
_files: Any = _hub


def load_variant(
    model_id: str,
    *,
    device: str,
    dtype: Any,
    revision: str | None,
    context_length: int | None,
    num_samples: int | None,
) -> Variant[Any]:
    """The loaded model; raises `OSError` without a checkpoint, `ValueError` for one that does not fit."""
    options: dict[str, Any] = {} if revision is None else {"revision": revision}
    read_config(model_id, **options)
    check_files(model_id, (), **options)
    pipeline = _library.BaseChronosPipeline.from_pretrained(
        model_id, device_map=device, dtype=torch_dtype(dtype), use_safetensors=True, **options
    )
    pipeline.inner_model.eval()
    _check_stored(model_id, revision, pipeline.inner_model)
    most: int = pipeline.model_context_length
    read = min(context_length or most, most), most, pipeline.model_prediction_length
    if isinstance(pipeline, _library.ChronosBoltPipeline):
        patch = pipeline.model.chronos_config.input_patch_size
        return Bolt(pipeline, BoltFacts(*read, levels=tuple(pipeline.quantiles), patch=patch))
    if isinstance(pipeline, _library.Chronos2Pipeline):
        patch = pipeline.model_output_patch_size
        return Chronos2(pipeline, Chronos2Facts(*read, levels=tuple(pipeline.quantiles), patch=patch))
    if isinstance(pipeline, _library.ChronosPipeline):
        return T5(pipeline, T5Facts(*read, num_samples=num_samples))
    raise ValueError(f"{model_id} is a {type(pipeline).__name__}, which is not served")


def _check_stored(model_id: str, revision: str | None, model: Any) -> None:
    """The library fills parameters that a checkpoint lacks with random numbers and says so in a log line."""
    stored = _stored_names(model_id, revision)
    state: dict[str, torch.Tensor] = model.state_dict()
    # Tied parameters are stored once: the same memory under another name is there.
    memory = {state[name].data_ptr() for name in stored if name in state}
    check_weights(
        model_id,
        (name for name, value in state.items() if name not in stored and value.data_ptr() not in memory),
    )


def _stored_names(model_id: str, revision: str | None) -> set[str]:
    options = {"revision": revision, "_raise_exceptions_for_missing_entries": False}
    index = _files.cached_file(model_id, SAFE_WEIGHTS_INDEX_NAME, **options)
    if index is not None:
        return set(json.loads(Path(index).read_text())["weight_map"])
    opened: Any = safe_open(_files.cached_file(model_id, SAFE_WEIGHTS_NAME, **options), framework="pt")
    with opened as file:
        return set(file.keys())
