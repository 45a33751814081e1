"""Encoded files in the contracts (PNG, JPEG, WAV …): small values that convert, save and show themselves."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import GetCoreSchemaHandler, SerializationInfo, ValidationInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from sheaf_client._binary_fields import read_bytes
from sheaf_client._context import WIRE
from sheaf_client._formats import BrokenFileError, image_size, sound_size

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image as PILImage


class Media:
    """The bytes of an encoded file, as they came or as they go."""

    __slots__ = ("bytes",)

    def __init__(self, data: bytes) -> None:
        self.bytes = data

    @classmethod
    def from_base64(cls, text: str) -> Self:
        """The file in base64 text."""
        return cls(base64.b64decode(text, validate=True))

    @property
    def base64(self) -> str:
        """The file as base64 text, as JSON carries it."""
        return base64.b64encode(self.bytes).decode("ascii")

    def save(self, path: str | Path) -> Path:
        """Write the file as it is and return its path."""
        target = Path(path)
        target.write_bytes(self.bytes)
        return target

    def __len__(self) -> int:
        return len(self.bytes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Media) and self.bytes == other.bytes

    def __hash__(self) -> int:
        return hash(self.bytes)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.bytes)} bytes)"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            cls._read,
            serialization=core_schema.plain_serializer_function_ser_schema(cls._write, info_arg=True),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, *_: Any) -> dict[str, Any]:
        return {"type": "string", "contentEncoding": "base64"}

    @classmethod
    def _read(cls, value: Any, info: ValidationInfo) -> Media:
        if isinstance(value, Media):
            data = value.bytes
        elif isinstance(value, str | bytes | bytearray | memoryview):
            data = read_bytes(value, info.context)
        else:
            raise PydanticCustomError("wrong_type", "Must be the bytes of an encoded file or base64 text.")
        if not len(data):
            raise PydanticCustomError("too_short", "Must not be empty.")
        try:
            cls._look(data)
        except BrokenFileError as error:
            raise PydanticCustomError("bad_format", "{reason}", {"reason": str(error)}) from None
        return cls(data)

    @staticmethod
    def _look(data: bytes) -> object:
        """Look at the file's header; `BrokenFileError` where it is none that the field takes."""
        return data

    @staticmethod
    def _write(value: Media, info: SerializationInfo) -> Any:
        if info.mode == "json":
            return value.base64
        return value.bytes if info.context and info.context.get(WIRE) else value


class ImageFile(Media):
    """An encoded image."""

    __slots__ = ()

    @staticmethod
    def _look(data: bytes) -> object:
        return image_size(data)

    def to_pil(self) -> PILImage:
        """The image as Pillow's own, upright (EXIF), else as in its file: alpha, palette and depth are kept.

        Raises:
            ModuleNotFoundError: Pillow is not installed.
            ValueError: The file is broken, or has more than 179 million pixels.
        """
        from sheaf_client._decoding.images import open_upright

        return open_upright(self.bytes)

    def to_numpy(self) -> NDArray[np.uint8]:
        """The image as it is seen, uint8 of shape (height, width, 3) in RGB; grey ones, too.

        It is upright (EXIF), on white where it is transparent, 16 bits are scaled to eight, and of an
        animation it is the first picture: what a server's models see of the file, too.

        Raises:
            ModuleNotFoundError: Pillow is not installed.
            ValueError: The file is broken or cut off, or has more than 179 million pixels.
        """
        from sheaf_client._decoding.images import decode_pixels

        return decode_pixels(self.bytes)

    def _repr_png_(self) -> bytes | None:
        return self.bytes if self.bytes.startswith(b"\x89PNG") else None

    def _repr_jpeg_(self) -> bytes | None:
        return self.bytes if self.bytes.startswith(b"\xff\xd8") else None


class AudioFile(Media):
    """An encoded sound."""

    __slots__ = ()

    @staticmethod
    def _look(data: bytes) -> object:
        return sound_size(data)

    def to_numpy(self) -> tuple[NDArray[np.float32], int]:
        """The samples, float32 in -1 … 1 of shape (frames,) or (frames, channels), and the rate in Hz.

        WAV of integers and floats of every width needs no other library; packed WAV, FLAC, MP3, Ogg, M4A and
        others need PyAV, of the extra `media`. Full scale is 1: 16 bits are divided by 32768.

        Raises:
            ModuleNotFoundError: The file is no plain WAV, and PyAV is not installed.
            ValueError: The file is broken or cut off, or lasts more than an hour.
        """
        from sheaf_client._decoding.sounds import decode_sound

        samples, rate = decode_sound(self.bytes)
        return (samples.T if len(samples) > 1 else samples[0]), rate

    def _repr_html_(self) -> str:
        return f'<audio controls src="data:audio/wav;base64,{self.base64}"></audio>'
