"""One reading of a picture, at a client and in a backend: what Pillow writes comes back as it is seen."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from sheaf.backends._shared.images import encoded, pixels_of, read, size_of, to_pillow
from sheaf_client._inputs.media import encoded as sent
from sheaf_client._media import ImageFile as File
from sheaf_client.errors import InvalidRequestError
from tests.contract.files import encoded as written
from tests.contract.files import images, png_chunk

PATH = "/image_b64"
#: Every level of each colour once or more, and no symmetry that a turn could hide in.
RGB = np.random.default_rng(3).integers(0, 256, (16, 24, 3), dtype=np.uint8)
GREY = RGB[..., 0]
ALPHA = np.random.default_rng(4).integers(0, 256, (16, 24), dtype=np.uint8)
#: Smooth, for encoders that lose something: four corners of different colours.
ROWS, COLUMNS = np.mgrid[0:48, 0:64]
SMOOTH = np.stack([ROWS * 5, COLUMNS * 4, 255 - ROWS * 2 - COLUMNS * 2], axis=-1).astype(np.uint8)


def pixels(data: bytes) -> np.ndarray:
    """What a backend reads, which is what the client's own reading gives."""
    found = pixels_of(File(data), PATH)
    assert found.dtype == np.uint8
    assert np.array_equal(File(data).to_numpy(), found)
    assert size_of(File(data), PATH) == (found.shape[1], found.shape[0])
    assert np.array_equal(np.asarray(read(File(data), PATH)), found)
    return found


def grey(levels: np.ndarray) -> np.ndarray:
    return np.repeat(levels[..., None], 3, axis=-1)


def over(colours: np.ndarray, alpha: np.ndarray, ground: int = 255) -> np.ndarray:
    share = alpha[..., None] / 255
    return colours * share + ground * (1 - share)


def fault_of(call: Callable[[], Any]) -> tuple[str, str, str]:
    with pytest.raises(InvalidRequestError) as refused:
        call()
    (fault,) = refused.value.errors
    return fault.code, fault.path, fault.message


def tried(data: bytes, **options: Any) -> Any:
    """The pixels, or the code and the place of the fault that they were refused for."""
    try:
        return pixels_of(File(data), PATH, **options)
    except InvalidRequestError as error:
        (fault,) = error.errors
        return fault.code, fault.path


# ---- modes


def test_colours_and_grey_come_as_they_were_written() -> None:
    assert np.array_equal(pixels(written(Image.fromarray(RGB), "PNG")), RGB)
    assert np.array_equal(pixels(written(Image.fromarray(RGB), "WEBP", lossless=True)), RGB)
    assert np.array_equal(pixels(written(Image.fromarray(GREY), "PNG")), grey(GREY))
    bits = GREY > 127
    assert np.array_equal(pixels(written(Image.fromarray(bits), "PNG")), grey(bits * np.uint8(255)))


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_what_loses_a_little_keeps_its_colours_and_its_corners(form: str) -> None:
    options = {"quality": 95} | ({"subsampling": "4:4:4"} if form == "JPEG" else {})
    found = pixels(written(Image.fromarray(SMOOTH), form, **options))
    assert np.abs(found.astype(int) - SMOOTH).max() <= 8
    found = pixels(written(Image.fromarray(SMOOTH[..., 0]), form, **options))
    assert np.abs(found.astype(int) - grey(SMOOTH[..., 0])).max() <= 8


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_what_is_transparent_shows_white_whatever_colour_it_hides(form: str) -> None:
    options = {"lossless": True, "exact": True} if form == "WEBP" else {}
    image = Image.fromarray(np.dstack([RGB, ALPHA]))
    assert np.abs(pixels(written(image, form, **options)) - over(RGB, ALPHA)).max() <= 0.51
    hidden = Image.fromarray(np.dstack([RGB, np.zeros_like(ALPHA)]))
    assert (pixels(written(hidden, form, **options)) == 255).all()


