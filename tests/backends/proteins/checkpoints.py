"""Tiny checkpoints of protein language models in the library's own format, weights large enough to matter."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

#: vocab.txt of the published ESM-2 checkpoints.
ESM2_TOKENS = [
    *("<cls>", "<pad>", "<eos>", "<unk>"),
    *"LAGVSERTIDPKQNFYMHWCXBUZO.-",
    *("<null_1>", "<mask>"),
]


def make_esm2(path: str | Path, *, seed: int = 0, **sizes: Any) -> Path:
    """An ESM-2 with its language head at `path`: of two layers, or of other `sizes` in its configuration."""
    import torch
    from transformers import EsmConfig, EsmForMaskedLM, EsmTokenizer

    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(ESM2_TOKENS))
    EsmTokenizer(str(vocabulary)).save_pretrained(folder)
    config = EsmConfig(
        **{
            "vocab_size": len(ESM2_TOKENS),
            "mask_token_id": ESM2_TOKENS.index("<mask>"),
            "pad_token_id": ESM2_TOKENS.index("<pad>"),
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "max_position_embeddings": 1026,
            "position_embedding_type": "rotary",
            "token_dropout": True,
            "emb_layer_norm_before": False,
            **sizes,
        }
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = EsmForMaskedLM(config).eval()
        _spread(model)
    model.save_pretrained(folder)
    return folder


def make_esmc(path: str | Path, *, seed: int = 0, **sizes: Any) -> Path:
    """An ESM Cambrian at `path`: of two layers, or of other `sizes` in the terms of its configuration."""
    import torch
    from transformers import EsmcConfig, EsmcForMaskedLM, EsmcTokenizer

    folder = Path(path)
    EsmcTokenizer().save_pretrained(folder)
    config = EsmcConfig(
        **{
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            **sizes,
        }
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = EsmcForMaskedLM(config).eval()
        _spread(model)
    model.save_pretrained(folder)
    return folder


def _spread(model: Any) -> None:
    """Fresh weights leave the residues nearly alike; these tell them apart."""
    import torch

    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.ndim > 1:
                weights.normal_(0, 1.2 / weights.shape[-1] ** 0.5)
            elif name.endswith("bias"):
                weights.normal_(0, 0.1)
