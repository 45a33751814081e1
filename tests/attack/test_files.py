"""No file is larger to a decoder than to the limits: it is read as decoders read it, or refused."""

from __future__ import annotations

import io
import random
import re
import struct
from collections.abc import Iterator

import pytest
from PIL import Image

from sheaf_client._formats import BrokenFileError, image_size, sound_size
from tests.contract.files import claim, encoded, png_chunk, whole

FILES = {name: data for name, _, data, _ in whole()}
LARGE = (13_000, 9_000)
#: What may stand in the header of a PNG or JPEG, with other sizes among it.
PNG_PARTS = [
    png_chunk(b"IHDR", struct.pack(">IIBBBBB", *LARGE, 8, 2, 0, 0, 0)),
    png_chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)),
    png_chunk(b"prVt", b"\0\0\0\x0dIHDR" + struct.pack(">II", 1, 1)),
    png_chunk(b"tEXt", b"a\0b"),
    png_chunk(b"acTL", struct.pack(">II", 2, 0)),
    png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, *LARGE, 0, 0, 1, 1, 0, 0)),
    png_chunk(b"fdAT", b"\0\0\0\1" + b"x"),
]
FRAME = struct.pack(">HBHHB", 17, 8, LARGE[1], LARGE[0], 3) + bytes.fromhex("012200 021101 031101")
SMALL = struct.pack(">HBHHB", 17, 8, 1, 1, 3) + bytes.fromhex("012200 021101 031101")
MARKERS = [*range(0xC0, 0xD0), 0x00, 0x01, 0x02, 0xBF, 0xD0, 0xD8, 0xD9, *range(0xDB, 0x100)]


def jpeg_part(chance: random.Random) -> bytes:
    """A segment of any kind that holds the frame of another size, whole, hidden or behind junk."""
    frame = chance.choice([FRAME, SMALL])
    marker = bytes([0xFF, chance.choice(MARKERS)])
    hidden = marker + struct.pack(">H", 4 + len(frame)) + b"\xff\xc0" + frame
    return chance.choice([marker + frame, hidden, b"junk" + marker + frame, marker, b"\xff\0", b"\xff" * 3])


def images() -> Iterator[bytes]:
    """Small images with more in their headers than any writer puts there."""
    chance = random.Random(5)
    png, jpeg = FILES["rgb.png"], FILES["baseline.jpg"]
    segments = [found.start() for found in re.finditer(rb"\xff[^\0]", jpeg)]
    for _ in range(3000):
        parts = b"".join(chance.choices(PNG_PARTS, k=chance.randint(1, 3)))
        place = chance.choice([8, 33])
        yield png[:place] + parts + png[place:]
        place = chance.choice(segments)
        parts = b"".join(jpeg_part(chance) for _ in range(chance.randint(1, 3)))
        yield jpeg[:place] + parts + jpeg[place:]


@pytest.mark.filterwarnings("ignore")
def test_no_image_is_larger_to_pillow_than_to_the_limits() -> None:
    larger = 0
    for data in images():
        try:
            with Image.open(io.BytesIO(data)) as image:
                found = image.size
        except (OSError, SyntaxError, ValueError, struct.error):
            continue
        larger += found == LARGE
        try:
            told = image_size(data)
        except BrokenFileError:
            continue
        assert told == found, data.hex()
    assert larger > 300  # of the attacks that Pillow falls for, each was refused or told


@pytest.mark.parametrize("form", ["PPM", "DIB", "BMP", "GIF", "TIFF", "TGA", "ICO", "PCX", "SGI", "JPEG2000"])
def test_formats_that_are_not_named_are_refused(form: str) -> None:
    with pytest.raises(BrokenFileError, match="Must be a PNG, JPEG or WebP file"):
        image_size(encoded(Image.new("RGB", (40, 40)), form))


@pytest.mark.parametrize("claimed", [0, 1, 800])
@pytest.mark.parametrize("repeat", [1, 50, 20_000])
def test_a_flac_is_as_long_as_its_frames(claimed: int, repeat: int) -> None:
    """A header may say that there is nothing, or one frame; decoders go on to the end all the same."""
    flac = FILES["flac.flac"]
    frames = flac.index(b"\xff\xf8")
    data = flac[:18] + claim(flac, claimed) + flac[26:frames] + flac[frames:] * repeat
    found = sound_size(data, count=True)
    assert found is not None
    # Up to some frames that only look like it, the header is believed.
    assert found.frames == (800 * repeat if 800 * repeat > 2**20 else claimed)


def test_a_flac_of_endless_frames_is_refused_in_a_moment() -> None:
    flac = FILES["flac.flac"]
    for endless in (b"\xff\xf8\x10\0", b"\xff\xf8\x10\0\0"):
        with pytest.raises(BrokenFileError, match="more than 200000 frames"):
            sound_size(flac + endless * 2_000_000, count=True)


@pytest.mark.parametrize("name", ["flac.flac", "pcm.wav", "float.wav", "adpcm.wav"])
def test_what_says_its_length_and_means_it_is_believed(name: str) -> None:
    assert sound_size(FILES[name], count=True) == sound_size(FILES[name])
