"""Small pictures of latents on their way: made smaller first, then decoded by the model's own decoder.

Decoding at full size costs about as much as a step, which every other request of the batch would wait for. At
a quarter of the sides it is a sixteenth of that, and needs no constants for each family of models.
"""

from __future__ import annotations

from typing import Any

import torch

from sheaf.backends._shared.images import encoded, to_pillow
from sheaf_client.protocol import ImageFile

#: Longest side of a preview in pixels.
SIDE = 256


def preview(pipeline: Any, latents: torch.Tensor, height: int, width: int) -> ImageFile:
    """A JPEG file of what the first of these latents shows; `height` and `width` are of the whole picture."""
    vae, config = pipeline.vae, pipeline.vae.config
    unpack = getattr(pipeline, "_unpack_latents", None)
    with torch.no_grad():
        first = latents[:1]
        if unpack is not None:
            first = unpack(first, height, width, pipeline.vae_scale_factor)
        longest = SIDE // pipeline.vae_scale_factor
        if (factor := longest / max(first.shape[-2:])) < 1:
            size = [max(1, round(side * factor)) for side in first.shape[-2:]]
            first = torch.nn.functional.interpolate(first.float(), size=size, mode="area")
        first = first.float() / config.scaling_factor
        if getattr(config, "latents_std", None) is not None and getattr(config, "latents_mean", None):
            mean, std = (
                torch.tensor(values, device=first.device).view(1, -1, 1, 1)
                for values in (config.latents_mean, config.latents_std)
            )
            first = first * std + mean
        first = first + (getattr(config, "shift_factor", None) or 0.0)
        dtype = vae.dtype
        upcast = dtype == torch.float16 and getattr(config, "force_upcast", False)
        if upcast:  # the decoder overflows, as the pipelines know
            vae.to(dtype=torch.float32)
        try:
            picture = vae.decode(first.to(vae.dtype), return_dict=False)[0]
        finally:
            if upcast:
                vae.to(dtype=dtype)
        pixels = (picture.float() / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
    return encoded(to_pillow(pixels)[0], "jpeg")
