"""Images and sounds as people hold them, as the bytes of an encoded file.

Text that names a file is read from it; this is why only a client's keywords come here and never a contract.
"""

from __future__ import annotations

import io
import os
import struct
import wave
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from sheaf_client._inputs.kinds import comes_from

if TYPE_CHECKING:
    from sheaf_client._inputs.arrays import ArrayLike
    from sheaf_client._media import AudioFile, ImageFile

#: Longest text that may be the path of a file.
_LONGEST_PATH = 4096


class _Picture(Protocol):
    """Pillow's `Image`."""

    @property
    def mode(self) -> str: ...
    def convert(self, mode: str) -> Any: ...


ImageFileLike: TypeAlias = "ImageFile | bytes | str | os.PathLike[str] | IO[bytes] | _Picture | ArrayLike"
"""An encoded image (bytes, base64 text, a path, an open file), Pillow's own, or uint8 pixels in RGB."""
AudioFileLike: TypeAlias = "AudioFile | bytes | str | os.PathLike[str] | IO[bytes] | tuple[ArrayLike, int]"
"""An encoded sound (bytes, base64 text, a path, an open file), or samples in -1 … 1 with their rate in Hz."""


def is_media(value: Any) -> bool:
    """Whether the value can stand for one encoded file; base64 text cannot, since any text may be that."""
    return (
        isinstance(value, bytes | bytearray | memoryview | os.PathLike)
        or (isinstance(value, str) and _named_file(value) is not None)
        or hasattr(value, "read")
        or comes_from(value, "PIL", "Image")
        or comes_from(value, "sheaf_client", "Media")
        or (hasattr(value, "__array__") and getattr(value, "ndim", 0) in (2, 3))
        or _is_sound(value)
    )


def encoded(value: Any) -> Any:
    """The bytes of the file; text that names no file stays, as base64.

    Raises:
        FileNotFoundError: The value is a path where no file is.
        TypeError: The value is an array that is no image, or a file opened as text.
    """
    if isinstance(value, str):
        path = _named_file(value)
        if path is None and "." in value and len(value) < _LONGEST_PATH:
            # Base64 has no full stop: this was to be a path.
            raise FileNotFoundError(f"no such file: {value!r}")
        return value if path is None else path.read_bytes()
    if isinstance(value, os.PathLike):
        return Path(cast("os.PathLike[str]", value)).read_bytes()
    if hasattr(value, "read"):
        data = value.read()
        if isinstance(data, str):
            raise TypeError("the file is open as text; open it with 'rb'")
        return data
    if comes_from(value, "PIL", "Image"):
        return _from_pillow(value)
    if _is_sound(value):
        return wav_bytes(*value)
    if hasattr(value, "__array__"):
        return png_bytes(value)
    return value


def _named_file(text: str) -> Path | None:
    if len(text) >= _LONGEST_PATH or "\0" in text or "\n" in text:
        return None
    try:
        return path if (path := Path(text)).is_file() else None
    except OSError:  # a name longer than the file system's names
        return None


def _is_sound(value: Any) -> bool:
    """Samples and their rate: a pair of an array and a number."""
    if not isinstance(value, tuple):
        return False
    pair = cast("Sequence[Any]", value)
    return len(pair) == 2 and hasattr(pair[0], "__array__") and isinstance(pair[1], int)


def _from_pillow(image: Any) -> bytes:
    held = io.BytesIO()
    kept = image
    if image.mode == "I":  # grey of 16 bits, in more
        kept = image.convert("I;16")
    elif image.mode not in ("1", "L", "LA", "I;16", "I;16B", "P", "RGB", "RGBA"):
        kept = image.convert("RGBA" if image.has_transparency_data else "RGB")
    kept.save(held, "PNG")
    return held.getvalue()


def png_bytes(pixels: Any) -> bytes:
    """Pixels of shape (height, width), or with 3 (RGB) or 4 (RGBA) channels last, as a PNG; uint8 or bool."""
    import numpy as np

    from sheaf_client._inputs.arrays import dense

    array = np.asarray(dense(pixels))
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    colours = {(): 0, (3,): 2, (4,): 6}.get(array.shape[2:]) if array.ndim in (2, 3) else None
    if array.dtype != np.uint8 or colours is None or not array.size:
        raise TypeError(
            "an image array has shape (height, width), (height, width, 3) or (height, width, 4) and is of "
            f"uint8; this one is {array.dtype} of shape {array.shape}"
        )
    height, width = array.shape[:2]
    rows = np.ascontiguousarray(array).reshape(height, -1)
    # Each row is led by its filter, 0 for none.
    raw = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, colours, 0, 0, 0)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(raw, 1)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def wav_bytes(samples: Any, rate: int) -> bytes:
    """Samples of shape (frames,) or (frames, channels) as a WAV of 16 bits: floats in -1 … 1, or int16."""
    import numpy as np

    from sheaf_client._inputs.arrays import dense

    array = np.asarray(dense(samples))
    if (
        array.ndim not in (1, 2)
        or array.dtype.kind not in "fi"
        or (array.dtype.kind == "i" and array.dtype != np.int16)
    ):
        raise TypeError(
            "sound has shape (frames,) or (frames, channels) and is of float or int16; "
            f"this one is {array.dtype} of shape {array.shape}"
        )
    if array.dtype.kind == "f":
        array = np.round(np.clip(array, -1, 1) * 32767)
    held = io.BytesIO()
    with wave.open(held, "wb") as sound:
        sound.setnchannels(1 if array.ndim == 1 else array.shape[1])
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(np.ascontiguousarray(array, dtype="<i2").tobytes())
    return held.getvalue()