def test_grey_with_alpha_and_a_ground_of_ones_own() -> None:
    file = File(written(Image.fromarray(np.dstack([GREY, ALPHA]), "LA"), "PNG"))
    assert np.abs(pixels(file.bytes) - over(grey(GREY), ALPHA)).max() <= 0.51
    mask = np.asarray(read(file, PATH, "L", ground=0))
    assert mask.shape == GREY.shape
    assert np.abs(mask - over(grey(GREY), ALPHA, 0)[..., 0]).max() <= 0.51


def test_palettes_with_and_without_transparent_entries() -> None:
    colours = np.array([[250, 0, 0], [0, 240, 0], [0, 0, 230], [9, 8, 7]], np.uint8)
    places = RGB[..., 0] % 4
    image = Image.fromarray(places, "P")
    image.putpalette(colours.ravel().tolist())
    assert np.array_equal(pixels(written(image, "PNG")), colours[places])
    one = pixels(written(image, "PNG", transparency=2))
    assert np.array_equal(one, np.where((places == 2)[..., None], 255, colours[places]))
    shares = np.array([0, 255, 128, 64], np.uint8)
    many = pixels(written(image, "PNG", transparency=shares.tobytes()))
    assert np.abs(many - over(colours[places], shares[places])).max() <= 0.51


