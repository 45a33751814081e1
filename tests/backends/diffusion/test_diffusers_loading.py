"""How FLUX and SDXL load: the mode and the contract, what a checkpoint lacks, and half precision."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from sheaf import ModelSpec
from sheaf.backends.flux import FluxBackend, FluxImageBackend
from sheaf.backends.sdxl import SDXLBackend, SDXLImageBackend
from sheaf_client.errors import InvalidRequestError
from tests.backends.answers import fault_of
from tests.backends.diffusion.diffusion_cases import (
    SETTINGS,
    call,
    draw,
    opened,
    pipeline_of,
    redraw,
    spec_of,
)

pytestmark = pytest.mark.torch


@pytest.mark.parametrize(("kind", "dtype"), [("flux", "bfloat16"), ("sdxl", "bfloat16"), ("sdxl", "float16")])
def test_half_precision_draws_what_the_library_draws_in_it(
    kind: str, dtype: str, diffusion_checkpoints: dict[str, str]
) -> None:
    backend: Any = spec_of(kind, diffusion_checkpoints, dtype=None, torch_dtype=dtype).make_backend()
    backend.load()
    assert backend.denoiser.dtype == getattr(torch, dtype)
    name = "FluxPipeline" if kind == "flux" else "StableDiffusionXLPipeline"
    library = pipeline_of(name, diffusion_checkpoints[kind], dtype=dtype)
    request = draw(num_inference_steps=2, preview_interval=1)
    (wanted,) = call(library, request, output_type="pil")
    assert np.array_equal(backend.predict(request).image.to_numpy(), np.asarray(wanted))
    state = backend.prepare(request)
    assert backend.step([state]) == [None]
    assert backend.progress(request, state).preview.to_pil().size == (64, 64)
    backend.discard(state)
    assert backend.pipeline.vae.dtype == getattr(torch, dtype)


def test_the_mode_chooses_the_contract(diffusion_checkpoints: dict[str, str]) -> None:
    for backend, text, image in (
        ("flux", FluxBackend, FluxImageBackend),
        ("sdxl", SDXLBackend, SDXLImageBackend),
    ):
        for mode in ("img2img", "inpaint"):
            settings = {"model_id": "x", "mode": mode}
            spec = ModelSpec(name="m", backend=backend, backend_kwargs=settings)
            assert spec.model_type == "multimodal_generation"
            assert type(spec.make_backend()) is type(text("x", mode=mode)) is image  # type: ignore[arg-type]
        spec = ModelSpec(name="m", backend=backend, backend_kwargs={"mode": "text2img"})
        assert (spec.model_type, type(spec.make_backend())) == ("diffusion", text)
        spec = ModelSpec(name="m", backend=f"{backend}-img2img", accept_license=True)
        assert spec.model_type == "multimodal_generation"
        expected = "mode must be text2img, img2img or inpaint, not 'upscale'"
        with pytest.raises(ValueError, match=expected):
            text("x", mode="upscale")  # type: ignore[arg-type]
        with pytest.raises(ValidationError, match=expected):
            ModelSpec(name="m", backend=backend, backend_kwargs={"mode": "upscale"})
        with pytest.raises(ValidationError, match="mode must be img2img or inpaint, not 'text2img'"):
            ModelSpec(name="m", backend=f"{backend}-img2img", backend_kwargs={"mode": "text2img"})
    with pytest.raises(ValueError, match="do not fit"):
        ModelSpec(name="m", backend="flux", backend_kwargs={"steps": 4}).make_backend()


@pytest.mark.parametrize(
    ("backend", "text", "image"),
    [("flux", FluxBackend, FluxImageBackend), ("sdxl", SDXLBackend, SDXLImageBackend)],
)
def test_the_contract_chooses_the_mode(backend: str, text: type, image: type) -> None:
    redraws = ModelSpec(name="m", model_type="multimodal_generation", backend=backend, accept_license=True)
    made: Any = redraws.make_backend()
    assert (redraws.model_type, type(made), made.mode) == ("multimodal_generation", image, "img2img")
    inpaints = ModelSpec(
        name="m",
        model_type="multimodal_generation",
        backend=backend,
        backend_kwargs={"mode": "inpaint", "model_id": "x"},
    )
    assert inpaints.make_backend().mode == "inpaint"  # type: ignore[attr-defined]
    draws = ModelSpec(name="m", model_type="diffusion", backend=backend)
    assert type(draws.make_backend()) is text
    with pytest.raises(ValidationError, match="serves multimodal_generation, not diffusion"):
        ModelSpec(name="m", model_type="diffusion", backend=backend, backend_kwargs={"mode": "inpaint"})
    with pytest.raises(ValidationError, match="serves diffusion, not depth"):
        ModelSpec(name="m", model_type="depth", backend=backend)


def _weights(folder: Path) -> Path:
    (found,) = folder.glob("*.safetensors")
    return found


def _pickle(folder: Path) -> None:
    from safetensors.torch import load_file

    file = _weights(folder)
    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()


def _drop_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(_weights(folder))
    del weights[min(weights)]
    save_file(weights, _weights(folder), {"format": "pt"})


def _replace_part(path: Path) -> None:
    index = json.loads((path / "model_index.json").read_text())
    index["unet"] = ["my_code", "MyUNet"]
    (path / "model_index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda path: shutil.rmtree(path / "vae"), OSError, "has no vae"),
        (lambda path: _pickle(path / "vae"), OSError, "safetensors"),
        (lambda path: _drop_tensor(path / "text_encoder"), ValueError, "text_encoder lacks the weights"),
        (_replace_part, ValueError, "unet of"),
    ],
)
def test_what_a_checkpoint_lacks_is_named(
    change: Callable[[Path], None],
    error: type[Exception],
    words: str,
    diffusion_checkpoints: dict[str, str],
    tmp_path: Path,
) -> None:
    path = tmp_path / "changed"
    shutil.copytree(diffusion_checkpoints["sdxl"], path)
    change(path)
    with pytest.raises(error, match=words):
        SDXLBackend(str(path), **SETTINGS).load()


def test_a_scheduler_that_is_none_is_refused(diffusion_checkpoints: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="EulerDiscreteScheduler"):
        SDXLBackend(diffusion_checkpoints["sdxl"], scheduler="UNet2DConditionModel", **SETTINGS).load()


@pytest.mark.parametrize("mode", ["text2img", "img2img"])
def test_guidance_that_half_precision_cannot_embed_is_refused(
    mode: str, diffusion_checkpoints: dict[str, str]
) -> None:
    make: Callable[..., Any] = draw if mode == "text2img" else redraw
    backend: Any = spec_of("flux", diffusion_checkpoints, mode=mode, dtype="float16").make_backend()
    backend.load()
    good = make(guidance_scale=65.0)
    # Guidance against a prompt is no number that is embedded.
    against = make(guidance_scale=100.0, negative_prompt="dog")
    refused, drawn, other = backend.predict_all([make(guidance_scale=100.0), good, against])
    assert fault_of(refused) == ("out_of_range", "/guidance_scale")
    assert opened(drawn.image).tobytes() == opened(backend.predict(good).image).tobytes()
    assert opened(other.image).getbbox()


def test_guidance_that_overflows_all_the_same_is_told_to_be_at_fault(
    diffusion_checkpoints: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FluxBackend, "check_numbers", lambda *_: None)
    backend: Any = spec_of("flux", diffusion_checkpoints, dtype="float16").make_backend()
    backend.load()
    absurd = draw(guidance_scale=100.0, preview_interval=1)
    refused, _ = backend.predict_all([absurd, draw()])
    assert fault_of(refused) == ("out_of_range", "/guidance_scale")
    state = backend.prepare(absurd)
    backend.step([state])
    with pytest.raises(InvalidRequestError) as caught:
        backend.progress(absurd, state)
    assert fault_of(caught.value) == ("out_of_range", "/guidance_scale")
    backend.discard(state)
