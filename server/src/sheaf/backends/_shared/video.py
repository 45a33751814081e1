"""Clips of frames: from a video file, or from a request's list of images.

A model looks at a few frames of a clip; those are chosen at equal steps, and no others are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sheaf.backends._shared.files import file_at
from sheaf.backends._shared.refusals import refuse
from sheaf.extras import needs
from sheaf_client.protocol import ImageFile
from sheaf_client.protocol.media import BrokenFileError, opened

#: What video comes in, by FFmpeg's names.
_CONTAINERS = "mov,matroska,avi,mpegts,flv,ogg"


@dataclass(frozen=True)
class VideoLimits:
    """What is decoded of one clip, told before it is.

    Attributes:
        pixels: Most pixels of a frame.
        frames: Most frames of a file: up to the last one that is kept, all are decoded.
        kept: Most pixels of all frames that are kept, three bytes each.
    """

    pixels: int = 2**25
    frames: int = 20_000
    kept: int = 2**28


@dataclass(frozen=True)
class Clip:
    """Frames of a clip, in order of time.

    Attributes:
        frames: uint8 of shape (frames, height, width, 3) in RGB.
        places: Which frames of the clip these are, counted from 0; int64 of shape (frames,).
        times: When each is shown, in seconds from the clip's first frame; float64 of shape (frames,). None
            for a list of images, which have no times.
    """

    frames: npt.NDArray[np.uint8]
    places: npt.NDArray[np.int64]
    times: npt.NDArray[np.float64] | None


def at_equal_steps(total: int, count: int) -> npt.NDArray[np.int64]:
    """Places of `count` of `total` frames at equal steps, int64 of shape (count,).

    The first and the last frame are among them; for one it is the middle. Where there are fewer frames than
    are wanted some come twice.
    """
    if count == 1:
        return np.array([(total - 1) // 2])
    return np.linspace(0, total - 1, count).round().astype(np.int64)


def read_images(
    files: Sequence[ImageFile],
    path: str,
    *,
    count: int | None = None,
    limits: VideoLimits = VideoLimits(),
) -> Clip:
    """A clip of images, all of one size as they are seen.

    Args:
        path: JSON Pointer to the list in the request.
        count: How many frames are taken, at equal steps; all when absent. Others are not decoded.

    Raises:
        InvalidRequestError: A file is no image, broken, too large or of another size than the first; the
            fault is at the file's own place.
    """
    from sheaf.backends._shared.images import pixels_of, size_of

    sizes = [size_of(file, f"{path}/{place}", max_pixels=limits.pixels) for place, file in enumerate(files)]
    width, height = sizes[0]
    for place, size in enumerate(sizes):
        if size != sizes[0]:
            message = f"The frame has {size[0]} x {size[1]} pixels, the first {width} x {height}."
            raise refuse(f"{path}/{place}", message, "mismatch")
    places = np.arange(len(files)) if count is None else at_equal_steps(len(files), count)
    with file_at(path):
        _check_kept(len(places), width, height, limits)
    frames = np.empty((len(places), height, width, 3), np.uint8)
    for row, place in enumerate(places.tolist()):
        if row and place == places[row - 1]:
            frames[row] = frames[row - 1]
        else:
            frames[row] = pixels_of(files[place], f"{path}/{place}", max_pixels=limits.pixels)
    return Clip(frames, places, None)


def read(
    data: bytes,
    path: str,
    *,
    count: int | None = None,
    limits: VideoLimits = VideoLimits(),
) -> Clip:
    """A clip of a video file (MP4, MOV, Matroska, WebM, AVI, MPEG-TS, FLV, Ogg), turned as it is to be shown.

    Colours are made RGB by the matrix and the range that the file states (BT.601 where it states none);
    pixels that are no squares stay as they are.

    Args:
        path: JSON Pointer to the file in the request.
        count: How many frames are taken, at equal steps; all when absent.

    Raises:
        InvalidRequestError: The file is no video, is broken or cut off (`bad_format`), or over the limits
            (`too_large_media`).
        ModuleNotFoundError: PyAV, of the extra `media`, is missing.
    """
    with file_at(path), needs("reading a video", "media"):
        total = _counted(data, limits)
        clip, seen = _decoded(data, count, total, limits)
        if seen != total:
            # A file may have packets that are not shown; then what was shown counts.
            clip, _ = _decoded(data, count, seen, limits)
        return clip


def _open(data: bytes) -> Any:
    return opened(data, "video", _CONTAINERS, "decoding video")


def _stream(container: Any, limits: VideoLimits) -> Any:
    if not container.streams.video:
        raise BrokenFileError("The file holds no video.")
    stream = container.streams.video[0]
    context = stream.codec_context
    if context is None:
        raise BrokenFileError("The video is in a coding that nothing here decodes.")
    _check_pixels(context.width, context.height, limits)
    # One video is decoded by the thread that asks for it; the others have requests of their own.
    context.thread_count = 1
    # The frames themselves may say another size than the file.
    context.options = {"max_pixels": str(limits.pixels)}
    return stream


def _counted(data: bytes, limits: VideoLimits) -> int:
    """Frames in the file, by its packets: none is decoded, and no header believed."""
    frames = 0
    with _open(data) as container:
        for packet in container.demux(_stream(container, limits)):
            frames += bool(packet.size) and not packet.is_discard
            if frames > limits.frames:
                text = f"The video has more than {limits.frames} frames, which are accepted."
                raise BrokenFileError(text, "too_large_media")
    return frames


def _decoded(data: bytes, count: int | None, total: int, limits: VideoLimits) -> tuple[Clip, int]:
    """The clip of a video of so many frames, and how many were seen; they are all where it has others."""
    if not total:
        raise BrokenFileError("The file holds no video.")
    places = np.arange(total) if count is None else at_equal_steps(total, count)
    rows = {place: np.flatnonzero(places == place) for place in np.unique(places).tolist()}
    frames: npt.NDArray[np.uint8] | None = None
    times = np.zeros(len(places))
    seen, first, size = 0, 0.0, (0, 0)
    with _open(data) as container:
        stream = _stream(container, limits)
        step = 1 / float(stream.average_rate or 1)
        for frame in container.decode(stream):
            time = seen * step if frame.time is None else frame.time
            if not seen:
                first, size = time, (frame.width, frame.height)
                _check_pixels(*size, limits)
                _check_kept(len(places), *size, limits)
            if (frame.width, frame.height) != size:
                raise BrokenFileError("The video changes its size.")
            if seen in rows:
                shown = _upright(frame)
                if frames is None:
                    frames = np.empty((len(places), *shown.shape), np.uint8)
                frames[rows[seen]] = shown
                times[rows[seen]] = time - first
            seen += 1
    if frames is None:
        raise BrokenFileError("The file holds no video.")
    return Clip(frames, places, times), seen


def _check_pixels(width: int, height: int, limits: VideoLimits) -> None:
    if width * height > limits.pixels:
        text = f"The video has {width} x {height} pixels; {limits.pixels} are accepted."
        raise BrokenFileError(text, "too_large_media")


def _check_kept(frames: int, width: int, height: int, limits: VideoLimits) -> None:
    if frames * width * height > limits.kept:
        text = (
            f"{frames} frames of {width} x {height} pixels are more than {limits.kept}, which are accepted."
        )
        raise BrokenFileError(text, "too_large_media")


def _upright(frame: Any) -> npt.NDArray[np.uint8]:
    """The pixels as they are to be shown, shape (height, width, 3)."""
    pixels: npt.NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return pixels
    # Where a pixel at (x, y) is shown: (a x + c y, b x + d y), in turns of a quarter.
    a, b, _, c, d = np.frombuffer(bytes(matrix), "<i4")[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
