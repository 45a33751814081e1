"""LoRA files for the small diffusion checkpoints, in the key formats that people have them in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: What trainers commonly adapt in each denoiser: attention, and here some other layers and convolutions too.
TARGETS = {
    "transformer": ["to_q", "to_k", "to_v", "to_out.0", "norm.linear", "proj_mlp"],
    "unet": ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv_in", "time_emb_proj"],
    "text_encoder": ["q_proj", "v_proj", "out_proj"],
    "text_encoder_2": ["q_proj", "out_proj", "fc1"],
}
STANDARD = "pytorch_lora_weights.safetensors"


def make_adapter(
    folder: str | Path,
    pipe: Any,
    *,
    seed: int,
    rank: int = 4,
    alpha: int = 8,
    text: bool = False,
    file: str = STANDARD,
    **config: Any,
) -> Path:
    """A random LoRA for `pipe` in the library's own file; with `text` for its text encoders too.

    Args:
        config: More of PEFT's `LoraConfig`, such as `use_dora`.
    """
    import torch
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    encoders = [part for part in ("text_encoder", "text_encoder_2") if part in pipe._lora_loadable_modules]
    given: dict[str, Any] = {}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for part in [denoiser_of(pipe), *(encoders if text else ())]:
            network = getattr(pipe, part)
            chosen = LoraConfig(
                r=rank,
                lora_alpha=alpha,
                init_lora_weights=False,
                **{"target_modules": TARGETS[part], **config},
            )
            network.add_adapter(chosen, "made")
            state = get_peft_model_state_dict(network, adapter_name="made")
            given[f"{part}_lora_layers"] = {key: tensor.clone() for key, tensor in state.items()}
            given[f"{part}_lora_adapter_metadata"] = network.peft_config["made"].to_dict()
    type(pipe).save_lora_weights(folder, weight_name=file, **given)
    pipe.unload_lora_weights()
    return Path(folder) / file


def as_kohya(file: Path, target: Path, *, alpha: float) -> Path:
    """An SDXL's factors under the names that kohya's trainer gives them, with its own way to write alpha."""
    import torch
    from safetensors.torch import load_file, save_file

    prefixes = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
    state: dict[str, torch.Tensor] = {}
    for key, tensor in load_file(file).items():
        part, _, rest = key.partition(".")
        layer, _, factor = rest.removesuffix(".weight").rpartition(".")
        if part != "unet":
            layer = f"text_model.{layer.removeprefix('text_model.')}"
        name = f"{prefixes[part]}_{layer.replace('.', '_')}"
        state[f"{name}.{'lora_down' if factor == 'lora_A' else 'lora_up'}.weight"] = tensor
        state[f"{name}.alpha"] = torch.tensor(alpha)
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, target)
    return target


def kohya_flux(target: Path, *, width: int, blocks: int, seed: int, rank: int = 4) -> Path:
    """A FLUX LoRA as kohya's trainer writes it: by the original names, where q, k and v are one."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    layers = {"img_attn_proj": width, "img_attn_qkv": 3 * width, "img_mod_lin": 6 * width}
    state: dict[str, torch.Tensor] = {}
    for block in range(blocks):
        for layer, out in layers.items():
            name = f"lora_unet_double_blocks_{block}_{layer}"
            state[f"{name}.lora_down.weight"] = torch.randn(rank, width, generator=generator) * 0.3
            state[f"{name}.lora_up.weight"] = torch.randn(out, rank, generator=generator) * 0.3
            state[f"{name}.alpha"] = torch.tensor(2.0)
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, target)
    return target


def denoiser_of(pipe: Any) -> str:
    return "transformer" if getattr(pipe, "transformer", None) is not None else "unet"
