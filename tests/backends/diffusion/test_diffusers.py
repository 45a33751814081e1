"""Images of FLUX and SDXL are those of the library's own pipelines, whatever shares their steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sheaf.backends.flux import FluxBackend
from sheaf.backends.sdxl import SDXLBackend
from tests.backends.diffusion.diffusion_cases import (
    CLOSE,
    TEXT_TOKENS,
    as_file,
    assert_drawn,
    call,
    draw,
    load_recording,
    mask,
    picture,
    pipeline_of,
    redraw,
)

pytestmark = pytest.mark.torch

KINDS = ["flux", "flux-image", "sdxl", "sdxl-ancestral", "sdxl-multistep", "sdxl-image"]
SCHEDULERS = {
    "sdxl-ancestral": "EulerAncestralDiscreteScheduler",
    "sdxl-multistep": "DPMSolverMultistepScheduler",
}
PIPELINES = {
    "flux": ["FluxPipeline"],
    "flux-image": ["FluxImg2ImgPipeline", "FluxInpaintPipeline"],
    "sdxl": ["StableDiffusionXLPipeline"],
    "sdxl-image": ["StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline"],
}
SETTINGS: dict[str, Any] = {"device": "cpu", "dtype": "float32"}
FLUX_SETTINGS: dict[str, Any] = {**SETTINGS, "max_sequence_length": TEXT_TOKENS}


@pytest.fixture(scope="module")
def backends(diffusion_checkpoints: dict[str, str]) -> dict[str, Any]:
    loaded: dict[str, Any] = {}
    for kind in KINDS:
        family = kind.partition("-")[0]
        settings = FLUX_SETTINGS if family == "flux" else SETTINGS
        settings = {**settings, "scheduler": SCHEDULERS.get(kind)}
        if kind.endswith("image"):
            settings["mode"] = "img2img"
        cls = FluxBackend if family == "flux" else SDXLBackend
        loaded[kind] = load_recording(cls, diffusion_checkpoints[family], **settings)
    return loaded


@pytest.fixture(scope="module")
def libraries(diffusion_checkpoints: dict[str, str]) -> Callable[[str, Any], Any]:
    """The library's pipeline for a request to a kind of backend."""
    found: dict[tuple[str, str], Any] = {}

    def library(kind: str, request: Any) -> Any:
        family = kind if kind in PIPELINES else "sdxl"
        name = PIPELINES[family][getattr(request, "mask", None) is not None]
        if (kind, name) not in found:
            path = diffusion_checkpoints[family.partition("-")[0]]
            found[kind, name] = pipeline_of(name, path, SCHEDULERS.get(kind))
        return found[kind, name]

    return library


def mix(kind: str) -> list[Any]:
    """Requests of a few sizes that differ in all that may differ."""
    common: list[dict[str, Any]] = [
        {"prompt": "a cat", "seed": 1, "num_inference_steps": 3},
        {"prompt": "the dog", "seed": 2, "num_inference_steps": 7, "guidance_scale": 1.0},
        {"prompt": "a city at night", "seed": 3, "num_inference_steps": 5, "negative_prompt": "sketch"},
        {"prompt": "a cat", "seed": 4, "num_inference_steps": 2, "num_images": 2},
        {"prompt": "a horse", "seed": 5, "num_inference_steps": 4, "guidance_scale": 0.0},
        {"prompt": "a horse", "seed": 5, "num_inference_steps": 4},
    ]
    if not kind.endswith("image"):
        sizes = [(64, 64), (64, 64), (64, 64), (64, 64), (64, 96), (96, 64)]
        return [draw(**fields, height=h, width=w) for fields, (h, w) in zip(common, sizes, strict=True)]
    pictures: list[dict[str, Any]] = [
        {"strength": 0.6},
        {"image": picture(seed=2), "mask": mask()},
        {"strength": 1.0},
        {"strength": 0.9, "mask": mask()},
        {"strength": 1.0, "mask": mask()},
        {"image": picture(96, 64)},
    ]
    return [redraw(**{**fields, **more}) for fields, more in zip(common, pictures, strict=True)]


@pytest.mark.parametrize("kind", KINDS)
def test_any_mix_equals_the_librarys_single_calls(
    kind: str, backends: dict[str, Any], libraries: Callable[[str, Any], Any]
) -> None:
    requests, backend = mix(kind), backends[kind]
    drawn = backend.batch_predict(requests)
    for request, answer in zip(requests, drawn, strict=True):
        assert_drawn(backend, request, answer, call(libraries(kind, request), request))
        assert answer.seed == request.seed
    pixels = [backend.drawn[request.request_id] for request in requests]
    assert np.abs(pixels[0] - pixels[1]).max() > 0.1, "pictures that are all alike prove nothing"


