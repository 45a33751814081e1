"""Decodes PNG, JPEG and WebP files as they are meant to be seen: upright, opaque and in eight bits.

Rules that every reader of a picture shares:

- EXIF's orientation is applied, all eight of them.
- What is transparent shows the ground beneath, white unless told otherwise, as on paper: the colours that a
  file keeps under its transparent pixels were never seen by anyone.
- 16 bits are scaled to eight, not clipped. Grey of 16 bits is rounded; of colours Pillow keeps the high byte.
- CMYK is the ink that a printer lays on white, stored inverted, as Adobe and all browsers have it.
  Profiles of colours are not applied.
- Of an animation the picture counts that is shown by who cannot play it: the first.
"""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from sheaf_client._decoding.libraries import needed
from sheaf_client._formats import BrokenFileError, image_size

with needed("decoding an image"):
    from PIL import Image

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Mode: TypeAlias = Literal["RGB", "L"]

#: Most pixels of a picture unless told otherwise: those that Pillow refuses more than.
MAX_PIXELS = 178_956_970
#: What the contracts name; Pillow knows many more, some of which run other programs.
_FORMATS = ("PNG", "JPEG", "WEBP")
#: What Pillow raises for files that are broken, by where they are; it warns of some, which may be an error.
_BROKEN = (
    *(OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError, OverflowError),
    *(struct.error, zlib.error, Warning),
)
_ORIENTATION = 0x0112
#: What turns a picture upright, by the orientation that its file states; 1 is upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: The orientations of pictures whose rows are columns of what is seen.
_SIDEWAYS = frozenset({5, 6, 7, 8})


def seen_size(data: bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height in pixels of a picture as it is seen, by its header alone.

    Raises:
        BrokenFileError: It is no PNG, JPEG or WebP file, is broken, or has more than `max_pixels`.
    """
    with _open(data, max_pixels) as image:
        width, height = image.size
        return (height, width) if _orientation(image, data) in _SIDEWAYS else (width, height)


def open_upright(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture upright, in the mode that Pillow has for its file: alpha, palette and depth are kept.

    One that is upright in its file is decoded where it is first used, by when Pillow tells its faults.

    Raises:
        BrokenFileError: As in `decode_image`.
    """
    image = _open(data, max_pixels)
    turn = _TURNS.get(_orientation(image, data))
    try:
        return image if turn is None else image.transpose(turn)
    except _BROKEN as error:
        raise _unreadable(error) from None


def decode_image(
    data: bytes, mode: Mode = "RGB", *, ground: int = 255, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """The picture as it is seen: upright and opaque, by the rules above.

    Args:
        mode: `RGB`, or `L` for the brightness alone (ITU-R BT.601).
        ground: Grey of what transparent pixels show, 0 (black) … 255 (white).
        max_pixels: Most pixels that are decoded, told by the header before anything is.

    Raises:
        BrokenFileError: It is no PNG, JPEG or WebP file, is broken or cut off, or has more than `max_pixels`.
    """
    with _open(data, max_pixels) as image:
        turn = _TURNS.get(_orientation(image, data))
        try:
            image.load()
            seen = _opaque(_eight_bits(image, data), ground).convert(mode)
            return seen if turn is None else seen.transpose(turn)
        except _BROKEN as error:
            raise _unreadable(error) from None


def decode_pixels(data: bytes, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """The picture as it is seen, uint8 of shape (height, width, 3) in RGB; errors as of `decode_image`."""
    return np.asarray(decode_image(data, max_pixels=max_pixels))


def _open(data: bytes, max_pixels: int) -> Image.Image:
    width, height = image_size(data)
    if width * height > max_pixels:
        message = f"The image has {width} x {height} pixels; {max_pixels} are accepted."
        raise BrokenFileError(message, "too_large_media")
    try:
        return Image.open(io.BytesIO(data), formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # Its own limit belongs to the whole process, and stays as it is.
        raise BrokenFileError(f"{error}.", "too_large_media") from None
    except _BROKEN as error:
        raise _unreadable(error) from None


def _unreadable(error: Exception) -> BrokenFileError:
    return BrokenFileError(f"The image cannot be read: {str(error).rstrip('.') or type(error).__name__}.")


def _orientation(image: Image.Image, data: bytes) -> int:
    """How the camera was held, as EXIF or XMP of the header say; 1 where they do not."""
    try:
        if image.format == "PNG" and "exif" not in image.info and b"eXIf" in data:
            image.load()  # it may stand behind the pixels
        # Pillow's own for PNG decodes all of it each time.
        found: Any = Image.Image.getexif(image).get(_ORIENTATION)
    except _BROKEN:
        return 1
    return found if isinstance(found, int) else 1


def _eight_bits(image: Image.Image, data: bytes) -> Image.Image:
    """The image, loaded, in a mode of eight bits, with the colour that stands for transparent in the same."""
    depth = data[24] if image.format == "PNG" else 8
    key: Any = image.info.get("transparency")
    if depth == 16 and image.mode.startswith("I"):
        levels: NDArray[Any] = np.asarray(image)
        grey = Image.fromarray(_rounded()[levels])
        if key is not None:
            grey.putalpha(Image.fromarray(np.where(levels == key, np.uint8(0), np.uint8(255))))
        return grey
    if depth == 16 and isinstance(key, tuple):
        image.info["transparency"] = tuple(level >> 8 for level in cast("tuple[int, ...]", key))
    elif depth in (2, 4) and image.mode == "L" and isinstance(key, int):
        image.info["transparency"] = key * (255 // (2**depth - 1))
    return image


@cache
def _rounded() -> NDArray[np.uint8]:
    """Levels of eight bits by those of 16: a table makes no copies of a picture in wider numbers."""
    return ((np.arange(2**16, dtype=np.uint32) + 128) // 257).astype(np.uint8)


def _opaque(image: Image.Image, ground: int) -> Image.Image:
    if not image.has_transparency_data:
        return image
    colours = image.convert("RGBA")
    beneath = Image.new("RGB", image.size, (ground, ground, ground))
    beneath.paste(colours.convert("RGB"), mask=colours.getchannel("A"))
    return beneath
