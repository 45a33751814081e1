"""What is told of image and sound files by their headers: whole, cut off, broken, or another kind of file."""

from __future__ import annotations

import io
import random
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sheaf_client._formats import BrokenFileError, SoundSize, image_size, sound_size
from tests.contract.files import LOOKS, accepted, encoded, fault_of, others, wav, whole

WHOLE = list(whole())
OTHERS = list(others())


@pytest.mark.parametrize(
    ("kind", "data", "lengths"), [entry[1:] for entry in WHOLE], ids=[entry[0] for entry in WHOLE]
)
def test_a_file_passes_whole_and_its_beginnings_as_recorded(
    kind: str, data: bytes, lengths: list[list[int]]
) -> None:
    assert fault_of(kind, data) is None
    assert accepted(kind, data) == lengths
    assert fault_of(kind, data + b"what others wrote behind it" * 9) is None


@pytest.mark.parametrize(("data", "said"), [o[1:] for o in OTHERS], ids=[o[0] for o in OTHERS])
def test_what_is_no_file_of_the_field_is_called_by_its_name(data: bytes, said: dict[str, str | None]) -> None:
    assert {kind: fault_of(kind, data) for kind in LOOKS} == said


@pytest.mark.parametrize(
    "data", [data for name, _, data, _ in WHOLE if name.endswith(("png", "jpg", "webp"))]
)
def test_no_image_that_pillow_reads_is_refused(data: bytes) -> None:
    """Cut anywhere; of a PNG the last mark may be missing to Pillow, not here."""
    for length in range(1, len(data) + 1):
        cut = data[:length]
        try:
            with Image.open(io.BytesIO(cut)) as image:
                image.load()
        except (OSError, SyntaxError, ValueError):
            continue
        if b"IEND" in cut or not cut.startswith(b"\x89PNG"):
            assert image_size(cut) == image.size


SIDES = st.integers(1, 40)
#: The modes that each format takes.
MODES = {
    "PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "JPEG": ["1", "L", "RGB", "CMYK", "YCbCr"],
    "WEBP": ["L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LA"],
}
OPTIONS: dict[str, Any] = {
    "PNG": st.fixed_dictionaries(
        {},
        optional={
            "optimize": st.booleans(),
            "compress_level": st.integers(0, 9),
            "dpi": st.just((300, 300)),
            "icc_profile": st.binary(min_size=1, max_size=2000),
            "exif": st.just(b"Exif\0\0MM\0*\0\0\0\x08\0\0"),
        },
    ),
    "JPEG": st.fixed_dictionaries(
        {},
        optional={
            "quality": st.integers(1, 100),
            "progressive": st.booleans(),
            "optimize": st.booleans(),
            "subsampling": st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
            "restart_marker_blocks": st.integers(1, 5),
            "comment": st.binary(max_size=300),
            "dpi": st.just((300, 300)),
            "exif": st.binary(max_size=300).map(lambda rest: b"Exif\0\0" + rest),
            "icc_profile": st.binary(min_size=1, max_size=70_000),
            "keep_rgb": st.booleans(),
        },
    ),
    "WEBP": st.fixed_dictionaries(
        {},
        optional={
            "lossless": st.booleans(),
            "quality": st.integers(0, 100),
            "method": st.integers(0, 4),
            "exact": st.booleans(),
            "icc_profile": st.binary(min_size=1, max_size=301),
            "xmp": st.binary(min_size=1, max_size=301),
            "save_all": st.booleans(),
        },
    ),
}


@st.composite
def pictures(draw: st.DrawFn) -> tuple[bytes, tuple[int, int]]:
    """What Pillow writes, and its width and height."""
    form = draw(st.sampled_from(sorted(MODES)))
    size = draw(SIDES), draw(SIDES)
    mode = draw(st.sampled_from(MODES[form]))
    image = Image.new(mode, size)
    noise = draw(st.integers(0, 2**32))
    image.frombytes(random.Random(noise).randbytes(len(image.tobytes())))
    options = draw(OPTIONS[form])
    if mode != "RGB" or "subsampling" in options:  # which RGB that is kept cannot have
        options.pop("keep_rgb", None)
    return encoded(image, form, **options), size


@settings(max_examples=300, deadline=None)
@given(pictures(), st.binary(max_size=60))
def test_every_image_that_pillow_writes_passes(picture: tuple[bytes, tuple[int, int]], more: bytes) -> None:
    data, size = picture
    assert image_size(data) == image_size(data + more) == size
    for part in (data[:8], data[:20], data[: len(data) // 2], data[:-6]):
        with pytest.raises(BrokenFileError):
            image_size(part)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(WHOLE), st.integers(0, 60), st.binary(max_size=200))
def test_a_file_that_goes_on_as_junk_ends_in_an_answer(entry: Any, kept: int, junk: bytes) -> None:
    for kind in LOOKS:
        said = fault_of(kind, entry[2][:kept] + junk)
        assert said is None or said.endswith(".")


def test_sounds_tell_their_length() -> None:
    assert sound_size(wav(8000, 4000, channels=2)) == SoundSize(8000, 4000)
    with pytest.raises(BrokenFileError, match="no sound behind its header"):
        sound_size(wav(frames=0))
    for unknown in (0, 0x7FFFF000, 0xFFFFFFFF):
        header = struct.pack("<4sI", b"data", unknown)
        assert sound_size(wav().replace(struct.pack("<4sI", b"data", 320), header)) == SoundSize(16_000, 160)
    flac = next(data for name, _, data, _ in WHOLE if name == "flac.flac")
    assert sound_size(flac) == SoundSize(16_000, 800)


def test_a_header_without_end_is_not_followed_for_long() -> None:
    """Segments of no length, as many as a body can hold."""
    for endless in (b"\xff\xd8\xff\xe0" + b"\0\x02\xff\xe0" * 2_000_000, b"\xff\xd8\xff" + bytes(8_000_000)):
        with pytest.raises(BrokenFileError):
            image_size(endless)
    png = next(data for name, _, data, _ in WHOLE if name == "rgb.png")
    with pytest.raises(BrokenFileError, match="no pixels"):
        image_size(png[:33] + b"\0\0\0\0teXt\0\0\0\0" * 500_000)
