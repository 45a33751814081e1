"""Tiny checkpoints of vision models in the library's own format, weights large enough to matter."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")


def make_depth_anything(path: str | Path, *, seed: int = 2, metric: bool = False) -> Path:
    """A Depth Anything at `path` that sees images of 56 pixels; a `metric` one gives up to 20 metres."""
    import torch
    from transformers import (
        DepthAnythingConfig,
        DepthAnythingForDepthEstimation,
        Dinov2Config,
        DPTImageProcessorPil,
    )

    backbone = Dinov2Config(
        hidden_size=24,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
        apply_layernorm=True,
        initializer_range=0.15,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=14,
        reassemble_hidden_size=24,
        neck_hidden_sizes=[8, 12, 16, 20],
        fusion_hidden_size=8,
        head_hidden_size=8,
        initializer_range=0.15,
        **({"depth_estimation_type": "metric", "max_depth": 20} if metric else {}),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        DepthAnythingForDepthEstimation(config).save_pretrained(path)
    processor = DPTImageProcessorPil(
        size={"height": 56, "width": 56},
        keep_aspect_ratio=True,
        ensure_multiple_of=14,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    processor.save_pretrained(path)
    return Path(path)
