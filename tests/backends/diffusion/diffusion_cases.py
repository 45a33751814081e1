"""Requests for the tests of diffusers' backends, and the library's own call for each."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from sheaf import ModelSpec
from sheaf.api.diffusion import DiffusionRequest
from sheaf.api.multimodal_generation import MultimodalGenerationRequest
from sheaf_client._media import ImageFile

Pixels = npt.NDArray[np.float32]
#: Most difference of pixels in 0…1 by the order of sums.
CLOSE = 2e-5
TEXT_TOKENS = 32
SETTINGS: dict[str, Any] = {"device": "cpu", "dtype": "float32"}


def spec_of(kind: str, checkpoints: dict[str, str], **settings: Any) -> ModelSpec:
    more = {"max_sequence_length": TEXT_TOKENS} if kind == "flux" else {}
    given = {"model_id": checkpoints[kind], **SETTINGS, **more, **settings}
    return ModelSpec(name=kind, backend=kind, backend_kwargs=given)


def draw(prompt: str = "a cat", seed: int | None = 1, **fields: Any) -> DiffusionRequest:
    given: dict[str, Any] = {"height": 64, "width": 64, "num_inference_steps": 3, "guidance_scale": 3.5}
    return DiffusionRequest(model_name="m", prompt=prompt, seed=seed, **{**given, **fields})


def redraw(prompt: str = "a cat", seed: int | None = 1, **fields: Any) -> MultimodalGenerationRequest:
    given: dict[str, Any] = {
        "image": picture(),
        "num_inference_steps": 5,
        "strength": 0.8,
        "guidance_scale": 3.5,
    }
    return MultimodalGenerationRequest(model_name="m", prompt=prompt, seed=seed, **{**given, **fields})


def picture(width: int = 64, height: int = 64, seed: int = 0, kind: str = "png", **options: Any) -> bytes:
    """A file of waves and noise."""
    rows, columns = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(seed).random((height, width))
    waves = np.stack([np.sin(rows / 9 + seed) / 2 + 0.5, np.cos(columns / 7) / 2 + 0.5, noise], -1)
    return as_file(Image.fromarray((waves * 255).astype(np.uint8)), kind, **options)


def mask(width: int = 64, height: int = 64) -> bytes:
    """A file that is white in its upper left quarter."""
    shades = np.zeros((height, width), np.uint8)
    shades[: height // 2, : width // 2] = 255
    return as_file(Image.fromarray(shades))


def as_file(image: Image.Image, kind: str = "png", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def opened(data: bytes | ImageFile | None) -> Image.Image:
    assert data is not None
    image = Image.open(io.BytesIO(data.bytes if isinstance(data, ImageFile) else data))
    return image.convert("RGB" if image.mode == "RGB" else "L")


def load_recording(backend: type[Any], path: str, **settings: Any) -> Any:
    """The loaded backend, which also keeps the pixels of each answer as they were before encoding."""
    chosen: Any = backend.for_settings(settings)

    class Recording(chosen):  # type: ignore[misc]
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **settings)
            self.drawn: dict[Any, Pixels] = {}

        def answer(self, request: Any, pixels: Pixels, *rest: Any) -> Any:
            self.drawn[request.request_id] = pixels
            return super().answer(request, pixels, *rest)

        @classmethod
        def for_settings(cls, *_: Any) -> Any:
            return cls

    loaded = Recording(path, **settings)
    loaded.load()
    return loaded


def pipeline_of(name: str, path: str, scheduler: str | None = None, dtype: str = "float32") -> Any:
    """A pipeline of the library, by itself."""
    import diffusers
    import torch

    options = {"add_watermarker": False} if "XL" in name else {}
    pipeline = getattr(diffusers, name).from_pretrained(path, dtype=getattr(torch, dtype), **options)
    if scheduler is not None:
        pipeline.scheduler = getattr(diffusers, scheduler).from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def call(pipeline: Any, request: Any, **arguments: Any) -> Any:
    """The images of the library's own call for one request, as `output_type` says; pixels by default."""
    import torch

    generators = [torch.Generator("cpu").manual_seed(request.seed + k) for k in range(request.num_images)]
    kind = type(pipeline).__name__
    given: dict[str, Any] = {
        "prompt": [request.prompt],
        "num_inference_steps": request.num_inference_steps,
        "guidance_scale": request.guidance_scale,
        "num_images_per_prompt": request.num_images,
        "output_type": "np",
    }
    if request.negative_prompt:
        given["negative_prompt"] = [request.negative_prompt]
    if kind.startswith("Flux"):
        given["max_sequence_length"] = TEXT_TOKENS
        if request.negative_prompt:
            given |= {"true_cfg_scale": request.guidance_scale, "guidance_scale": 1.0}
    if isinstance(request, DiffusionRequest):
        given |= {"height": request.height, "width": request.width}
    else:
        image = opened(request.image)
        given |= {"image": [image] * request.num_images, "strength": request.strength}
        if "XLImg2Img" not in kind:
            given |= {"height": image.height, "width": image.width}
        if "Inpaint" in kind:
            shades = opened(request.mask) if request.mask else Image.new("L", image.size, 255)
            given["mask_image"] = [shades] * request.num_images
    return pipeline(**{**given, **arguments}, generator=generators).images


def assert_drawn(backend: Any, request: Any, answer: Any, wanted: Pixels) -> None:
    """The pixels before encoding, and those in the files, are those wanted."""
    assert not isinstance(answer, Exception), answer
    found = backend.drawn[request.request_id]
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=CLOSE, rtol=0)
    files = answer.images or [answer.image]
    assert len(files) == request.num_images
    assert files[0] == answer.image
    for file, pixels in zip(files, wanted, strict=True):
        # Half a shade can go either way.
        assert np.abs(file.to_numpy() / 255 - pixels).max() <= 0.5 / 255 + 2 * CLOSE
    assert (answer.height, answer.width) == wanted.shape[1:3]
