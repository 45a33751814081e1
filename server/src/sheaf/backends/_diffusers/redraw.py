"""Draws images from images: as a whole, or under a mask.

A request with a mask runs in the family's inpainting pipeline, one without in that of image to image, and
both share their steps. Mode `inpaint` is for checkpoints that are made for it and can do nothing else: there
a request without a mask has all of its image redrawn.
"""

from __future__ import annotations

from typing import Any, ClassVar

from sheaf.api.multimodal_generation import MultimodalGenerationRequest
from sheaf.backends._common import refuse
from sheaf.backends._diffusers.backend import DiffusersBackend, Response
from sheaf.backends._diffusers.numbers import Request
from sheaf_client.protocol import ImageFile


class RedrawingBackend(DiffusersBackend):
    """A family's pipelines that start from an image."""

    model_type: ClassVar[str] = "multimodal_generation"
    modes: ClassVar[tuple[str, ...]] = ("img2img", "inpaint")

    @classmethod
    def kinds(cls) -> tuple[type[DiffusersBackend], ...]:
        return (cls,)

    def pipeline_names(self) -> tuple[str, ...]:
        family = self.family
        return (family.inpaint,) if self.mode == "inpaint" else (family.img2img, family.inpaint)

    def pipeline_for(self, request: Request) -> Any:
        masked = self.mode == "inpaint" or _redraws(request).mask is not None
        return self._pipelines[self.family.inpaint if masked else self.family.img2img]

    def size(self, request: Request) -> tuple[int, int]:
        """Those of the image, made smaller to the family's multiples where they are none."""
        from sheaf.backends._diffusers.images import fitted, size_of

        return fitted(size_of(_redraws(request).image, "/image_b64"), self.family.multiple)

    def check(self, request: Request) -> None:
        from sheaf.backends._diffusers.images import size_of

        self.check_numbers(request)
        asked = _redraws(request)
        size = size_of(asked.image, "/image_b64")
        if min(size) < self.family.multiple:
            message = f"The image has {size[0]} x {size[1]} pixels; this model draws sides from "
            raise refuse("/image_b64", f"{message}{self.family.multiple} pixels on.", "out_of_range")
        if asked.mask is not None and (masked := size_of(asked.mask, "/mask_b64")) != size:
            message = f"The mask has {masked[0]} x {masked[1]} pixels, the image {size[0]} x {size[1]}."
            raise refuse("/mask_b64", message, "mismatch")
        if asked.strength and not self.denoising_steps(request):
            message = f"{asked.strength:g} of {asked.num_inference_steps} steps is less than one."
            raise refuse("/strength", message, "out_of_range")

    def denoising_steps(self, request: Request) -> int:
        asked = _redraws(request)
        return self.steps_of(asked.num_inference_steps, asked.strength) if asked.strength else 0

    def pictures(self, request: Request) -> dict[str, Any]:
        from PIL import Image

        from sheaf.backends._diffusers.images import read

        asked, size = _redraws(request), self.size(request)
        image = read(asked.image, "/image_b64", "RGB", size)
        found = {"image": [image] * request.num_images, "strength": asked.strength}
        if asked.mask is not None:
            mask = read(asked.mask, "/mask_b64", "L", size)
        else:
            mask = Image.new("L", size, 255)
        return found | {"mask_image": [mask] * request.num_images}

    def unchanged(self, request: Request) -> Response:
        """The image as it came, at the size it would be drawn in: none of it is given up to noise."""
        import numpy as np

        from sheaf.backends._diffusers.images import read

        image = read(_redraws(request).image, "/image_b64", "RGB", self.size(request))
        pixels = np.asarray(image, dtype=np.float32)[None] / 255
        return self.answer(request, pixels.repeat(request.num_images, 0), request.seed or 0, ())

    def answer(self, request: Request, pixels: Any, seed: int, warnings: Any) -> Response:
        from sheaf.backends._diffusers.images import size_of

        width, height = size_of(_redraws(request).image, "/image_b64")
        drawn = pixels.shape[2], pixels.shape[1]
        if drawn != (width, height):
            made = f"The image of {width} x {height} pixels was made {drawn[0]} x {drawn[1]}"
            text = f"{made}: this model draws sides of multiples of {self.family.multiple} pixels."
            warnings = [*warnings, text]
        return super().answer(request, pixels, seed, warnings)

    def smallest(self) -> Request:
        from PIL import Image

        from sheaf.backends._diffusers.images import encoded

        image: ImageFile = encoded(Image.new("RGB", (64, 64)), "png")
        return MultimodalGenerationRequest(
            model_name="warm-up", prompt="a cat", image=image, num_inference_steps=1, strength=1.0, seed=0
        )


def _redraws(request: Request) -> MultimodalGenerationRequest:
    assert isinstance(request, MultimodalGenerationRequest)  # noqa: S101 - the spec let no other in
    return request