@pytest.mark.parametrize("kind", ["flux", "flux-image", "sdxl-ancestral", "sdxl-image"])
def test_a_request_alone_gives_the_very_file_of_the_library(
    kind: str, backends: dict[str, Any], libraries: Callable[[str, Any], Any]
) -> None:
    for request in mix(kind)[:2]:
        (wanted,) = call(libraries(kind, request), request, output_type="pil")
        answer = backends[kind].predict(request)
        assert answer.image.bytes == as_file(wanted)
        assert answer.images is None


@pytest.mark.parametrize("kind", ["flux", "flux-image", "sdxl-ancestral", "sdxl-image"])
def test_image_k_of_a_seed_is_the_image_of_the_kth_seed_after_it(kind: str, backends: dict[str, Any]) -> None:
    make, backend = (redraw if kind.endswith("image") else draw), backends[kind]
    many = make(seed=7, num_images=3)
    answer = backend.predict(many)
    assert len(answer.images) == 3
    assert len({file.bytes for file in answer.images}) == 3
    for k in range(3):
        one = make(seed=7 + k)
        backend.predict(one)
        found, wanted = backend.drawn[many.request_id][k], backend.drawn[one.request_id][0]
        np.testing.assert_allclose(found, wanted, atol=CLOSE, rtol=0)


