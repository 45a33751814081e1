"""Images in and out: reading what a request carries, within bounds, and writing what was drawn."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from sheaf.backends._common import refuse
from sheaf_client.protocol import ImageFile

#: What the contract names; Pillow knows many more, some of which run other programs.
_FORMATS = ("PNG", "JPEG", "WEBP")
#: Longest side of an image in pixels, as the contract of text to image has it.
MAX_SIDE = 4096
#: The tag of a photo that says how the camera was held, and its values for a camera on its side.
_ORIENTATION, _SIDEWAYS = 0x0112, frozenset({5, 6, 7, 8})
_QUALITY: dict[str, dict[str, Any]] = {"png": {}, "jpeg": {"quality": 95}, "webp": {"quality": 95}}


def size_of(file: ImageFile, path: str) -> tuple[int, int]:
    """Width and height of an image as it is seen, in pixels, by its header alone.

    Raises `InvalidRequestError` for a file that is no image, or one with sides beyond 4096.
    """
    with _open(file, path) as image:
        width, height = image.size
        if _orientation(image) in _SIDEWAYS:
            width, height = height, width
    if max(width, height) > MAX_SIDE:
        message = f"The image has {width} x {height} pixels; sides of up to {MAX_SIDE} are accepted."
        raise refuse(path, message, "too_large_media")
    return width, height


def fitted(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Width and height of the picture that is drawn from an image: the multiples below or at its own."""
    width, height = size
    return width // multiple * multiple, height // multiple * multiple


def read(file: ImageFile, path: str, mode: str, size: tuple[int, int]) -> Image.Image:
    """The image upright, in Pillow's `mode`, resampled to (width, height) where it has another size.

    Raises `InvalidRequestError` for a file that is broken.
    """
    try:
        with _open(file, path) as opened:
            upright = ImageOps.exif_transpose(opened) if _orientation(opened) else opened
            image = upright.convert(mode)
    except (OSError, SyntaxError, ValueError) as error:
        raise refuse(path, f"The image cannot be read: {error}.", "bad_format") from None
    if image.size == size:
        return image
    # A mask has no shades to keep.
    sampling = Image.Resampling.NEAREST if mode == "L" else Image.Resampling.LANCZOS
    return image.resize(size, sampling)


def _open(file: ImageFile, path: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(file.bytes), formats=_FORMATS)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise refuse(path, "Must be a PNG, JPEG or WebP file.", "bad_format") from None


def _orientation(image: Image.Image) -> int | None:
    """How the camera was held, by the header: Pillow decodes all of a PNG to look behind its pixels."""
    if image.format == "PNG" and "exif" not in image.info:
        return None
    try:
        return image.getexif().get(_ORIENTATION)
    except (OSError, SyntaxError, ValueError):
        return None


def to_pillow(pixels: npt.NDArray[np.float32]) -> list[Image.Image]:
    """Pictures of pixels in 0…1, shape (images, height, width, 3).

    Raises `ValueError` where a model gave numbers that are not finite.
    """
    if not np.isfinite(pixels).all():
        raise ValueError("the model gave pixels that are no numbers; try a dtype with a wider range")
    return [Image.fromarray(picture) for picture in (pixels * 255).round().astype(np.uint8)]


def encoded(image: Image.Image, format: str) -> ImageFile:  # noqa: A002 - as the contract calls it
    """The image as a file: `png` as Pillow writes it, `jpeg` and `webp` at quality 95."""
    buffer = io.BytesIO()
    image.save(buffer, format=format, **_QUALITY[format])
    return ImageFile(buffer.getvalue())
