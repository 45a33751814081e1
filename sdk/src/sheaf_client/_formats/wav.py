"""The header of WAV files: what their samples are, and where they stand."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import repeat

from sheaf_client._formats.broken import BrokenFileError, cut_off

#: Parts of a file that are looked through; recordings in fragments have many.
MOST_PARTS = 20_000
#: Lengths of 32 bits from here on say that the writer did not know: it wrote into a pipe.
UNKNOWN = 0x7F000000
#: A format that names another one behind it.
_EXTENSIBLE = 0xFFFE
_FORMAT = struct.Struct("<HHIIHH")


@dataclass(frozen=True)
class WavHeader:
    """What a WAV file's header says of its samples.

    Attributes:
        coding: The format's number: 1 is integers, 3 floats, others are packed.
        channels: Samples of a frame, at least 1.
        rate: Frames per second, in Hz, at least 1.
        bits: Of a sample; 0 where a packed format does not say.
        frame: Bytes of a frame, by its samples; at least 1.
        align: The same as the header states it.
        start: Where the samples begin.
        size: Bytes of samples that are there.
    """

    coding: int
    channels: int
    rate: int
    bits: int
    frame: int
    align: int
    start: int
    size: int


def wav_header(data: bytes, start: int = 0) -> WavHeader:
    """The header of the WAV file that begins at `start`.

    Raises:
        BrokenFileError: The file has no sound, or not all that it says.
        struct.error: It ends within the header.
    """
    place = start + 12
    form: tuple[int, int, int, int, int] | None = None
    for _ in repeat(None, MOST_PARTS):
        name, size = struct.unpack_from("<4sI", data, place)
        if name == b"fmt ":
            coding, channels, rate, _, align, bits = _FORMAT.unpack_from(data, place + 8)
            if not (channels and rate):
                raise BrokenFileError("The WAV file's header states no channels or no sample rate.")
            if coding == _EXTENSIBLE and size >= 26:
                coding = struct.unpack_from("<H", data, place + 32)[0]
            form = coding, channels, rate, bits, align
        elif name == b"data":
            there = len(data) - place - 8
            if form is None:
                break
            coding, channels, rate, bits, align = form
            # Of packed formats the header says no bits; a byte is the least a frame can be taken for.
            frame = max(1, channels * bits // 8)
            if size == 0 or size >= UNKNOWN:
                size = there
            if size > there:
                raise cut_off("WAV", f"{size - there} bytes before its end")
            if size < frame:
                break
            return WavHeader(coding, channels, rate, bits, frame, align, place + 8, size)
        place += 8 + size + size % 2
    raise BrokenFileError("The WAV file has no sound behind its header.")
