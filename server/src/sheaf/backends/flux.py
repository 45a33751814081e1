"""FLUX.1: images from text, from images, and under masks, by flow matching in a transformer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Unpack

from sheaf.backends._families.diffusers.backend import DiffusersBackend, Mode, Settings
from sheaf.backends._families.diffusers.family import DenoiserFacts, Family, Guidance
from sheaf.backends._families.diffusers.numbers import Request
from sheaf.backends._families.diffusers.redraw import RedrawingBackend
from sheaf.backends._shared.refusals import refuse
from sheaf.backends.info import BackendInfo, Weights
from sheaf.registry import register_backend

FLUX = Family(
    name="flux",
    text2img="FluxPipeline",
    img2img="FluxImg2ImgPipeline",
    inpaint="FluxInpaintPipeline",
    denoiser="transformer",
    multiple=16,
    default_dtype="bfloat16",
    shared=frozenset({"img_ids", "txt_ids"}),
)


FLUX_INFO = BackendInfo(
    title="FLUX.1",
    extra="diffusion",
    libraries=("torch", "diffusers", "transformers", "accelerate", "peft"),
    default_model="black-forest-labs/FLUX.1-schnell",
    memory_mb=34_000,
    weights=(
        Weights(
            models=("black-forest-labs/flux.1-schnell",),
            license="Apache-2.0",
            card="https://huggingface.co/black-forest-labs/FLUX.1-schnell",
        ),
        Weights(
            models=("black-forest-labs/flux.1-*",),
            license="FLUX.1 [dev] Non-Commercial License",
            card="https://huggingface.co/black-forest-labs/FLUX.1-dev",
            gated=True,
            restriction="Its licence is for non-commercial use; another is to be had from Black Forest Labs.",
        ),
    ),
    papers=("https://github.com/black-forest-labs/flux",),
)

#: What embedded guidance is multiplied by before it is embedded, in the model's own dtype.
_EMBEDDED = 1000


@register_backend("flux")
class FluxBackend(DiffusersBackend):
    """FLUX.1 draws images from text (and with `mode` `img2img` or `inpaint` from images).

    Args:
        model_id: hub id (`black-forest-labs/FLUX.1-schnell`, `black-forest-labs/FLUX.1-dev` …) or the folder
            of a checkpoint in diffusers' format, in safetensors.
        mode: `text2img`, which serves `diffusion`; `img2img` and `inpaint` serve `multimodal_generation`. A
            spec that names its `model_type` needs no mode.
        device: `cuda`, `cuda:1`, `cpu` …
        dtype: `bfloat16`, `float16` or `float32`; `torch_dtype` is the older spelling.
        revision: branch, tag or commit on the hub.
        variant: of the weights' files on the hub, such as `fp16`.
        max_sequence_length: tokens of the prompt that are read, up to 512; 256 suits FLUX.1-schnell.
        true_cfg_scale: weight of negative prompts. Where it is not set, `guidance_scale` is that weight for
            requests that have a negative prompt, and their embedded guidance is off.
        scheduler: class of a scheduler of diffusers, in place of the checkpoint's.
        scheduler_kwargs: settings of the scheduler that replace the checkpoint's.
        enable_model_cpu_offload: keep the parts in main memory, and each on the device only to work.
    """

    model_type: ClassVar[str] = "diffusion"
    info: ClassVar[BackendInfo | None] = FLUX_INFO
    family: ClassVar[Family] = FLUX

    def __init__(
        self,
        model_id: str = "black-forest-labs/FLUX.1-schnell",
        *,
        mode: Mode = "text2img",
        max_sequence_length: int = 512,
        true_cfg_scale: float | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        super().__init__(model_id, mode=mode, **settings)
        self.max_sequence_length = max_sequence_length
        self.true_cfg_scale = true_cfg_scale

    @classmethod
    def kinds(cls) -> tuple[type[DiffusersBackend], ...]:
        return (cls, FluxImageBackend)

    def guide(self, request: Request) -> Guidance:
        """Embedded guidance, or guidance against the negative prompt where there is one."""
        scale, negative = request.guidance_scale, request.negative_prompt
        embeds = self.known.embeds_guidance
        if negative:
            weight = scale if self.true_cfg_scale is None else self.true_cfg_scale
            if weight > 1:
                embedded = 1.0 if self.true_cfg_scale is None else scale
                arguments = {"negative_prompt": [negative], "true_cfg_scale": weight}
                return Guidance({**arguments, "guidance_scale": embedded}, calls=2)
            ignored = "negative_prompt has no effect: it needs a guidance_scale above 1."
            return Guidance({"guidance_scale": scale}, warnings=(ignored,))
        if scale > 1 and not embeds:
            ignored = "guidance_scale has no effect without a negative_prompt: this model embeds none."
            return Guidance({"guidance_scale": scale}, warnings=(ignored,))
        return Guidance({"guidance_scale": scale})

    def check_numbers(self, request: Request) -> None:
        super().check_numbers(request)
        most = self.known.max_guidance
        if most is not None and self.guide(request).arguments["guidance_scale"] > most:
            message = f"In {self.known.dtype} this model embeds guidance up to {most:.5g}."
            raise refuse("/guidance_scale", message, "out_of_range")

    def read_facts(self) -> DenoiserFacts:
        import torch

        embeds, dtype = bool(self.denoiser.config.guidance_embeds), self.denoiser.dtype
        most = torch.finfo(dtype).max / _EMBEDDED if embeds else None
        return DenoiserFacts(embeds, most, str(dtype).removeprefix("torch."))

    def extra_arguments(self) -> dict[str, Any]:
        return {"max_sequence_length": self.max_sequence_length}

    def steps_of(self, steps: int, strength: float) -> int:
        return steps - int(max(steps - min(steps * strength, steps), 0))

    def check_checkpoint(self) -> None:
        config = self.denoiser.config
        if config.out_channels not in (None, config.in_channels):
            raise ValueError(f"{self.model_id} takes further images as channels, which is not served")


@register_backend("flux-img2img")
class FluxImageBackend(RedrawingBackend, FluxBackend):
    """FLUX.1 redraws images after a prompt, as a whole or under a mask.

    The settings are those of `FluxBackend`; `mode` is `img2img` (the default) or `inpaint`.
    """

    info: ClassVar[BackendInfo | None] = replace(FLUX_INFO, default_model="black-forest-labs/FLUX.1-dev")

    def __init__(
        self,
        model_id: str = "black-forest-labs/FLUX.1-dev",
        *,
        mode: Mode = "img2img",
        **settings: Unpack[Settings],
    ) -> None:
        super().__init__(model_id, mode=mode, **settings)
