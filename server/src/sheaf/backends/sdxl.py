"""Stable Diffusion XL: images from text, from images, and under masks, by a UNet and any scheduler."""

from __future__ import annotations

from typing import ClassVar, Unpack

from sheaf.backends._families.diffusers.backend import DiffusersBackend, Mode, Settings
from sheaf.backends._families.diffusers.family import DenoiserFacts, Family, Guidance
from sheaf.backends._families.diffusers.numbers import Request
from sheaf.backends._families.diffusers.redraw import RedrawingBackend
from sheaf.backends.info import BackendInfo, Weights
from sheaf.registry import register_backend

SDXL = Family(
    name="sdxl",
    text2img="StableDiffusionXLPipeline",
    img2img="StableDiffusionXLImg2ImgPipeline",
    inpaint="StableDiffusionXLInpaintPipeline",
    denoiser="unet",
    multiple=8,
    default_dtype="float16",
    # Else the pictures depend on whether one more library is installed.
    settings={"add_watermarker": False},
)


@register_backend("sdxl")
class SDXLBackend(DiffusersBackend):
    """Stable Diffusion XL draws images from text (and with `mode` `img2img` or `inpaint` from images).

    Args:
        model_id: hub id (`stabilityai/stable-diffusion-xl-base-1.0`, `stabilityai/sdxl-turbo` …) or the
            folder of a checkpoint in diffusers' format, in safetensors.
        mode: `text2img`, which serves `diffusion`; `img2img` and `inpaint` serve `multimodal_generation`. A
            spec that names its `model_type` needs no mode.
        device: `cuda`, `cuda:1`, `cpu` …
        dtype: `float16`, `bfloat16` or `float32`; `torch_dtype` is the older spelling.
        revision: branch, tag or commit on the hub.
        variant: of the weights' files on the hub, such as `fp16`.
        scheduler: class of a scheduler of diffusers (`EulerAncestralDiscreteScheduler`,
            `DPMSolverMultistepScheduler` …), in place of the checkpoint's.
        scheduler_kwargs: settings of the scheduler that replace the checkpoint's.
        enable_model_cpu_offload: keep the parts in main memory, and each on the device only to work.
    """

    model_type: ClassVar[str] = "diffusion"
    info: ClassVar[BackendInfo | None] = BackendInfo(
        title="Stable Diffusion XL",
        extra="diffusion",
        libraries=("torch", "diffusers", "transformers", "accelerate", "peft"),
        default_model="stabilityai/stable-diffusion-xl-base-1.0",
        memory_mb=7000,
        weights=(
            Weights(
                models=("stabilityai/stable-diffusion-xl-*", "diffusers/stable-diffusion-xl-*"),
                license="CreativeML Open RAIL++-M",
                card="https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0",
            ),
            Weights(
                models=("stabilityai/sdxl-turbo",),
                license="Stability AI Non-Commercial Community",
                card="https://huggingface.co/stabilityai/sdxl-turbo",
                restriction="Its licence is for non-commercial use; another is to be had from Stability AI.",
            ),
        ),
        papers=("https://arxiv.org/abs/2307.01952",),
    )
    family: ClassVar[Family] = SDXL

    def __init__(
        self,
        model_id: str = "stabilityai/stable-diffusion-xl-base-1.0",
        *,
        mode: Mode = "text2img",
        **settings: Unpack[Settings],
    ) -> None:
        super().__init__(model_id, mode=mode, **settings)

    @classmethod
    def kinds(cls) -> tuple[type[DiffusersBackend], ...]:
        return (cls, SDXLImageBackend)

    def guide(self, request: Request) -> Guidance:
        """Guidance against the negative prompt, or against none, in one call of twice the rows."""
        scale, negative = request.guidance_scale, request.negative_prompt
        if scale > 1 and not self.known.embeds_guidance:
            # None is not the empty text: a checkpoint may stand for it by zeros.
            return Guidance(
                {"guidance_scale": scale, "negative_prompt": [negative] if negative else None}, rows=2
            )
        ignored = "negative_prompt has no effect: it needs a guidance_scale above 1."
        return Guidance({"guidance_scale": scale}, warnings=(ignored,) if negative else ())

    def read_facts(self) -> DenoiserFacts:
        embeds = self.denoiser.config.time_cond_proj_dim is not None
        return DenoiserFacts(embeds, None, str(self.denoiser.dtype).removeprefix("torch."))

    def steps_of(self, steps: int, strength: float) -> int:
        return min(int(steps * strength), steps)

    def check_checkpoint(self) -> None:
        channels, latents = self.denoiser.config.in_channels, self.pipeline.vae.config.latent_channels
        if channels != latents and self.mode != "inpaint":
            raise ValueError(f"{self.model_id} is made for inpainting alone: deploy it with mode='inpaint'")


@register_backend("sdxl-img2img")
class SDXLImageBackend(RedrawingBackend, SDXLBackend):
    """Stable Diffusion XL redraws images after a prompt, as a whole or under a mask.

    The settings are those of `SDXLBackend`; `mode` is `img2img` (the default) or `inpaint`.
    """

    def __init__(
        self,
        model_id: str = "stabilityai/stable-diffusion-xl-base-1.0",
        *,
        mode: Mode = "img2img",
        **settings: Unpack[Settings],
    ) -> None:
        super().__init__(model_id, mode=mode, **settings)