def rows_of_forwards(backend: Any, requests: list[Any]) -> list[int]:
    """Length of the batch in each forward of the denoiser."""
    seen: list[int] = []

    def note(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = [*args, *(kwargs[name] for name in ("hidden_states", "sample") if name in kwargs)]
        seen.append(len(given[0]))

    hook = backend.denoiser.register_forward_pre_hook(note, with_kwargs=True)
    try:
        assert not [a for a in backend.batch_predict(requests) if isinstance(a, Exception)]
    finally:
        hook.remove()
    return seen


def test_requests_share_the_forwards_of_their_steps(backends: dict[str, Any]) -> None:
    steps = [2, 3, 5]
    requests = [draw(seed=n, num_inference_steps=n, guidance_scale=float(n)) for n in steps]
    assert rows_of_forwards(backends["flux"], requests) == [3, 3, 2, 1, 1]
    # Twice the rows where the guidance is against a second prompt.
    unguided = draw(num_inference_steps=3, guidance_scale=1.0)
    assert rows_of_forwards(backends["sdxl-ancestral"], [*requests[:1], unguided]) == [3, 3, 1]


def test_images_redrawn_as_a_whole_and_under_a_mask_share_their_steps(backends: dict[str, Any]) -> None:
    for kind in ("flux-image", "sdxl-image"):
        requests = [
            redraw(num_inference_steps=2, strength=1.0, guidance_scale=1.0),
            redraw(num_inference_steps=2, strength=1.0, guidance_scale=1.0, mask=mask()),
        ]
        assert rows_of_forwards(backends[kind], requests) == [2, 2]


def test_pictures_of_as_many_tokens_in_other_places_are_never_stacked(
    backends: dict[str, Any], libraries: Callable[[str, Any], Any]
) -> None:
    backend = backends["flux"]
    requests = [draw(height=64, width=96), draw(height=96, width=64)]
    states = [backend.prepare(request) for request in requests]
    while backend.remaining(states[0]):
        assert backend.step(states) == [None, None]
    for request, state in zip(requests, states, strict=True):
        wanted = call(libraries("flux", request), request)
        assert_drawn(backend, request, backend.finish(state), wanted)


@pytest.mark.parametrize("timestep", [7, 7.5, torch.tensor(7), torch.tensor([7, 7])])
def test_timesteps_go_to_the_device_of_the_latents_one_for_each_row(
    timestep: Any, backends: dict[str, Any]
) -> None:
    from sheaf.backends._families.diffusers.stacking import Asking

    latents = torch.zeros(2, 4, 8, 8, device="meta")
    question = Asking(backends["sdxl"].denoiser, frozenset(), ()).question((latents, timestep), {})
    assert question.rows == 2
    assert question.arguments["timestep"].shape == (2,)
    assert question.arguments["timestep"].device.type == "meta"


def test_a_step_that_fails_can_be_taken_again(
    backends: dict[str, Any], libraries: Callable[[str, Any], Any]
) -> None:
    backend = backends["sdxl"]
    requests = [draw(seed=1), draw(seed=2)]
    states = [backend.prepare(request) for request in requests]
    assert backend.step(states) == [None, None]

    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    hook = backend.denoiser.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        backend.step(states)
    hook.remove()
    for request, state in zip(requests, states, strict=True):
        while backend.remaining(state):
            assert backend.step([state]) == [None]
        assert_drawn(backend, request, backend.finish(state), call(libraries("sdxl", request), request))


def test_the_settings_of_a_scheduler_replace_the_checkpoints(
    diffusion_checkpoints: dict[str, str], libraries: Callable[[str, Any], Any]
) -> None:
    settings = {"scheduler": "HeunDiscreteScheduler", "scheduler_kwargs": {"use_karras_sigmas": True}}
    backend = load_recording(SDXLBackend, diffusion_checkpoints["sdxl"], **SETTINGS, **settings)
    library = pipeline_of("StableDiffusionXLPipeline", diffusion_checkpoints["sdxl"])
    from diffusers import HeunDiscreteScheduler

    library.scheduler = HeunDiscreteScheduler.from_config(library.scheduler.config, use_karras_sigmas=True)
    requests = [draw(num_inference_steps=3), draw(num_inference_steps=4, seed=2)]
    for request, answer in zip(requests, backend.batch_predict(requests), strict=True):
        assert_drawn(backend, request, answer, call(library, request))


def test_a_checkpoint_made_for_inpainting_is_served_in_its_mode(
    diffusion_checkpoints: dict[str, str],
) -> None:
    path = diffusion_checkpoints["sdxl-inpainting"]
    backend = load_recording(SDXLBackend, path, mode="inpaint", **SETTINGS)
    library = pipeline_of("StableDiffusionXLInpaintPipeline", path)
    requests = [redraw(mask=mask()), redraw(seed=2, strength=1.0, num_inference_steps=2)]
    for request, answer in zip(requests, backend.batch_predict(requests), strict=True):
        assert_drawn(backend, request, answer, call(library, request))
    for mode in ("img2img", "text2img"):
        with pytest.raises(ValueError, match="made for inpainting"):
            SDXLBackend(path, mode=mode, **SETTINGS).load()  # type: ignore[arg-type]


def test_settings_in_the_checkpoint_reach_every_pipeline(
    diffusion_checkpoints: dict[str, str], tmp_path: Path
) -> None:
    """An empty negative prompt is encoded here, where other checkpoints have zeros in its place."""
    import json
    import shutil

    path = tmp_path / "encoded"
    shutil.copytree(diffusion_checkpoints["sdxl"], path)
    index = json.loads((path / "model_index.json").read_text())
    assert index["force_zeros_for_empty_prompt"] is True
    index["force_zeros_for_empty_prompt"] = False
    (path / "model_index.json").write_text(json.dumps(index))
    backend = load_recording(SDXLBackend, str(path), mode="img2img", **SETTINGS)
    request = redraw()
    answer = backend.predict(request)
    assert_drawn(
        backend, request, answer, call(pipeline_of("StableDiffusionXLImg2ImgPipeline", str(path)), request)
    )


def test_guidance_is_embedded_unless_there_is_a_negative_prompt(
    diffusion_checkpoints: dict[str, str],
) -> None:
    schnell = load_recording(FluxBackend, diffusion_checkpoints["schnell"], **FLUX_SETTINGS)
    library = pipeline_of("FluxPipeline", diffusion_checkpoints["schnell"])
    plain, negative = draw(guidance_scale=0.0), draw(guidance_scale=4.0, negative_prompt="sketch")
    for request in (plain, negative):
        answer = schnell.predict(request)
        assert_drawn(schnell, request, answer, call(library, request))
        assert answer.metadata.warnings == []
    ignored = schnell.predict(draw(guidance_scale=4.0))
    assert ignored.image == schnell.predict(plain).image
    assert "guidance_scale has no effect" in ignored.metadata.warnings[0]

    weighed = load_recording(FluxBackend, diffusion_checkpoints["flux"], true_cfg_scale=2.5, **FLUX_SETTINGS)
    wanted = call(
        pipeline_of("FluxPipeline", diffusion_checkpoints["flux"]),
        negative,
        true_cfg_scale=2.5,
        guidance_scale=4.0,
    )
    assert_drawn(weighed, negative, weighed.predict(negative), wanted)


@pytest.mark.parametrize("kind", ["flux", "sdxl"])
def test_a_negative_prompt_without_guidance_has_a_warning(kind: str, backends: dict[str, Any]) -> None:
    alone = backends[kind].predict(draw(guidance_scale=1.0))
    answer = backends[kind].predict(draw(guidance_scale=1.0, negative_prompt="sketch"))
    assert answer.image == alone.image
    assert "negative_prompt has no effect" in answer.metadata.warnings[0]
    assert alone.metadata.warnings == []
