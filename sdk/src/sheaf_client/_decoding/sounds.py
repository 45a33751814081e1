"""Decodes sound files into float32 samples in -1 … 1, block by block: WAV by itself, all others by FFmpeg.

Integers are divided by the lowest that their width has, so that -1 is exact and 1 is never quite reached.
Floats beyond -1 … 1 are clipped, as when they are played. Lengths in headers are not believed: samples are
counted as they are decoded, and none is decoded past the limit.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from sheaf_client._decoding.ffmpeg import opened
from sheaf_client._formats import BrokenFileError, sound_size
from sheaf_client._formats.broken import cut_off
from sheaf_client._formats.wav import WavHeader, wav_header

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from numpy.typing import NDArray

#: Frames of a block of WAV.
_BLOCK = 2**16
_INTEGERS, _FLOATS = 1, 3
#: What sound comes in, by FFmpeg's names.
_CONTAINERS = "wav,w64,flac,mp3,ogg,mov,matroska,aac,aiff,au,caf,amr,ac3,eac3,avi"
#: Of these a packet that is broken is passed over: tags stand among the sound and look like it.
_STREAMS = frozenset({"mp3", "aac"})
#: What the samples of FFmpeg's formats are divided by, by their types.
_SCALES = {"int16": 2.0**15, "int32": 2.0**31}


@dataclass(frozen=True)
class SoundLimits:
    """What is decoded of one sound.

    Attributes:
        seconds: Longest sound.
        rate: Most frames in a second, in Hz.
        channels: Most samples of a frame.
        samples: Most samples of all channels together, which bounds time and memory: four bytes each.
    """

    seconds: float = 3600.0
    rate: int = 768_000
    channels: int = 64
    samples: int = 2**29

    def check(self, rate: int, channels: int, frames: int, samples: int) -> None:
        """Raise `BrokenFileError` for a sound of so many frames, and samples of all channels, and more."""
        if not 0 < rate <= self.rate:
            text = f"The sound's sample rate must be 1 to {self.rate} Hz; it is {rate}."
            raise BrokenFileError(text, "out_of_range")
        if not 0 < channels <= self.channels:
            text = f"The sound must have 1 to {self.channels} channels; it has {channels}."
            raise BrokenFileError(text, "out_of_range")
        if frames > self.seconds * rate:
            text = f"The sound lasts more than {self.seconds:g} s, which are accepted."
            raise BrokenFileError(text, "too_large_media")
        if samples > self.samples:
            text = f"The sound has more than {self.samples} samples in all channels, which are accepted."
            raise BrokenFileError(text, "too_large_media")


@dataclass(frozen=True)
class Sound:
    """A sound that is being decoded.

    Attributes:
        rate: Frames per second, in Hz.
        blocks: float32 of shape (channels, frames), -1 … 1; of streams the channels may change between two.
            Raises `BrokenFileError` where the file turns out to be broken or over the limits.
    """

    rate: int
    blocks: Iterator[NDArray[np.float32]]


def open_sound(data: bytes, limits: SoundLimits = SoundLimits()) -> Sound:
    """Begin to decode a sound.

    Raises:
        BrokenFileError: The file is no sound, is broken or cut off, or over the limits.
        ModuleNotFoundError: It is no WAV of integers or floats, and the library that reads it is missing.
    """
    stated = sound_size(data)
    header = _plain_wav(data)
    if header is not None:
        frames = header.size // header.frame
        limits.check(header.rate, header.channels, frames, frames * header.channels)
        return Sound(header.rate, _finite(_wav_blocks(data, header)))
    decoded = _decoded(data, limits, stated.frames if stated and data.startswith(b"fLaC") else 0)
    rate, first = next(decoded)
    return Sound(rate, _finite(chain([first], (block for _, block in decoded))))


def decode_sound(
    data: bytes,
    limits: SoundLimits = SoundLimits(),
) -> tuple[NDArray[np.float32], int]:
    """The samples, float32 in -1 … 1 of shape (channels, frames), and the rate; errors as of `open_sound`."""
    sound = open_sound(data, limits)
    return np.concatenate(list(of_one_width(sound.blocks)), axis=1), sound.rate


def of_one_width(blocks: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """The blocks; raises `BrokenFileError` where one has other channels than the first."""
    channels = 0
    for block in blocks:
        channels = channels or len(block)
        if len(block) != channels:
            raise BrokenFileError(f"The sound changes from {channels} channels to {len(block)}.")
        yield block


def _finite(blocks: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    for block in blocks:
        if not np.isfinite(block).all():
            raise BrokenFileError("The sound has samples that are no numbers.", "not_finite")
        yield np.clip(block, -1, 1, out=block)


# ---- WAV


def _plain_wav(data: bytes) -> WavHeader | None:
    """The header of a WAV file of integers or floats; None for what a decoder must read."""
    if not (data.startswith(b"RIFF") and data.startswith(b"WAVE", 8)):
        return None
    try:
        header = wav_header(data)
    except struct.error:
        raise cut_off("WAV", "in its header") from None
    # Some writers pad their samples, which their frames tell.
    plain = (header.coding, header.bits) in _WIDTHS and header.align == header.frame
    return header if plain else None


def _wav_blocks(data: bytes, header: WavHeader) -> Iterator[NDArray[np.float32]]:
    read = _WIDTHS[header.coding, header.bits]
    step = _BLOCK * header.frame
    end = header.start + header.size // header.frame * header.frame
    for place in range(header.start, end, step):
        samples = read(data[place : min(place + step, end)])
        yield np.ascontiguousarray(samples.reshape(-1, header.channels).T)


def _numbers(dtype: str, scale: float) -> Callable[[bytes], NDArray[np.float32]]:
    return lambda raw: (np.frombuffer(raw, dtype) / np.float64(scale)).astype(np.float32)


def _bytes(raw: bytes) -> NDArray[np.float32]:
    return (np.frombuffer(raw, np.uint8).astype(np.float32) - np.float32(128)) / np.float32(128)


def _three_bytes(raw: bytes) -> NDArray[np.float32]:
    wide = np.zeros((len(raw) // 3, 4), np.uint8)
    wide[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
    return _numbers("<i4", 2.0**31)(wide.tobytes())


#: What reads samples of a coding, by that and their bits.
_WIDTHS: dict[tuple[int, int], Callable[[bytes], NDArray[np.float32]]] = {
    (_INTEGERS, 8): _bytes,
    (_INTEGERS, 16): _numbers("<i2", 2.0**15),
    (_INTEGERS, 24): _three_bytes,
    (_INTEGERS, 32): _numbers("<i4", 2.0**31),
    (_FLOATS, 32): _numbers("<f4", 1.0),
    (_FLOATS, 64): _numbers("<f8", 1.0),
}


# ---- everything else


def _decoded(data: bytes, limits: SoundLimits, stated: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The rate and the samples of each block; fewer than `stated` frames are a file that is cut off."""
    with opened(data, "sound", _CONTAINERS, "decoding sound other than plain WAV") as container:
        if not container.streams.audio:
            raise BrokenFileError("The file holds no sound.")
        stream = container.streams.audio[0]
        if stream.codec_context is None:  # pyright: ignore[reportUnnecessaryComparison] - untold in its types
            raise BrokenFileError("The sound is in a coding that nothing here decodes.")
        # One sound is decoded by the thread that asks for it; the others have requests of their own.
        stream.codec_context.thread_count = 1
        rate, frames, samples = 0, 0, 0
        for frame in _frames(container, stream):
            block = _samples(frame)
            if not block.size:
                continue
            rate = rate or frame.sample_rate
            if frame.sample_rate != rate:
                raise BrokenFileError("The sound changes its sample rate.")
            frames += block.shape[1]
            samples += block.size
            limits.check(rate, len(block), frames, samples)
            yield rate, block
        if frames < stated:
            raise cut_off("FLAC", f"{stated - frames} samples before its end")
        if not frames:
            raise BrokenFileError("The file holds no sound.")


def _frames(container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
    from av.error import InvalidDataError

    passes_over = not _STREAMS.isdisjoint(container.format.name.split(","))
    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except InvalidDataError:
            if not passes_over:
                raise


def _samples(frame: AudioFrame) -> NDArray[np.float32]:
    """A frame of FFmpeg's as float32 of shape (channels, frames)."""
    array: NDArray[Any] = frame.to_ndarray()
    if not frame.format.is_planar:
        array = array.reshape(frame.samples, -1).T
    if array.dtype == np.uint8:
        return (array.astype(np.float32) - np.float32(128)) / np.float32(128)
    scaled: NDArray[np.float64] = np.divide(array, _SCALES.get(array.dtype.name, 1.0), dtype=np.float64)
    return scaled.astype(np.float32)
