"""One model, several LoRA adapters, drawn in the same batch: each image has its own.

The checkpoint and its adapters are random and small, made here; real ones are declared in the same way.
"""

from __future__ import annotations

import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from diffusers import FluxPipeline

from sheaf import ModelSpec
from sheaf.lora import LoRAAdapter, LoRAConfig
from sheaf_client import Sheaf
from tests.backends.diffusion.adapter_files import make_adapter
from tests.backends.diffusion.checkpoints import make_flux

with tempfile.TemporaryDirectory() as made:
    folder = Path(made)
    base = make_flux(folder / "flux")
    for seed, name in enumerate(["sketch", "ink"]):
        make_adapter(folder / name, FluxPipeline.from_pretrained(base), seed=seed)

    declared = {"sketch": LoRAAdapter(source="sketch", weight=0.8), "ink": LoRAAdapter(source="ink")}
    settings = {"model_id": str(base), "device": "cpu", "dtype": "float32", "max_sequence_length": 64}
    lora = LoRAConfig(adapters=declared, root=folder)
    spec = ModelSpec(name="flux", backend="flux", backend_kwargs=settings, lora=lora)
    with Sheaf.local([spec]) as client, ThreadPoolExecutor() as callers:
        for selected in ([], ["sketch"], ["ink@0.5"], ["sketch@0.3", "ink@0.9"]):
            diffusion = client.with_adapters(*selected).diffusion
            arguments = {"prompt": "a cat", "height": 64, "width": 64, "seed": 1}
            callers.submit(diffusion.generate, model="flux", **arguments).add_done_callback(
                lambda done, who=selected: print(who, done.result().image.to_numpy().mean().round(2))
            )
