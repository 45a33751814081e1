"""Tiny checkpoints in the libraries' own formats, with weights large enough that every part matters.

Fresh initialisation leaves these networks close to constant, and then a test cannot tell right from wrong.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

BOLT_LEVELS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
CHRONOS2_LEVELS = [0.01, *(round(0.05 * i, 2) for i in range(1, 20)), 0.99]


def make_chronos_bolt(
    path: str | Path,
    *,
    context_length: int = 512,
    block_length: int = 64,
    seed: int = 0,
    sizes: dict[str, int] | None = None,
) -> Path:
    """A Chronos-Bolt at `path`: of two layers, or of other `sizes` in the terms of T5's configuration."""
    import torch
    from chronos.chronos_bolt import ChronosBoltModelForForecasting
    from transformers import T5Config

    config = T5Config(
        architectures=["ChronosBoltModelForForecasting"],
        vocab_size=2,
        reg_token_id=1,
        **{**_T5_SIZES, **(sizes or {})},
    )
    config.chronos_pipeline_class = "ChronosBoltPipeline"
    config.chronos_config = {
        "context_length": context_length,
        "prediction_length": block_length,
        "input_patch_size": 16,
        "input_patch_stride": 16,
        "quantiles": BOLT_LEVELS,
        "use_reg_token": True,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = ChronosBoltModelForForecasting(config).eval()
        _spread(model, 0.6)
    model.save_pretrained(path)
    return Path(path)


def make_chronos2(
    path: str | Path, *, context_length: int = 512, output_patches: int = 8, seed: int = 0
) -> Path:
    """A Chronos-2 of two layers at `path`; one pass gives `output_patches` * 16 steps."""
    import torch
    from chronos.chronos2 import Chronos2Model
    from chronos.chronos2.config import Chronos2CoreConfig

    config = Chronos2CoreConfig(
        architectures=["Chronos2Model"],
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="relu",
        vocab_size=2,
        pad_token_id=0,
        reg_token_id=1,
        rope_theta=10000.0,
        chronos_config={
            "context_length": context_length,
            "input_patch_size": 16,
            "input_patch_stride": 16,
            "output_patch_size": 16,
            "quantiles": CHRONOS2_LEVELS,
            "use_reg_token": True,
            "use_arcsinh": True,
            "max_output_patches": output_patches,
            "time_encoding_scale": context_length,
        },
        chronos_pipeline_class="Chronos2Pipeline",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Chronos2Model(config).eval()
        _spread(model, 0.6)
    model.save_pretrained(path)
    return Path(path)


def make_chronos_t5(
    path: str | Path,
    *,
    context_length: int = 512,
    block_length: int = 64,
    num_tokens: int = 512,
    temperature: float = 1.0,
    top_k: int = 50,
    top_p: float = 1.0,
    seed: int = 0,
) -> Path:
    """An original Chronos of two layers at `path`; `top_k=1` makes it deterministic."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        architectures=["T5ForConditionalGeneration"],
        vocab_size=num_tokens,
        tie_word_embeddings=False,
        **_T5_SIZES,
    )
    config.chronos_config = {
        "tokenizer_class": "MeanScaleUniformBins",
        "tokenizer_kwargs": {"low_limit": -15.0, "high_limit": 15.0},
        "n_tokens": num_tokens,
        "n_special_tokens": 2,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "use_eos_token": True,
        "model_type": "seq2seq",
        "context_length": context_length,
        "prediction_length": block_length,
        "num_samples": 20,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = T5ForConditionalGeneration(config).eval()
        _spread(model, 1.0)
    model.save_pretrained(path)
    return Path(path)


_T5_SIZES: dict[str, Any] = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "feed_forward_proj": "relu",
    "is_encoder_decoder": True,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
}


def _spread(model: Any, std: float) -> None:
    import torch

    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.ndim > 1:
                weights.normal_(0, std / weights.shape[-1] ** 0.5)
            elif "layer_norm" in name:
                weights.fill_(1.0)
