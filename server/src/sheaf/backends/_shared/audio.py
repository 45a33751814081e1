"""Sounds in and out: what a request's sound files hold, as a model wants it, and files of samples.

A sound is decoded, mixed and resampled block by block, so that an hour of it takes the memory of what a model
asked for and not of what was recorded. The decoding is that of the client's `AudioFile.to_numpy()`.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sheaf.backends._shared.files import file_at
from sheaf.extras import needs
from sheaf_client.protocol import AudioFile
from sheaf_client.protocol.media import SoundLimits, of_one_width, open_sound, wav_bytes

__all__ = ["SoundLimits", "encoded", "read", "resample"]

#: Frames that are resampled at a time.
_BLOCK = 2**16


def read(
    file: AudioFile,
    path: str,
    *,
    rate: int | None = None,
    mono: bool = True,
    limits: SoundLimits = SoundLimits(),  # noqa: B008 - it is frozen
) -> tuple[npt.NDArray[np.float32], int]:
    """The samples of a sound file and their rate in Hz.

    Args:
        path: JSON Pointer to the file in the request.
        rate: Rate in Hz that the samples are brought to; their own when absent.
        mono: Whether the channels are averaged.
        limits: Most that is decoded, counted as it is: headers are not believed.

    Returns:
        float32 in -1 … 1 of shape (samples,), or (channels, samples) for `mono=False`, and the rate. A sound
        that is resampled may pass 1 by a little between the samples that it had.

    Raises:
        InvalidRequestError: The file is no sound, is broken or cut off (`bad_format`), or over the limits
            (`too_large_media`, `out_of_range`).
        ModuleNotFoundError: The file is no plain WAV, or is to be resampled, and the library that does it, of
            the extra `media`, is missing.
    """
    with file_at(path), needs("reading this sound", "media"):
        sound = open_sound(file.bytes, limits)
        blocks: Iterator[npt.NDArray[np.float32]]
        blocks = map(_mixed, sound.blocks) if mono else of_one_width(sound.blocks)
        if rate is not None and rate != sound.rate:
            blocks = _resampled(blocks, sound.rate, rate)
        samples = np.concatenate(list(blocks), axis=1)
    return (samples[0] if mono else samples), rate or sound.rate


def resample(samples: npt.NDArray[np.float32], rate: int, to: int) -> npt.NDArray[np.float32]:
    """Samples at another rate in Hz, through a filter that lets nothing above the new Nyquist frequency pass.

    Args:
        samples: float32 of shape (samples,) or (channels, samples).
        rate: Their rate.
        to: The new one.
    """
    if rate == to:
        return samples
    rows = np.atleast_2d(samples).astype(np.float32, copy=False)
    pieces = (rows[:, place : place + _BLOCK] for place in range(0, rows.shape[1], _BLOCK))
    found = np.concatenate([rows[:, :0], *_resampled(pieces, rate, to)], axis=1)
    return found if samples.ndim > 1 else found[0]


def encoded(
    samples: npt.NDArray[np.floating[Any]],
    rate: int,
    format: Literal["wav", "flac"] = "wav",  # noqa: A002 - as the contracts call it
) -> AudioFile:
    """Samples as a file of 16 bits.

    Args:
        samples: Floats of shape (samples,) or (channels, samples); beyond -1 … 1 they are clipped.
        rate: Their rate in Hz.
        format: `wav`, or `flac`, which is half as large and loses nothing, and needs the extra `media`.

    Raises:
        ValueError: A model gave samples that are not finite, or none.
    """
    if not samples.size or not np.isfinite(samples).all():
        raise ValueError(
            "the model gave samples that are no numbers, or none; try a dtype with a wider range"
        )
    # What decoding undoes to the bit.
    levels = np.rint(samples.T.astype(np.float64) * 2**15).clip(-(2**15), 2**15 - 1).astype(np.int16)
    wav = wav_bytes(levels, rate)
    return AudioFile(wav if format == "wav" else _flac(wav))


def _mixed(block: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return (
        block if len(block) == 1 else block.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
    )


def _resampled(
    blocks: Iterable[npt.NDArray[np.float32]], rate: int, to: int
) -> Iterator[npt.NDArray[np.float32]]:
    with needs("resampling sound", "media"):
        import soxr  # type: ignore[import-untyped]
    stream: Any = None
    channels = 0
    for block in blocks:
        if stream is None:
            channels = len(block)
            stream = soxr.ResampleStream(rate, to, channels, dtype="float32", quality="HQ")
        yield stream.resample_chunk(np.ascontiguousarray(block.T)).T
    if stream is not None:
        # What is still in the filter.
        yield stream.resample_chunk(np.zeros((0, channels), np.float32), last=True).T


def _flac(wav: bytes) -> bytes:
    with needs("writing FLAC", "media"):
        import av
    held = io.BytesIO()
    with av.open(io.BytesIO(wav), "r", format="wav") as source, av.open(held, "w", format="flac") as target:
        sound = source.streams.audio[0]
        writing: Any = target
        stream = writing.add_stream("flac", rate=sound.rate, layout=sound.layout.name)
        for frame in source.decode(sound):
            writing.mux(stream.encode(frame))
        writing.mux(stream.encode(None))
    return held.getvalue()
