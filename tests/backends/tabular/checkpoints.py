"""Tiny TabPFN checkpoints in the library's own formats, with weights large enough that every part matters."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TABPFN_NO_BROWSER", "1")

#: The architectures' names, and the names of their checkpoints, by which the library knows the version.
NAMES = {
    "tabpfn_v2": "tabpfn-v2-{}.ckpt",
    "tabpfn_v2_5": "tabpfn-v2.5-{}-v2.5_default.ckpt",
    "tabpfn_v3": "tabpfn-v3-{}-v3_default.ckpt",
    "tabpfn_v3_5": "tabpfn-v3.5-20260909.safetensors",
}
_V3: dict[str, Any] = {
    "embed_dim": 16,
    "dist_embed_num_blocks": 1,
    "dist_embed_num_heads": 2,
    "dist_embed_num_inducing_points": 8,
    "feat_agg_num_blocks": 1,
    "feat_agg_num_heads": 2,
    "feat_agg_num_cls_tokens": 2,
    "nlayers": 2,
    "icl_num_heads": 2,
    "decoder_head_dim": 8,
    "decoder_num_heads": 2,
    "softmax_scaling_mlp_hidden_dim": 8,
}
_V2: dict[str, Any] = {"emsize": 24, "nlayers": 2, "nhead": 2}
TINY: dict[str, dict[str, Any]] = {
    "tabpfn_v2": {**_V2, "features_per_group": 2},
    "tabpfn_v2_5": {**_V2, "features_per_group": 3, "num_thinking_rows": 4},
    "tabpfn_v3": _V3,
    "tabpfn_v3_5": {**_V3, "fourier_encoding_num_frequencies": 4, "cell_ecdf_num_buckets": 64},
}


def make_tabpfn(
    folder: str | Path,
    architecture: str,
    task: str,
    *,
    seed: int = 0,
    num_buckets: int = 64,
    sizes: dict[str, Any] | None = None,
) -> Path:
    """A checkpoint for `classifier` or `regressor` in a folder; the last architecture's serves both tasks.

    It is tiny, or of other `sizes` in the architecture's own terms: {} is the size of the published one.
    """
    import dataclasses

    import torch
    from tabpfn.architectures import ARCHITECTURES
    from tabpfn.architectures.shared.bar_distribution import FullSupportBarDistribution
    from tabpfn.checkpoint import save_as_safetensors
    from tabpfn.constants import ModelVersion
    from tabpfn.inference_config import InferenceConfig

    module = ARCHITECTURES[architecture]
    both, early = architecture == "tabpfn_v3_5", architecture in {"tabpfn_v2", "tabpfn_v2_5"}
    config, _ = module.parse_config(
        {
            **(TINY[architecture] if sizes is None else sizes),
            "max_num_classes": 10 if both or task == "classifier" else 0,
            "num_buckets": num_buckets if both or early or task == "regressor" else 0,
        }
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = module.get_architecture(config).eval()
        with torch.no_grad():
            for weights in model.parameters():
                if weights.ndim > 1:
                    # What is zero at first would hide all before it; the rest is close to constant.
                    weights.normal_(0, 1.5 / weights.shape[-1] ** 0.5)
    state = dict(model.state_dict())
    if early and task == "regressor":
        criterion = FullSupportBarDistribution(torch.linspace(-4, 4, num_buckets + 1))
        state |= {f"criterion.{name}": value for name, value in criterion.state_dict().items()}
    checkpoint: dict[str, Any] = {"state_dict": state, "config": dataclasses.asdict(config)}
    if architecture != "tabpfn_v2":
        checkpoint["architecture_name"] = architecture
    if not early:
        kind = "regression" if task == "regressor" else "multiclass"
        settings = InferenceConfig.get_default(kind, ModelVersion.V2_5)
        checkpoint["inference_config"] = dataclasses.asdict(settings)
    path = Path(folder) / NAMES[architecture].format(task)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_as_safetensors(checkpoint, path)
    else:
        torch.save(checkpoint, path)
    return path
