"""The headers of PNG, JPEG and WebP, the formats that the contracts name for images."""

from __future__ import annotations

import struct
from itertools import repeat

from sheaf_client._formats.broken import BrokenFileError, cut_off
from sheaf_client._formats.kinds import kind_of

#: Parts of a header that are looked through; real files have a few, and a thousand when they carry profiles.
_MOST_PARTS = 20_000
#: Bits of a sample that PNG has for each type of colour.
_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}


def image_size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels of a PNG, JPEG or WebP file, as its header states them.

    Raises:
        BrokenFileError: It is another kind of file, ends too early or has no pixels.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        name, read = "PNG", _png
    elif data.startswith(b"\xff\xd8\xff"):
        name, read = "JPEG", _jpeg
    elif data.startswith(b"RIFF") and data.startswith(b"WEBP", 8):
        name, read = "WebP", _webp
    else:
        what, _ = kind_of(data)
        raise BrokenFileError(f"Must be a PNG, JPEG or WebP file{f'; this is {what}' if what else ''}.")
    try:
        width, height = read(data)
    except (struct.error, IndexError):
        raise cut_off(name, "in its header") from None
    if not (width and height):
        raise BrokenFileError(f"The {name} file's header says that it has no pixels.")
    return width, height


def _png(data: bytes) -> tuple[int, int]:
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    if data[8:16] != b"\0\0\0\rIHDR" or depth not in _PNG_DEPTHS.get(colour, ()):
        raise BrokenFileError("The PNG file's header is broken.")
    if max(width, height) >= 2**31:
        raise BrokenFileError(f"The PNG file's header says {width} x {height} pixels, more than can be.")
    place = 33
    for _ in repeat(None, _MOST_PARTS):
        length, kind = struct.unpack_from(">I4s", data, place)
        place += 12 + length
        if kind == b"IEND" or not kind.isalpha():
            break
        if kind == b"IHDR":  # decoders differ in which of two they take
            raise BrokenFileError("The PNG file has two headers.")
        if place > len(data) or (kind == b"IDAT" and data.rfind(b"IEND", place) < 0):
            raise cut_off("PNG", "before its end")
        if kind == b"IDAT":
            return width, height
    raise BrokenFileError("The PNG file has no pixels behind its header.")


def _jpeg(data: bytes) -> tuple[int, int]:
    place, size = 2, None
    for _ in repeat(None, _MOST_PARTS):
        # Decoders pass over what stands between two segments.
        place = data.find(b"\xff", place)
        marker = data[place + 1] if place >= 0 else data[len(data)]
        if marker == 0xFF:  # padding
            place += 1
        elif marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # no length follows
            place += 2
        elif marker == 0xD9:
            break
        elif marker < 0xC0 or marker in (0xC8, 0xDE, 0xDF) or 0xF0 <= marker <= 0xFD:
            # Reserved, or of images within images: some decoders stop there, and some find sizes within.
            raise BrokenFileError("The JPEG file's header is broken.")
        elif marker == 0xDA:
            if size is None:
                break
            if data.rfind(b"\xff\xd9", place) < 0:
                raise cut_off("JPEG", "before its end")
            return size
        else:
            length = struct.unpack_from(">H", data, place + 2)[0]
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xCC):
                if size is not None:  # as above
                    raise BrokenFileError("The JPEG file states its size twice.")
                height, width = struct.unpack_from(">HH", data, place + 5)
                size = width, height
            place += 2 + max(2, length)
    raise BrokenFileError("The JPEG file has no pixels behind its header.")


def _webp(data: bytes) -> tuple[int, int]:
    length = struct.unpack_from("<I", data, 4)[0]
    size = _webp_size(data)
    # The last part may lack the byte that makes its length even.
    if length + 8 > len(data) + 1:
        raise cut_off("WebP", "before its end")
    place = 12
    for _ in repeat(None, _MOST_PARTS):
        kind, length = struct.unpack_from("<4sI", data, place)
        place += 8 + length
        if kind in (b"VP8 ", b"VP8L", b"ANMF"):
            if place > len(data):
                raise cut_off("WebP", "before its end")
            return size
        place += length % 2
    raise BrokenFileError("The WebP file has no pixels behind its header.")


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        width, low, height, high = struct.unpack_from("<HBHB", data, 24)
        return 1 + (width | low << 16), 1 + (height | high << 16)
    if kind == b"VP8L":
        mark, bits = struct.unpack_from("<BI", data, 20)
        if mark == 0x2F:
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif kind == b"VP8 ":
        mark, width, height = struct.unpack_from("<3sHH", data, 23)
        if mark == b"\x9d\x01\x2a":
            return width & 0x3FFF, height & 0x3FFF
    elif len(kind) < 4:
        raise cut_off("WebP", "in its header")
    raise BrokenFileError("The WebP file's header is broken.")
