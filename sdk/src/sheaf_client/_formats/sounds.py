"""The headers of sound files, and of the containers that hold sound.

Any container may come: one that is not known here is for the decoder to read or refuse. What is refused is
what no decoder takes for sound, and a known file whose header says that a part of it is missing. Ogg and
MP3 are streams, which may end anywhere; of them the first page or frame must be there.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat

from sheaf_client._formats.broken import BrokenFileError, cut_off
from sheaf_client._formats.flac import SYNC, counted
from sheaf_client._formats.kinds import kind_of
from sheaf_client._formats.wav import MOST_PARTS, UNKNOWN, wav_header

#: No sound is in fewer bytes: the headers alone are longer.
_SHORTEST = 16


@dataclass(frozen=True)
class SoundSize:
    """What a sound's header states.

    Attributes:
        rate: Frames per second, in Hz.
        frames: Samples per channel.
    """

    rate: int
    frames: int


def sound_size(data: bytes, *, count: bool = False) -> SoundSize | None:
    """Rate and length of a WAV or FLAC file; None for other formats.

    Args:
        count: Whether to count what a header may lie about, which takes a while; else what it states.

    Raises:
        BrokenFileError: It is no sound, or ends too early.
    """
    what, sound = kind_of(data)
    if not sound:
        raise BrokenFileError(f"Must be a sound file, such as WAV, FLAC, MP3 or Ogg; this is {what}.")
    if len(data) < _SHORTEST:
        raise cut_off("sound", f"after {len(data)} bytes")
    start = _tag_end(data)
    for name, mark, place, read in _READERS:
        if data.startswith(mark, start + place):
            try:
                size = read(data, start)
            except (struct.error, IndexError):
                raise cut_off(name, "in its header") from None
            if count and size is not None and read is _flac:
                return SoundSize(size.rate, counted(data, start, size.frames))
            return size
    length = _frame_length(data[start : start + 6])
    if length and start + length > len(data):
        raise cut_off("sound", "in its first frame")
    return None


def _tag_end(data: bytes) -> int:
    """Where the sound begins behind the tags that MP3 files, and some others, begin with."""
    start = 0
    while data.startswith(b"ID3", start):
        if start + 10 > len(data):
            raise cut_off("MP3", "in its tag")
        length = 0
        for byte in data[start + 6 : start + 10]:
            length = length << 7 | byte & 0x7F
        start += 10 + length + (10 if data[start + 5] & 0x10 else 0)
        if start >= len(data):
            raise cut_off("MP3", "in its tag")
    return start


def _wav(data: bytes, start: int) -> SoundSize:
    header = wav_header(data, start)
    return SoundSize(header.rate, header.size // header.frame)


def _flac(data: bytes, start: int) -> SoundSize:
    if data[start + 4] & 0x7F or data[start + 5 : start + 8] != b"\0\0\x22":
        raise BrokenFileError("The FLAC file's header is broken.")
    packed = struct.unpack_from(">Q", data, start + 18)[0]
    size = SoundSize(rate=packed >> 44, frames=packed & (2**36 - 1))
    if not size.rate:
        raise BrokenFileError("The FLAC file's header states no sample rate.")
    place = start + 4
    for _ in repeat(None, MOST_PARTS):
        head = struct.unpack_from(">I", data, place)[0]
        place += 4 + (head & 0xFFFFFF)
        if place > len(data):
            break
        if head >> 31:
            if SYNC.search(data, place) is None:
                raise BrokenFileError("The FLAC file has no sound behind its header.")
            return size
    raise cut_off("FLAC", "in its header")


def _aiff(data: bytes, start: int) -> None:
    _whole("AIFF", data, start + 8, struct.unpack_from(">I", data, start + 4)[0])


def _avi(data: bytes, start: int) -> None:
    _whole("AVI", data, start + 8, struct.unpack_from("<I", data, start + 4)[0])


def _au(data: bytes, start: int) -> None:
    offset, size, _, rate, channels = struct.unpack_from(">IIIII", data, start + 4)
    if not (rate and channels):
        raise BrokenFileError("The AU file's header states no channels or no sample rate.")
    _whole("AU", data, start + offset, size)


def _whole(name: str, data: bytes, place: int, size: int) -> None:
    """Refuse a file whose part of `size` bytes at `place` is longer than what is left."""
    # The last part may lack the byte that makes its length even.
    if 0 < size < UNKNOWN and place + size > len(data) + 1:
        raise cut_off(name, "before its end")


def _ogg(data: bytes, start: int) -> None:
    count = data[start + 26]
    lengths = data[start + 27 : start + 27 + count]
    if len(lengths) < count or start + 27 + count + sum(lengths) > len(data):
        raise cut_off("Ogg", "in its first page")


def _matroska(data: bytes, start: int) -> None:
    length, place = _ebml_number(data, start + 4)
    place += length
    while data[place] == 0xEC:  # a gap
        length, place = _ebml_number(data, place + 1)
        place += length
    if data[place : place + 4] != b"\x18\x53\x80\x67":
        if place + 4 > len(data):
            raise cut_off("Matroska", "in its header")
        raise BrokenFileError("The Matroska file has nothing behind its header.")
    width = 9 - data[place + 4].bit_length()
    length, place = _ebml_number(data, place + 4)
    unknown = length == 2 ** (7 * width) - 1
    if not unknown and place + length > len(data):
        raise cut_off("Matroska", "before its end")


def _ebml_number(data: bytes, place: int) -> tuple[int, int]:
    """A number whose first bits say how long it is, and where it ends."""
    width = 9 - data[place].bit_length()
    if width > 8:
        raise BrokenFileError("The Matroska file's header is broken.")
    if place + width > len(data):
        raise IndexError
    number = int.from_bytes(data[place : place + width], "big")
    return number - (1 << 7 * width), place + width


#: The parts that stand beside each other in MP4 files.
_MP4_PARTS = b"ftyp styp moov mdat moof mfra free skip wide meta uuid sidx ssix emsg prft pdin udta".split()


def _mp4(data: bytes, start: int) -> None:
    place, described = start, False
    for _ in repeat(None, MOST_PARTS):
        size, name = struct.unpack_from(">I4s", data, place)
        least = 8
        if size == 1:
            size, least = struct.unpack_from(">Q", data, place + 8)[0], 16
        described = described or name == b"moov"
        if size == 0:  # to the end
            break
        if size < least or (described and name not in _MP4_PARTS):
            break  # what others wrote behind the last part
        place += size
        if place > len(data):
            raise cut_off("MP4", "before its end")
        if place + 8 > len(data):
            break
    if not described:
        raise BrokenFileError("The MP4 file lacks the part that says what is in it; it may be cut off.")


#: Of MPEG sound: kbit/s by version (1, then 2 and 2.5), layer and number; Hz by version.
_RATES = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_HERTZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def _frame_length(head: bytes) -> int:
    """Bytes of the frame of MP3 or AAC that begins so; 0 where none does, or where it does not say."""
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return 0
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    if layer == 4:  # AAC in ADTS, which has twelve bits of ones
        return (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5 if head[1] & 0xF0 == 0xF0 else 0
    number, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or rate == 3 or not 0 < number < 15:
        return 0
    first = 1 if version == 3 else 2
    bits = 1000 * _RATES[first, layer if first == 1 else min(layer, 2)][number - 1]
    hertz = _HERTZ[version][rate]
    if layer == 1:
        return (12 * bits // hertz + padding) * 4
    return (72 if first == 2 and layer == 3 else 144) * bits // hertz + padding


#: The name of a format, its mark, where that stands, and what reads the header.
_READERS: tuple[tuple[str, bytes, int, Callable[[bytes, int], SoundSize | None]], ...] = (
    ("WAV", b"WAVE", 8, _wav),
    ("FLAC", b"fLaC", 0, _flac),
    ("Ogg", b"OggS", 0, _ogg),
    ("Matroska", b"\x1a\x45\xdf\xa3", 0, _matroska),
    ("MP4", b"ftyp", 4, _mp4),
    ("AIFF", b"AIF", 8, _aiff),
    ("AVI", b"AVI ", 8, _avi),
    ("AU", b".snd", 0, _au),
)
