"""Draws images from images: as a whole, or under a mask.

A request with a mask runs in the family's inpainting pipeline, one without in that of image to image, and
both share their steps. Mode `inpaint` is for checkpoints that are made for it and can do nothing else: there
a request without a mask has all of its image redrawn.
"""

from __future__ import annotations

from typing import Any, ClassVar

from sheaf.api.multimodal_generation import MultimodalGenerationRequest
from sheaf.backends._families.diffusers.backend import DiffusersBackend, Response
from sheaf.backends._families.diffusers.numbers import Request
from sheaf.backends._shared.refusals import refuse
from sheaf_client.protocol import ImageFile

#: Longest side of an image in pixels, as the contract of text to image has it.
MAX_SIDE = 4096


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
        multiple = self.family.multiple
        width, height = _size_of(_redraws(request).image, "/image_b64")
        return width // multiple * multiple, height // multiple * multiple

    def check(self, request: Request) -> None:
        self.check_numbers(request)
        asked = _redraws(request)
        size = _size_of(asked.image, "/image_b64")
        if min(size) < self.family.multiple:
            message = f"The image has {size[0]} x {size[1]} pixels; this model draws sides from "
            raise refuse("/image_b64", f"{message}{self.family.multiple} pixels on.", "out_of_range")
        if asked.mask is not None and (masked := _size_of(asked.mask, "/mask_b64")) != size:
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

        asked, size = _redraws(request), self.size(request)
        image = _picture(asked.image, size)
        found = {"image": [image] * request.num_images, "strength": asked.strength}
        mask = Image.new("L", size, 255) if asked.mask is None else _mask(asked.mask, size)
        return found | {"mask_image": [mask] * request.num_images}

    def unchanged(self, request: Request) -> Response:
        """The image as it came, at the size it would be drawn in: none of it is given up to noise."""
        import numpy as np

        image = _picture(_redraws(request).image, self.size(request))
        pixels = np.asarray(image, dtype=np.float32)[None] / 255
        return self.answer(request, pixels.repeat(request.num_images, 0), request.seed or 0, ())

    def answer(self, request: Request, pixels: Any, seed: int, warnings: Any) -> Response:
        width, height = _size_of(_redraws(request).image, "/image_b64")
        drawn = pixels.shape[2], pixels.shape[1]
        if drawn != (width, height):
            made = f"The image of {width} x {height} pixels was made {drawn[0]} x {drawn[1]}"
            text = f"{made}: this model draws sides of multiples of {self.family.multiple} pixels."
            warnings = [*warnings, text]
        return super().answer(request, pixels, seed, warnings)

    def smallest(self) -> Request:
        from PIL import Image

        from sheaf.backends._shared.images import encoded

        image: ImageFile = encoded(Image.new("RGB", (64, 64)), "png")
        return MultimodalGenerationRequest(
            model_name="warm-up", prompt="a cat", image=image, num_inference_steps=1, strength=1.0, seed=0
        )


def _size_of(file: ImageFile, path: str) -> tuple[int, int]:
    """Width and height of an image; refused are sides that no picture of this contract has."""
    from sheaf.backends._shared.images import size_of

    width, height = size_of(file, path)
    if max(width, height) > MAX_SIDE:
        message = f"The image has {width} x {height} pixels; sides of up to {MAX_SIDE} are accepted."
        raise refuse(path, message, "too_large_media")
    return width, height


def _picture(file: ImageFile, size: tuple[int, int]) -> Any:
    from PIL.Image import Resampling

    from sheaf.backends._shared.images import read

    image = read(file, "/image_b64")
    return image if image.size == size else image.resize(size, Resampling.LANCZOS)


def _mask(file: ImageFile, size: tuple[int, int]) -> Any:
    from PIL.Image import Resampling

    from sheaf.backends._shared.images import read

    mask = read(file, "/mask_b64", "L", ground=0)
    # It has no shades to keep.
    return mask if mask.size == size else mask.resize(size, Resampling.NEAREST)


def _redraws(request: Request) -> MultimodalGenerationRequest:
    assert isinstance(request, MultimodalGenerationRequest)  # noqa: S101 - the spec let no other in
    return request
