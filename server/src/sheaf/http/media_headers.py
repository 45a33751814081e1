"""Sizes that image and sound files state in their headers, read without decoding them.

A few kilobytes can ask a decoder for gigabytes; these readers tell before. They know the formats that
decoders are commonly built with, and say nothing of others.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass


@dataclass(frozen=True)
class SoundSize:
    """What a sound's header states.

    Attributes:
        rate: Frames per second, in Hz.
        frames: Samples per channel, by the bytes that are there where the header says more.
        missing: Bytes that the header states and the file lacks.
    """

    rate: int
    frames: int
    missing: int = 0


def image_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels of a PNG, JPEG, GIF, WebP, BMP, TIFF, JPEG 2000 or AVIF file.

    None where the format is another one or the header is broken.
    """
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return struct.unpack_from(">II", data, 16)
        if data.startswith(b"\xff\xd8"):
            return _jpeg(data)
        if data.startswith((b"GIF87a", b"GIF89a")):
            return _gif(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp(data)
        if data.startswith(b"BM"):
            return _bmp(data)
        if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return _tiff(data)
        if data.startswith(b"\xff\x4f\xff\x51"):
            return _jpeg2000(data, 0)
        if data[4:8] == b"jP  " and (start := data.find(b"\xff\x4f\xff\x51")) >= 0:
            return _jpeg2000(data, start)
        if data[4:8] == b"ftyp":
            return _isobmff(data)
    except (struct.error, IndexError):
        return None
    return None


def sound_size(data: bytes) -> SoundSize | None:
    """Rate and length of a WAV or FLAC file; None where it is another format or the header is broken."""
    try:
        if data[:4] in (b"RIFF", b"RF64") and data[8:12] == b"WAVE":
            return _wav(data)
        if data.startswith(b"fLaC"):
            packed = int.from_bytes(data[18:26], "big")
            return SoundSize(rate=packed >> 44, frames=packed & (2**36 - 1))
    except (struct.error, IndexError):
        return None
    return None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    place = 2
    while place < len(data):
        if data[place] != 0xFF:
            return None
        marker = data[place + 1]
        if marker == 0xFF:  # padding
            place += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # no length follows
            place += 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, place + 5)
            return width, height
        elif marker in (0xD9, 0xDA):
            return None
        else:
            place += 2 + struct.unpack_from(">H", data, place + 2)[0]
    return None


def _gif(data: bytes) -> tuple[int, int]:
    """The screen, or the first frame where that is larger."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    place = 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
    while data[place] == 0x21:  # extensions: blocks, each after its length
        place += 2
        while data[place]:
            place += 1 + data[place]
        place += 1
    if data[place] == 0x2C:
        frame = struct.unpack_from("<HHHH", data, place + 1)
        return max(width, frame[0] + frame[2]), max(height, frame[1] + frame[3])
    return width, height


def _webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _bmp(data: bytes) -> tuple[int, int]:
    if struct.unpack_from("<I", data, 14)[0] == 12:
        return struct.unpack_from("<HH", data, 18)
    width, height = struct.unpack_from("<ii", data, 18)
    return abs(width), abs(height)


def _tiff(data: bytes) -> tuple[int, int] | None:
    """The largest of the first pages."""
    order = "<" if data.startswith(b"II") else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    offset, count_form, entry, next_form = (
        (struct.unpack_from(order + "Q", data, 8)[0], "Q", 20, "Q")
        if big
        else (struct.unpack_from(order + "I", data, 4)[0], "H", 12, "I")
    )
    largest: tuple[int, int] | None = None
    for _ in range(64):
        if not offset:
            break
        count = min(struct.unpack_from(order + count_form, data, offset)[0], 4096)
        first = offset + struct.calcsize(count_form)
        sizes = {256: 0, 257: 0}
        for place in range(first, first + count * entry, entry):
            tag, kind = struct.unpack_from(order + "HH", data, place)
            if tag in sizes:
                form = {3: "H", 4: "I", 16: "Q"}.get(kind, "I")
                sizes[tag] = struct.unpack_from(order + form, data, place + (12 if big else 8))[0]
        if largest is None or sizes[256] * sizes[257] > largest[0] * largest[1]:
            largest = (sizes[256], sizes[257])
        end = first + count * entry
        offset = struct.unpack_from(order + next_form, data, end)[0] if end < len(data) else 0
    return largest


def _jpeg2000(data: bytes, start: int) -> tuple[int, int]:
    right, bottom, left, top = struct.unpack_from(">IIII", data, start + 8)
    return right - left, bottom - top


def _isobmff(data: bytes) -> tuple[int, int] | None:
    """AVIF and HEIF state the size of each part in an `ispe` box; the largest counts."""
    largest, place = (0, 0), -1
    while (place := data.find(b"ispe", place + 1, 2**16)) >= 0:
        size = struct.unpack_from(">II", data, place + 8)
        largest = max(largest, size, key=lambda wh: wh[0] * wh[1])
    return largest if largest != (0, 0) else None


#: Sizes from here on say that the writer did not know: it wrote into a pipe.
_UNKNOWN = 0x7FFF0000


def _wav(data: bytes) -> SoundSize | None:
    place, rate, frame = 12, 0, 0
    while place + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, place)
        if name == b"fmt ":
            channels, rate = struct.unpack_from("<HI", data, place + 10)
            bits = struct.unpack_from("<H", data, place + 22)[0]
            # Of packed formats the header says no bits; a byte is the least a frame can be taken for.
            frame = max(1, channels * bits // 8)
        elif name == b"data":
            there = len(data) - place - 8
            missing = max(0, size - there) if size < _UNKNOWN else 0
            return SoundSize(rate, min(size, there) // frame if frame else 0, missing)
        place += 8 + size + size % 2
    return None
