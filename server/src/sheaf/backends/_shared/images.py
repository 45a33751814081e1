"""Pictures in and out: what a request's image files show, and files of what a model drew.

The reading is that of the client's `ImageFile.to_numpy()` (`sheaf_client.protocol.media`), so
that what a caller sees of a file is what a model sees of it.
"""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from sheaf.backends._shared.files import file_at
from sheaf_client.protocol import ImageFile
from sheaf_client.protocol.media import MAX_PIXELS, Mode, decode_image, decode_pixels, seen_size

Format = Literal["png", "jpeg", "webp"]

_QUALITY: dict[str, dict[str, Any]] = {"png": {}, "jpeg": {"quality": 95}, "webp": {"quality": 95}}


def size_of(file: ImageFile, path: str, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height of an image as it is seen, in pixels, by its header alone.

    Args:
        path: JSON Pointer to the file in the request.
        max_pixels: Most pixels of an image, width times height.

    Raises:
        InvalidRequestError: The file is no image, is broken (`bad_format`) or too large (`too_large_media`).
    """
    with file_at(path):
        return seen_size(file.bytes, max_pixels=max_pixels)


def read(
    file: ImageFile, path: str, mode: Mode = "RGB", *, ground: int = 255, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """The image as it is seen, upright and opaque, in Pillow's `mode`: `RGB`, or `L` for brightness alone.

    Args:
        path: JSON Pointer to the file in the request.
        ground: Grey of what transparent pixels show, 0 (black) … 255 (white). A mask wants black: what is
            transparent in it is not marked.
        max_pixels: Most pixels of an image, width times height.

    Raises:
        InvalidRequestError: As of `size_of`, and for a file that is cut off.
    """
    with file_at(path):
        return decode_image(file.bytes, mode, ground=ground, max_pixels=max_pixels)


def pixels_of(file: ImageFile, path: str, *, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """The image as it is seen, uint8 of shape (height, width, 3) in RGB; errors as of `read`."""
    with file_at(path):
        return decode_pixels(file.bytes, max_pixels=max_pixels)


def to_pillow(pixels: npt.NDArray[np.float32]) -> list[Image.Image]:
    """Pictures of pixels in 0…1, shape (images, height, width, 3).

    Raises `ValueError` where a model gave numbers that are not finite.
    """
    if not np.isfinite(pixels).all():
        raise ValueError("the model gave pixels that are no numbers; try a dtype with a wider range")
    return [Image.fromarray(picture) for picture in (pixels * 255).round().astype(np.uint8)]


def encoded(image: Image.Image | npt.NDArray[np.uint8], format: Format) -> ImageFile:  # noqa: A002 - as the contract calls it
    """The image as a file: `png` as Pillow writes it, `jpeg` and `webp` at quality 95.

    Args:
        image: A picture, or uint8 pixels of shape (height, width) for grey or (height, width, 3) for RGB.
    """
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, format=format, **_QUALITY[format])
    return ImageFile(buffer.getvalue())
