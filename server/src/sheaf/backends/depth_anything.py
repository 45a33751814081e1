"""Depth Anything of the transformers library: how far away what each pixel of an image shows is.

Models: Yang et al. 2024, "Depth Anything: Unleashing the Power of Large-Scale Unlabeled Data", and "Depth
Anything V2"; relative ones give inverse depth without a unit, the `Metric` ones metres.
"""

from __future__ import annotations

from typing import ClassVar

from sheaf.backends._families.depth import DepthBackend
from sheaf.backends.info import BackendInfo, Weights
from sheaf.registry import register_backend

_V2 = "depth-anything/depth-anything-v2-"


@register_backend("depth-anything")
class DepthAnythingBackend(DepthBackend):
    """Maps equal to the library's own call for each image alone; settings as of `PretrainedBackend`."""

    info: ClassVar[BackendInfo | None] = BackendInfo(
        title="Depth Anything",
        extra="vision",
        libraries=("torch", "transformers", "accelerate", "PIL"),
        default_model="depth-anything/Depth-Anything-V2-Small-hf",
        memory_mb=100,
        weights=(
            Weights(
                models=(f"{_V2}*small-hf", "liheyoung/depth-anything-*-hf"),
                license="Apache-2.0",
                card="https://huggingface.co/depth-anything/Depth-Anything-V2-Small-hf",
            ),
            Weights(
                models=(f"{_V2}*base-hf", f"{_V2}*large-hf"),
                license="CC-BY-NC-4.0",
                card="https://huggingface.co/depth-anything/Depth-Anything-V2-Large-hf",
                restriction="Version 2 in its base and large sizes is for other use than commercial.",
            ),
        ),
        papers=("https://arxiv.org/abs/2401.10891", "https://arxiv.org/abs/2406.09414"),
    )
    architectures: ClassVar[tuple[str, ...]] = ("depth_anything",)
    model_class: ClassVar[str] = "DepthAnythingForDepthEstimation"
    processor_class: ClassVar[str | None] = "DPTImageProcessorPil"