def png(levels: np.ndarray, depth: int, colour: int, *chunks: bytes) -> bytes:
    """A PNG of samples that Pillow does not write: `levels` has shape (height, width, channels)."""
    height, width = levels.shape[:2]
    if depth == 16:
        rows = levels.astype(">u2").view(np.uint8).reshape(height, -1)
    else:
        bits = np.unpackbits(levels.reshape(height, -1, 1).astype(np.uint8), axis=2)[..., 8 - depth :]
        rows = np.packbits(bits.reshape(height, -1), axis=1)
    body = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [
        png_chunk(b"IHDR", head),
        *chunks,
        png_chunk(b"IDAT", zlib.compress(body)),
        png_chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_are_scaled_and_not_clipped(colour: int, channels: int) -> None:
    """A clip would be white from 1/256 on."""
    levels = np.random.default_rng(5).integers(0, 2**16, (9, 11, channels))
    found = pixels(png(levels, 16, colour))
    wanted = levels / 257
    if channels in (2, 4):
        wanted = over(wanted[..., :-1], wanted[..., -1])
    # Pillow drops the low byte of all but grey.
    assert np.abs(found - wanted).max() <= (0.501 if colour == 0 else 2)
    assert found.std() > 50


def test_sixteen_bits_of_grey_that_pillow_writes_reach_black_and_white() -> None:
    ramp = np.linspace(0, 65535, 16 * 24).round().astype(np.uint16).reshape(16, 24)
    found = pixels(written(Image.fromarray(ramp), "PNG"))
    assert (found.min(), found.max()) == (0, 255)
    assert np.array_equal(found[..., 0], (ramp / 257).round())


@pytest.mark.parametrize(("depth", "colour"), [(1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2)])
def test_the_one_colour_that_stands_for_transparent_shows_white(depth: int, colour: int) -> None:
    channels = 3 if colour else 1
    levels = np.random.default_rng(6).integers(0, 2**depth, (9, 11, channels))
    # One colour in many places, which no other comes near: of 16 bits Pillow compares the high bytes.
    key = levels[4, 5].copy()
    levels[::2, ::3] = key
    data = png(levels, depth, colour, png_chunk(b"tRNS", struct.pack(f">{channels}H", *key)))
    found, clear = pixels(data), (levels == key).all(axis=-1)
    assert (found[clear] == 255).all()
    wanted = np.broadcast_to(levels * 255 / (2**depth - 1), found.shape)
    assert np.abs(found[~clear] - wanted[~clear]).max() <= (1 if channels == 3 else 0.501)


def ink(colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours as they are, and their ink with some of it as black: shape (height, width, 4)."""
    black = (255 - colours.max(axis=-1).astype(int)) // 2
    # What printing (255 - c) (255 - k) / 255 of ink leaves of white.
    inks = 255 - np.rint(colours.astype(int) * 255 / (255 - black)[..., None]).clip(0, 255)
    shown = (255 - inks) * (255 - black[..., None]) / 255
    return shown, np.dstack([inks, black]).astype(np.uint8)


def test_ink_is_laid_on_white() -> None:
    shown, inks = ink(SMOOTH)
    data = written(Image.fromarray(inks, "CMYK"), "JPEG", quality=98, subsampling="4:4:4")
    assert b"Adobe" in data
    found = pixels(data)
    assert np.abs(found - shown).max() <= 12
    assert np.abs(found - shown).mean() <= 2


def test_ink_as_brightness_and_two_colours() -> None:
    """YCCK, as Photoshop writes it: what Pillow writes as CMYK, its first three in YCbCr and so marked."""
    shown, inks = ink(SMOOTH)
    # Adobe stores 255 less the ink, as Pillow does, and YCbCr of 255 less that.
    stored = np.dstack([np.asarray(Image.fromarray(inks[..., :3]).convert("YCbCr")), 255 - inks[..., 3]])
    data = written(Image.fromarray(255 - stored, "CMYK"), "JPEG", quality=98, subsampling="4:4:4")
    place = data.index(b"Adobe") + 11
    assert data[place] == 0
    found = pixels(data[:place] + b"\x02" + data[place + 1 :])
    assert np.abs(found - shown).max() <= 14
    assert np.abs(found - shown).mean() <= 2


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "I", "I;16"]
)
def test_what_pillow_holds_is_sent_as_it_is_seen(mode: str) -> None:
    if mode.startswith("I"):
        held = Image.fromarray(np.linspace(0, 65535, 384).round().astype(np.uint16).reshape(16, 24)).convert(
            mode
        )
        wanted = grey((np.asarray(held) / 257).round())
    else:
        # Pillow makes palettes with alpha of grey alone.
        colours = Image.fromarray(np.dstack([RGB, ALPHA]))
        held = colours.convert("LA").convert(mode) if mode == "PA" else colours.convert(mode)
        wanted = np.asarray(held.convert("RGBA"))
        wanted = over(wanted[..., :3], wanted[..., 3])
    assert np.abs(pixels(sent(held)) - wanted).max() <= 1


# ---- orientation


#: What each orientation says of where the first row and column of the file are, as the shown picture.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored.swapaxes(0, 1)[:, ::-1],
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: stored.swapaxes(0, 1)[::-1],
}


def held(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_all_orientations_are_upright(form: str, orientation: int) -> None:
    options = {"PNG": {}, "JPEG": {"quality": 95, "subsampling": "4:4:4"}, "WEBP": {"lossless": True}}[form]
    data = written(Image.fromarray(SMOOTH), form, exif=held(orientation), **options)
    found, wanted = pixels(data), UPRIGHT[orientation](SMOOTH)
    assert found.shape == wanted.shape
    assert np.abs(found.astype(int) - wanted).max() <= (8 if form == "JPEG" else 0)
    assert File(data).to_pil().size == (wanted.shape[1], wanted.shape[0])


def test_orientation_is_found_behind_the_pixels_and_in_xmp() -> None:
    data = written(Image.fromarray(RGB), "PNG")
    chunk = png_chunk(b"eXIf", held(6).tobytes().removeprefix(b"Exif\0\0"))
    assert np.array_equal(pixels(data[:-12] + chunk + data[-12:]), UPRIGHT[6](RGB))
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="8"/></x:xmpmeta>'
    assert np.array_equal(
        pixels(written(Image.fromarray(RGB), "WEBP", lossless=True, xmp=xmp)), UPRIGHT[8](RGB)
    )


@pytest.mark.parametrize("exif", [b"Exif\0\0junk", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12", b"Exif\0\0"])
def test_broken_exif_is_no_orientation(exif: bytes) -> None:
    assert np.array_equal(pixels(written(Image.fromarray(RGB), "WEBP", lossless=True, exif=exif)), RGB)


def test_pillows_own_keeps_what_the_file_has() -> None:
    image = Image.fromarray(np.dstack([RGB, ALPHA]))
    kept = File(written(image, "PNG", exif=held(3))).to_pil()
    assert kept.mode == "RGBA"
    assert np.array_equal(np.asarray(kept), np.dstack([RGB, ALPHA])[::-1, ::-1])
    assert File(written(image, "PNG")).to_pil().format == "PNG"


# ---- animations


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_of_an_animation_the_first_picture_counts(form: str) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    more = [Image.fromarray(RGB[::-1]), Image.fromarray(255 - RGB)]
    data = written(Image.fromarray(RGB), form, save_all=True, append_images=more, **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert np.array_equal(pixels(data), RGB)


# ---- hostile files


def test_a_bomb_is_refused_by_its_header_and_pillows_limit_stays() -> None:
    bomb = png(np.zeros((1, 1, 1), int), 8, 0)
    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    bomb = bomb[:8] + png_chunk(b"IHDR", head) + bomb[33:]
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for call in (size_of, read, pixels_of):
            code, path, said = fault_of(lambda call=call: call(File(bomb), PATH))
            assert (code, path) == ("too_large_media", PATH)
            assert said.startswith("The image has 30000 x 30000 pixels")
    file = File(written(Image.fromarray(RGB), "PNG"))
    assert fault_of(lambda: read(file, PATH, max_pixels=383))[0] == "too_large_media"
    assert read(file, PATH, max_pixels=384).size == (24, 16)
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


def test_what_is_no_image_of_a_contract_is_refused_at_its_place() -> None:
    gif = written(Image.fromarray(GREY), "GIF")
    code, path, said = fault_of(lambda: pixels_of(File(gif), "/frames_b64/3"))
    assert (code, path) == ("bad_format", "/frames_b64/3")
    assert said == "Must be a PNG, JPEG or WebP file; this is a GIF image."


@pytest.mark.parametrize("name", sorted(images()))
def test_a_file_that_is_cut_off_is_refused_at_its_place(name: str) -> None:
    data = images()[name]
    shape = pixels(data).shape
    tail = {"png": data[-12:], "jpg": data[-2:], "webp": b""}[name.partition(".")[2]]
    for length in range(1, len(data) - 1, 3):
        # The mark of the end is there, and what is before it is not.
        for cut in (data[:length], data[:length] + tail):
            found = tried(cut)
            assert found == ("bad_format", PATH) if isinstance(found, tuple) else found.shape == shape
    half = data[: len(data) // 2]
    assert fault_of(lambda: pixels_of(File(half), PATH))[:2] == ("bad_format", PATH)
    with pytest.raises(ValueError, match=r"cut off|cannot be read"):
        File(half).to_numpy()


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(images().items())),
    st.lists(st.tuples(st.integers(0, 700), st.binary(max_size=6)), max_size=4),
)
def test_bytes_that_were_changed_end_in_pixels_or_a_refusal(
    entry: tuple[str, bytes], changes: list[tuple[int, bytes]]
) -> None:
    data = bytearray(entry[1])
    for place, junk in changes:
        data[place : place + len(junk)] = junk
    found = tried(bytes(data), max_pixels=2**20)
    if isinstance(found, tuple):
        assert found in (("bad_format", PATH), ("too_large_media", PATH))
    else:
        assert (found.dtype, found.ndim) == (np.uint8, 3)


# ---- writing


@pytest.mark.parametrize(("form", "bound"), [("png", 0), ("jpeg", 12), ("webp", 12)])
def test_what_is_written_is_read_again(form: Any, bound: int) -> None:
    (drawn,) = to_pillow(SMOOTH[None].astype(np.float32) / 255)
    for held in (drawn, SMOOTH):
        file = encoded(held, form)
        assert np.abs(file.to_numpy().astype(int) - SMOOTH).max() <= bound
        assert file.to_pil().format == form.upper()
    with pytest.raises(ValueError, match="no numbers"):
        to_pillow(np.full((1, 2, 2, 3), np.nan, np.float32))


def test_without_pillow_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['PIL'] = None\n"
        "from sheaf_client._media import ImageFile\n"
        "ImageFile(b'\\x89PNG').to_numpy()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    said = done.stderr.strip().splitlines()[-1]
    assert said == (
        "ModuleNotFoundError: decoding an image needs pillow, of the extra media of sheaf-client: "
        "pip install pillow"
    )
