"""Images and sounds as people hold them, in the keywords of a client."""

from __future__ import annotations

import io
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sheaf_client._inputs.media import png_bytes
from sheaf_client.errors import InvalidRequestError
from sheaf_client.operations.audio import TRANSCRIBE
from sheaf_client.operations.depth import ESTIMATE
from sheaf_client.operations.embedding import EMBED as EMBED_TEXTS
from sheaf_client.operations.video import INFER as INFER_VIDEO
from tests.unit.built import build, taken

PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def pixels_of(image: Any) -> Any:
    return np.asarray(Image.open(io.BytesIO(image.bytes)).convert("RGB"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(PIXELS).save(path)
    return path


def test_an_image_is_taken_in_every_form(picture: Path) -> None:
    import base64

    data = picture.read_bytes()
    forms: list[Any] = [
        data,
        bytearray(data),
        base64.b64encode(data).decode(),
        picture,
        str(picture),
        io.BytesIO(data),
        Image.open(picture),
        PIXELS,
        torch.from_numpy(PIXELS),
    ]
    for form in forms:
        request = build(ESTIMATE, image=form)
        assert np.array_equal(pixels_of(request.image), PIXELS), type(form)
        assert build(ESTIMATE, image_b64=request.image_b64).image == request.image
    with picture.open("rb") as file:
        assert build(ESTIMATE, image=file).image.bytes == data


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "F"])
def test_pillow_images_of_any_mode_are_sent(mode: str) -> None:
    request = build(ESTIMATE, image=Image.new(mode, (3, 2)))
    assert Image.open(io.BytesIO(request.image.bytes)).size == (3, 2)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((4, 6), np.uint8),
        ((4, 6, 3), np.uint8),
        ((4, 6, 4), np.uint8),
        ((1, 1), np.uint8),
        ((4, 6), np.bool_),
    ],
)
def test_pixels_survive_their_png(shape: tuple[int, ...], dtype: Any) -> None:
    array = (np.arange(np.prod(shape)) % 251).reshape(shape).astype(dtype)
    read = np.asarray(Image.open(io.BytesIO(png_bytes(array))))
    assert np.array_equal(read, array.astype(np.uint8) * (255 if dtype == np.bool_ else 1))


@pytest.mark.parametrize(
    "array", [np.zeros((2, 2)), np.zeros((2, 2, 2), np.uint8), np.zeros((0, 2), np.uint8)]
)
def test_an_array_that_is_no_image_says_why(array: Any) -> None:
    with pytest.raises(TypeError, match="uint8"):
        build(ESTIMATE, image=array)


def test_several_images_in_one_field(picture: Path) -> None:
    request = build(INFER_VIDEO, frames=[picture, Image.open(picture), PIXELS])
    assert [pixels_of(frame).shape for frame in request.frames] == [(4, 6, 3)] * 3
    assert len(build(INFER_VIDEO, frames=np.stack([PIXELS, PIXELS])).frames) == 2
    assert len(build(EMBED_TEXTS, images=[picture]).images) == 1


def test_a_path_without_a_file_is_told_apart_from_base64(tmp_path: Path) -> None:
    for missing in (tmp_path / "no.png", str(tmp_path / "no.png"), "no.png"):
        with pytest.raises(FileNotFoundError):
            build(ESTIMATE, image=missing)
    with pytest.raises(InvalidRequestError):
        build(ESTIMATE, image="not base64!")


def test_a_file_opened_as_text_is_refused() -> None:
    with pytest.raises(TypeError, match="rb"):
        build(ESTIMATE, image=io.StringIO("x"))


def test_a_contract_never_reads_a_path(picture: Path) -> None:
    from pydantic import ValidationError

    for value in (str(picture), picture):
        with pytest.raises(ValidationError):
            ESTIMATE.request.model_validate({"model_name": "m", "image_b64": value})


@pytest.mark.parametrize(
    ("samples", "channels"),
    [
        (np.array([0.0, 0.5, -1.0, 2.0]), 1),
        (torch.tensor([[0.0, 0.5], [-1.0, 1.0]]), 2),
        (np.array([0, 100], np.int16), 1),
    ],
)
def test_samples_with_their_rate_become_a_wav(samples: Any, channels: int) -> None:
    request = build(TRANSCRIBE, audio=(samples, 16000))
    with wave.open(io.BytesIO(request.audio.bytes)) as sound:
        assert (sound.getnchannels(), sound.getframerate(), sound.getsampwidth()) == (channels, 16000, 2)
        assert sound.getnframes() == len(samples)
        read = np.frombuffer(sound.readframes(99), "<i2").reshape(len(samples), -1).squeeze()
    wanted = np.asarray(samples)
    scaled = wanted if wanted.dtype == np.int16 else np.clip(wanted, -1, 1) * 32767
    assert np.abs(read - scaled).max() <= 0.5


def test_a_file_stands_for_the_one_file_that_is_required(picture: Path) -> None:
    assert taken(ESTIMATE, picture).image.bytes == picture.read_bytes()
    assert pixels_of(taken(ESTIMATE, PIXELS).image).shape == (4, 6, 3)
    assert taken(TRANSCRIBE, (np.zeros(8), 16000), language="en").language == "en"
