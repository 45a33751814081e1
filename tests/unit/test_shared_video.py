"""Clips of frames: what real encoders write comes back in order, upright, in its colours and at its times."""

from __future__ import annotations

import io
import struct
import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from sheaf.backends._shared.video import Clip, VideoLimits, at_equal_steps, read, read_images
from sheaf_client._media import ImageFile
from sheaf_client.errors import InvalidRequestError
from tests.contract.files import encoded
from tests.unit.sounds import tones
from tests.unit.sounds import written as written_sound

PATH = "/video_b64"
ROWS, COLUMNS = np.mgrid[0:48, 0:64]
#: Twenty frames that differ, each with four corners that differ.
FRAMES = np.stack(
    [np.stack([ROWS * 4, COLUMNS * 3, np.full_like(ROWS, place * 10)], -1) for place in range(20)]
).astype(np.uint8)


def written(
    form: str,
    codec: str,
    pixels: str,
    frames: np.ndarray = FRAMES,
    *,
    matrix: str | None = None,
    **options: str,
) -> bytes:
    """The frames as a video of ten a second, starting when the container likes."""
    held = io.BytesIO()
    with av.open(held, "w", format=form) as target:
        stream: Any = target.add_stream(codec, rate=10, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        for place, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = place, Fraction(1, 10)
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return held.getvalue()


def close(clip: Clip, wanted: np.ndarray, mean: float) -> None:
    assert clip.frames.dtype == np.uint8
    assert clip.frames.shape == wanted.shape
    error = np.abs(clip.frames.astype(int) - wanted)
    # The next frame would be off by 10 in one of three colours.
    assert error.mean(axis=(1, 2, 3)).max() <= mean


def fault_of(call: Callable[[], Any]) -> tuple[str, str, str]:
    with pytest.raises(InvalidRequestError) as refused:
        call()
    (fault,) = refused.value.errors
    return fault.code, fault.path, fault.message


FILM = written("mp4", "libx264", "yuv420p", crf="5")


@pytest.mark.parametrize(
    ("form", "codec", "pixels", "mean", "options"),
    [
        ("matroska", "ffv1", "bgr0", 0, {}),
        ("mp4", "libx264", "yuv420p", 2, {"crf": "5"}),
        ("mov", "libx264", "yuv444p", 1, {"crf": "5", "bf": "3"}),
        ("webm", "libvpx-vp9", "yuv420p", 3, {"crf": "5", "b": "0"}),
        ("mpegts", "libx264", "yuv420p", 2, {"crf": "5"}),
    ],
)
def test_all_frames_of_a_file_in_order_and_with_their_times(
    form: str, codec: str, pixels: str, mean: float, options: dict[str, str]
) -> None:
    clip = read(written(form, codec, pixels, **options), PATH)
    close(clip, FRAMES, mean)
    assert clip.places.tolist() == list(range(20))
    assert clip.times is not None
    assert np.abs(clip.times - np.arange(20) / 10).max() < 0.002


@pytest.mark.parametrize("count", [1, 2, 4, 7, 20, 33])
def test_frames_are_taken_at_equal_steps(count: int) -> None:
    clip = read(FILM, PATH, count=count)
    assert len(clip.places) == count
    close(clip, FRAMES[clip.places], 2)
    assert clip.times is not None
    assert np.abs(clip.times - clip.places / 10).max() < 0.002


def test_steps_are_equal_and_reach_both_ends() -> None:
    assert at_equal_steps(9, 3).tolist() == [0, 4, 8]
    assert at_equal_steps(9, 1).tolist() == [4]
    assert at_equal_steps(2, 4).tolist() == [0, 0, 1, 1]
    for total in range(1, 40):
        for count in range(2, 40):
            places = at_equal_steps(total, count)
            assert (places[0], places[-1], len(places)) == (0, total - 1, count)
            assert np.ptp(np.diff(places)) <= 1


#: Of a film's display matrix, row by row, and what is shown of what is stored.
TURNS: dict[tuple[int, int, int, int], Callable[[np.ndarray], np.ndarray]] = {
    (1, 0, 0, 1): lambda stored: stored,
    (0, 1, -1, 0): lambda stored: np.rot90(stored, -1, axes=(1, 2)),
    (-1, 0, 0, -1): lambda stored: np.rot90(stored, 2, axes=(1, 2)),
    (0, -1, 1, 0): lambda stored: np.rot90(stored, 1, axes=(1, 2)),
    (-1, 0, 0, 1): lambda stored: stored[:, :, ::-1],
    (1, 0, 0, -1): lambda stored: stored[:, ::-1],
    (0, 1, 1, 0): lambda stored: stored.swapaxes(1, 2),
    (0, -1, -1, 0): lambda stored: stored.swapaxes(1, 2)[:, ::-1, ::-1],
}


@pytest.mark.parametrize("matrix", sorted(TURNS))
def test_films_of_telephones_are_turned_upright(matrix: tuple[int, int, int, int]) -> None:
    a, b, c, d = (entry << 16 for entry in matrix)
    place = FILM.index(b"tkhd") + 44
    assert struct.unpack_from(">9i", FILM, place) == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    turned = FILM[:place] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + FILM[place + 36 :]
    close(read(turned, PATH, count=3), TURNS[matrix](FRAMES)[[0, 10, 19]], 2)


@pytest.mark.parametrize("matrix", ["bt709", "smpte170m"])
@pytest.mark.parametrize("span", ["limited", "full"])
def test_colours_are_by_the_matrix_and_the_range_that_the_file_states(matrix: str, span: str) -> None:
    """Red by the wrong matrix is off by 10 and more, white by the wrong range by 20."""
    plain = np.stack(
        [np.full((48, 64, 3), c, np.uint8) for c in ((230, 20, 20), (20, 220, 30), (250, 250, 250))]
    )
    held = io.BytesIO()
    with av.open(held, "w", format="mp4") as target:
        stream: Any = target.add_stream("libx264", rate=10, options={"crf": "1"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv444p"
        stream.codec_context.colorspace = {"bt709": 1, "smpte170m": 6}[matrix]
        stream.codec_context.color_range = {"limited": 1, "full": 2}[span]
        for place, picture in enumerate(plain):
            wide = picture.astype(float)
            red, blue = {"bt709": (0.2126, 0.0722), "smpte170m": (0.299, 0.114)}[matrix]
            light = wide @ (red, 1 - red - blue, blue)
            differences = (wide[..., 2] - light) / (2 - 2 * blue), (wide[..., 0] - light) / (2 - 2 * red)
            share, colour, low = (1, 1, 0) if span == "full" else (219 / 255, 224 / 255, 16)
            planes = [light * share + low, *(each * colour + 128 for each in differences)]
            packed = np.rint(np.stack(planes)).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(packed, format="yuv444p")
            frame.colorspace = stream.codec_context.colorspace
            frame.color_range = stream.codec_context.color_range
            frame.pts, frame.time_base = place, Fraction(1, 10)
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    found = read(held.getvalue(), PATH).frames
    assert np.abs(found.astype(int) - plain).max() <= 4


# ---- lists of images


def pictures(*frames: np.ndarray) -> list[ImageFile]:
    return [ImageFile(encoded(Image.fromarray(frame), "PNG")) for frame in frames]


def test_a_list_of_images_is_a_clip_too() -> None:
    files = pictures(*FRAMES)
    clip = read_images(files, "/frames_b64")
    assert np.array_equal(clip.frames, FRAMES)
    assert clip.times is None
    for count in (1, 3, 25):
        clip = read_images(files, "/frames_b64", count=count)
        assert clip.places.tolist() == at_equal_steps(20, count).tolist()
        assert np.array_equal(clip.frames, FRAMES[clip.places])


def test_the_image_that_is_wrong_is_named() -> None:
    files = pictures(*FRAMES[:3], FRAMES[3][:-1])
    code, path, said = fault_of(lambda: read_images(files, "/frames_b64"))
    assert (code, path) == ("mismatch", "/frames_b64/3")
    assert said == "The frame has 64 x 47 pixels, the first 64 x 48."
    files[3] = ImageFile(files[0].bytes[:-20])
    assert fault_of(lambda: read_images(files, "/frames_b64"))[:2] == ("bad_format", "/frames_b64/3")
    small = VideoLimits(pixels=3071)
    assert fault_of(lambda: read_images(files[:3], "/f", limits=small))[:2] == ("too_large_media", "/f/0")
    few = VideoLimits(kept=64 * 48 * 2)
    assert fault_of(lambda: read_images(files[:3], "/f", limits=few))[:2] == ("too_large_media", "/f")
    assert len(read_images(files[:3], "/f", count=2, limits=few).frames) == 2


# ---- hostile files


@pytest.mark.parametrize(
    "limits", [VideoLimits(pixels=64 * 48 - 1), VideoLimits(frames=19), VideoLimits(kept=64 * 48 * 20 - 1)]
)
def test_what_is_over_a_limit_is_refused(limits: VideoLimits) -> None:
    assert fault_of(lambda: read(FILM, PATH, limits=limits))[:2] == ("too_large_media", PATH)


def test_a_large_video_takes_no_memory_before_it_is_refused() -> None:
    """Black is small."""
    black = written("mp4", "libx264", "yuv420p", np.zeros((3, 1600, 2560, 3), np.uint8))
    assert len(black) < 20_000
    tracemalloc.start()
    try:
        limits = VideoLimits(kept=2560 * 1600 * 2)
        assert fault_of(lambda: read(black, PATH, limits=limits))[0] == "too_large_media"
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert read(black, PATH, count=2, limits=limits).frames.shape == (2, 1600, 2560, 3)


def test_what_is_no_video_is_refused_at_its_place() -> None:
    sound = written_sound(tones(16_000, 0.1, 440), 16_000, "ipod", "aac", "fltp")
    assert fault_of(lambda: read(sound, PATH)) == ("bad_format", PATH, "The file holds no video.")
    for other in (
        b"",
        b"#EXTM3U\nfile:///etc/passwd\n",
        encoded(Image.new("RGB", (9, 9)), "PNG"),
        FILM[:200],
    ):
        code, path, said = fault_of(lambda other=other: read(other, PATH))
        assert (code, path) == ("bad_format", PATH)
        assert said.startswith("The video cannot be read: ")


def test_a_file_that_is_cut_off_gives_its_beginning_or_a_refusal() -> None:
    stream = written("mpegts", "libx264", "yuv420p", crf="5")
    film = written("matroska", "libx264", "yuv420p", crf="5")
    for data in (stream, film, FILM):
        for cut in range(500, len(data), len(data) // 9):
            try:
                clip = read(data[:cut], PATH, count=4)
            except InvalidRequestError as error:
                fault = error.errors[0]
                assert (fault.code, fault.path) == ("bad_format", PATH)
            else:
                assert clip.frames.shape == (4, 48, 64, 3)
