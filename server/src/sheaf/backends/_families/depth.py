"""What backends of depth estimation share: images of one shape as one pass, and maps of the images' own size.

The library scales an image to a size that its preprocessing says, and the map back. Images of other shapes
cannot share a pass without padding, which would move the depth of all of them; so what shape an image will
have is told by its header alone, and requests of one shape make a batch.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from sheaf.api.depth import DepthRequest, DepthResponse
from sheaf.backends._shared import images
from sheaf.backends._shared.loading import loaded
from sheaf.backends._shared.pretrained import PretrainedBackend
from sheaf.backends._shared.refusals import answer_each, check_finite, refuse
from sheaf.backends.base import respond

#: Times the pixels of a square image that a long and narrow one may have once it is scaled.
_MOST = 8
_PATH = "/image_b64"


class Scaling(NamedTuple):
    """How a checkpoint's preprocessing scales images, as `preprocessor_config.json` says.

    Attributes:
        height: Pixels that images are scaled to.
        width: The same across.
        multiple: What both are rounded to a multiple of.
        keeps_ratio: Whether one side alone has its pixels, that which changes less, and the other follows.
    """

    height: int
    width: int
    multiple: int
    keeps_ratio: bool

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        """Height and width of an image once it is scaled; as the library's `DPTImageProcessor` has them."""
        down, across = self.height / height, self.width / width
        if self.keeps_ratio:
            down = across = across if abs(1 - across) < abs(1 - down) else down
        return self._rounded(down * height), self._rounded(across * width)

    def _rounded(self, pixels: float) -> int:
        return round(pixels / self.multiple) * self.multiple


class DepthBackend(PretrainedBackend[DepthRequest, DepthResponse]):
    """A depth estimator of the transformers library; subclasses name its classes.

    The settings are those of `PretrainedBackend`.
    """

    model_type: ClassVar[str] = "depth"
    required_files: ClassVar[tuple[str, ...]] = ("preprocessor_config.json",)

    def read_facts(self, model: Any, processor: Any) -> Scaling:  # noqa: ARG002 - the processor has them
        size = processor.size
        keeps_ratio = bool(processor.keep_aspect_ratio)
        return Scaling(size["height"], size["width"], processor.ensure_multiple_of, keeps_ratio)

    @property
    def scaling(self) -> Scaling:
        """How images are scaled, once the model is loaded."""
        facts: Scaling | None = self.facts
        return loaded(facts)

    def smallest(self) -> DepthRequest:
        return DepthRequest(model_name="warm-up", image=images.encoded(np.zeros((32, 32), np.uint8), "png"))

    def check(self, request: DepthRequest) -> None:
        """Refuse what is no image, and one so narrow that it is nothing, or very long, once it is scaled."""
        if not 0 < self.cost(request) <= _MOST:
            given = "{} by {}".format(*images.size_of(request.image, _PATH))
            message = f"The image is too long and narrow for this model: {given} pixels."
            raise refuse(_PATH, message, "out_of_range")

    def batch_key(self, request: DepthRequest) -> Hashable:
        return self._scaled(request)

    def cost(self, request: DepthRequest) -> float:
        """Pixels that the model sees, in those of a square image."""
        height, width = self._scaled(request)
        return height * width / (self.scaling.height * self.scaling.width)

    def answer_size(self, request: DepthRequest) -> int:
        width, height = images.size_of(request.image, _PATH)
        return width * height * 16 // 3  # float32 as base64 text

    def batch_predict(self, requests: Sequence[DepthRequest]) -> list[DepthResponse | Exception]:
        import torch

        pictures = [images.read(request.image, _PATH) for request in requests]
        given = self.processor(images=pictures, return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            found = self.model(pixel_values=given.to(self.model.device, self.model.dtype))
            sizes = [(picture.height, picture.width) for picture in pictures]
            found.predicted_depth = found.predicted_depth.float()
            maps = self.processor.post_process_depth_estimation(found, target_sizes=sizes)
        return [*answer_each(_answer, requests, [each["predicted_depth"].cpu() for each in maps])]

    def _scaled(self, request: DepthRequest) -> tuple[int, int]:
        return self.scaling.scaled(*images.size_of(request.image, _PATH))


def _answer(request: DepthRequest, depth: Any) -> DepthResponse:
    check_finite(_PATH, "The model gives no finite depth for this image.", depth)
    least, most = depth.min(), depth.max()
    if request.normalize:
        depth = (depth - least) / (most - least).clamp_min(1e-30)
    height, width = depth.shape
    return respond(
        request,
        DepthResponse,
        depth=depth.numpy(),
        height=height,
        width=width,
        min_depth=float(least),
        max_depth=float(most),
    )
