"""Sound files by FFmpeg's encoders, of samples that are known."""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def written(
    samples: np.ndarray, rate: int, form: str, codec: str, sample_format: str, **options: str
) -> bytes:
    """Samples of shape (channels, frames), in the type of FFmpeg's `sample_format`, as a file."""
    held, layout = io.BytesIO(), LAYOUTS[len(samples)]
    with av.open(held, "w", format=form) as target:
        stream: Any = target.add_stream(codec, rate=rate, layout=layout, options=options)
        stream.format = sample_format
        stream.bit_rate = 192_000
        stream.codec_context.open()
        planar = stream.format.is_planar
        step = stream.frame_size or 4096
        for place in range(0, samples.shape[1], step):
            piece = samples[:, place : place + step]
            packed = piece if planar else piece.T.reshape(1, -1)
            frame: Any = av.AudioFrame.from_ndarray(np.ascontiguousarray(packed), sample_format, layout)
            frame.sample_rate, frame.pts = rate, place
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return held.getvalue()


def tones(rate: int, seconds: float, *hertz: float, level: float = 0.5) -> np.ndarray:
    """A tone for each channel, each softer than the one before; float32 of shape (channels, frames)."""
    time = np.arange(round(rate * seconds)) / rate
    rows = [level / (1 + place) * np.sin(2 * np.pi * each * time) for place, each in enumerate(hertz)]
    return np.stack(rows).astype(np.float32)
