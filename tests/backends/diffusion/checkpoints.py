"""Diffusion checkpoints in diffusers' own format: every part is there and counts, and nothing is downloaded.

The tokenizers are real ones with small vocabularies; the weights are spread wider than a fresh network's, so
that prompts, guidance and steps show in the picture.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

TEXTS = [
    *("a photo of a cat", "a photo of a dog", "the quick brown fox jumps over the lazy dog"),
    *("an astronaut riding a horse on the moon", "0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    "watercolour sketch, pixel art, oil painting; a city at night! (wide) - sharp?",
]


def make_flux(
    path: str | Path,
    *,
    seed: int = 0,
    heads: int = 2,
    head_dim: int = 16,
    layers: int = 1,
    single_layers: int = 1,
    text_width: int = 32,
    guidance: bool = True,
) -> Path:
    """A FLUX at `path`; without `guidance` it is one like FLUX.1-schnell, which has no embedding of it."""
    import torch
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        FluxPipeline,
        FluxTransformer2DModel,
    )
    from transformers import CLIPTextModel, T5Config, T5EncoderModel

    folder = Path(path)
    clip, t5 = clip_tokenizer(folder / "tokenizer"), t5_tokenizer(folder / "tokenizer_2")
    axes = [head_dim // 8 * 2, (head_dim * 3 // 8) // 2 * 2]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformer = FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=layers,
            num_single_layers=single_layers,
            attention_head_dim=head_dim,
            num_attention_heads=heads,
            joint_attention_dim=text_width,
            pooled_projection_dim=32,
            guidance_embeds=guidance,
            axes_dims_rope=(*axes, head_dim - sum(axes)),
        )
        encoder = T5EncoderModel(
            T5Config(vocab_size=len(t5), d_model=text_width, d_ff=64, d_kv=8, num_layers=2, num_heads=4)
        )
        parts: dict[str, Any] = {
            "transformer": transformer,
            "text_encoder": CLIPTextModel(_clip_config(clip)),
            "text_encoder_2": encoder,
            "vae": AutoencoderKL(
                **_VAE,
                use_quant_conv=False,
                use_post_quant_conv=False,
                scaling_factor=1.5035,
                shift_factor=0.0609,
            ),
        }
        for part in parts.values():
            _spread(part)
    # As FLUX.1-dev has it.
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )
    FluxPipeline(scheduler=scheduler, tokenizer=clip, tokenizer_2=t5, **parts).save_pretrained(folder)
    return folder


def make_sdxl(path: str | Path, *, seed: int = 0, inpainting: bool = False) -> Path:
    """An SDXL at `path`; with `inpainting` its UNet takes the mask and the masked image as channels too."""
    import torch
    from diffusers import (
        AutoencoderKL,
        EulerDiscreteScheduler,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    folder = Path(path)
    first, second = clip_tokenizer(folder / "tokenizer"), clip_tokenizer(folder / "tokenizer_2")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        parts: dict[str, Any] = {
            "unet": UNet2DConditionModel(
                sample_size=8,
                in_channels=9 if inpainting else 4,
                out_channels=4,
                layers_per_block=1,
                block_out_channels=(16, 32),
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                attention_head_dim=(2, 4),
                use_linear_projection=True,
                addition_embed_type="text_time",
                addition_time_embed_dim=8,
                transformer_layers_per_block=(1, 1),
                projection_class_embeddings_input_dim=6 * 8 + 32,
                cross_attention_dim=64,
                norm_num_groups=8,
            ),
            "text_encoder": CLIPTextModel(_clip_config(first)),
            "text_encoder_2": CLIPTextModelWithProjection(_clip_config(second, hidden_act="gelu")),
            "vae": AutoencoderKL(**_VAE, scaling_factor=0.13025),
        }
        for part in parts.values():
            _spread(part)
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="leading",
        steps_offset=1,
    )
    StableDiffusionXLPipeline(
        scheduler=scheduler, tokenizer=first, tokenizer_2=second, add_watermarker=False, **parts
    ).save_pretrained(folder)
    return folder


def clip_tokenizer(folder: Path) -> Any:
    """CLIP's byte-level BPE with a few merges, in its own files."""
    from transformers import CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(i) for i in (*range(33, 127), *range(161, 173), *range(174, 256))]
    letters += [chr(256 + i) for i in range(256 - len(letters))]
    merges = ["c a", "ca t</w>", "d o", "do g</w>", "t h", "th e</w>"]
    words = [*letters, *(c + "</w>" for c in letters), *(m.replace(" ", "") for m in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    tokenizer = CLIPTokenizer(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), model_max_length=77
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def t5_tokenizer(folder: Path) -> Any:
    """A SentencePiece unigram model of a few lines, as T5 has it."""
    import sentencepiece
    from transformers import T5TokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 3),
        model_prefix=str(folder / "spiece"),
        vocab_size=200,
        model_type="unigram",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "spiece.vocab").unlink(missing_ok=True)
    tokenizer = T5TokenizerFast.from_pretrained(folder, extra_ids=0)
    tokenizer.save_pretrained(folder)
    return tokenizer


_VAE: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": (8,) * 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "sample_size": 64,
}


def _clip_config(tokenizer: Any, **fields: Any) -> Any:
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=37,
        projection_dim=32,
        num_attention_heads=4,
        num_hidden_layers=3,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **fields,
    )


def _spread(model: Any) -> None:
    """Embeddings and biases start near nothing, and then a prompt would make no difference."""
    import torch

    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "embed" in name and weights.ndim == 2:
                weights.normal_(0, 0.5)
