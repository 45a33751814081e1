"""The frames of FLAC files: their header may state any length, and is no bound on what is decoded."""

from __future__ import annotations

import re

from sheaf_client._formats.broken import BrokenFileError

#: How a frame begins.
SYNC = re.compile(rb"\xff[\xf8\xf9]")
#: The same with the sizes of its blocks and samples, and its channels, as they may be.
_HEAD = re.compile(rb"\xff(?=[\xf8\xf9][\x10-\xff][\x00-\xaf])")
#: Frames that are looked through: an hour at 192 kHz has 150 000.
_MOST_FRAMES = 200_000
#: Samples of bytes within the sound that look like frames: one in 32 MB does.
_STRAY = 2**19
#: CRC of a byte by the polynomial x^8 + x^2 + x + 1.
_CRC = [0] * 256
for _byte in range(256):
    _rest = _byte
    for _ in range(8):
        _rest = (_rest << 1 ^ (0x07 if _rest & 0x80 else 0)) & 0xFF
    _CRC[_byte] = _rest


def counted(data: bytes, place: int, stated: int) -> int:
    """Samples per channel of the frames from `place` on, where they are more than `stated`; else that.

    Raises:
        BrokenFileError: There are more frames than any sound has.
    """
    samples = 0
    for frames, found in enumerate(_HEAD.finditer(data, place)):
        if frames == _MOST_FRAMES:
            raise BrokenFileError(f"The FLAC file has more than {_MOST_FRAMES} frames.")
        samples += _samples(data[found.start() : found.start() + 16])
    return samples if samples > stated + _STRAY else stated


def _samples(head: bytes) -> int:
    """Samples of the frame that begins so; 0 where it is none."""
    if len(head) < 6:
        return 0
    size, rate = head[2] >> 4, head[2] & 15
    first = head[4]
    # The number of the frame has as many bytes as its first has leading ones, and none has one.
    ones = 8 - (first ^ 0xFF).bit_length()
    place = 4 + (ones or 1)
    size_bytes, rate_bytes = {6: 1, 7: 2}.get(size, 0), {12: 1, 13: 2, 14: 2}.get(rate, 0)
    end = place + size_bytes + rate_bytes
    if ones in (1, 8) or rate == 15 or end >= len(head):
        return 0
    crc = 0
    for byte in head[:end]:
        crc = _CRC[crc ^ byte]
    if crc != head[end]:
        return 0
    if size_bytes:
        return 1 + int.from_bytes(head[place : place + size_bytes], "big")
    return 192 if size == 1 else 576 << size - 2 if size < 6 else 256 << size - 8
