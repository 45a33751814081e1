"""What every backend promises, of FLUX and SDXL: from text, and from an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import pytest

from sheaf.backends.flux import FluxBackend
from sheaf.backends.sdxl import SDXLBackend
from tests.backends.conformance import CHECKPOINT_CHECKS, BackendConformance
from tests.backends.diffusion.diffusion_cases import (
    SETTINGS,
    TEXT_TOKENS,
    call,
    draw,
    mask,
    picture,
    pipeline_of,
    redraw,
)

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_thread")]


class Drawing(BackendConformance):
    """What holds for each of them."""

    #: Pixels come in files: the tests beside this one compare them before that, and to the byte.
    tolerance = 2e-5
    #: A request takes a pass for each step.
    co_batches = 3
    unused_libraries = ("peft",)
    options: ClassVar[Mapping[str, Sequence[Any]]] = {
        "num_inference_steps": [1, 2, 3],
        "num_images": [1, 2],
        "guidance_scale": [0.0, 3.5],
        "output_format": ["png"],
        "seed": [0, 5],
    }
    exempt: ClassVar[Mapping[str, str]] = {
        "test_half_precision_is_near_and_another_dtype_is_refused": "see test_diffusers_loading.py: exactly"
    }
    kind: ClassVar[str]
    pipelines: ClassVar[tuple[str, ...]]
    more: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture(scope="class")
    def settings(self, diffusion_checkpoints: dict[str, str]) -> dict[str, Any]:
        return {"model_id": diffusion_checkpoints[self.kind], **SETTINGS, **self.more}

    @pytest.fixture(scope="class")
    def requests(self) -> Sequence[Any]:
        return [
            draw(seed=1, num_inference_steps=2),
            draw("the dog", seed=2, guidance_scale=1.0, height=96),
            draw("a city", seed=3, num_inference_steps=1, negative_prompt="sketch"),
            draw(seed=4, num_inference_steps=2, num_images=2),
        ]

    @pytest.fixture(scope="class")
    def direct(self, settings: dict[str, Any]) -> Callable[[Any], dict[str, Any]]:
        found = [pipeline_of(name, settings["model_id"]) for name in self.pipelines]

        def one(request: Any) -> dict[str, Any]:
            drawn = call(found[getattr(request, "mask", None) is not None], request)
            return {"image": drawn[0], "height": drawn.shape[1], "seed": request.seed}

        return one


class TestFlux(Drawing):
    backend_class = FluxBackend
    kind, pipelines = "flux", ("FluxPipeline",)
    more: ClassVar[Mapping[str, Any]] = {"max_sequence_length": TEXT_TOKENS}
    needed_files = ("model_index.json", "transformer/config.json")
    needed_weights = (("transformer/diffusion_pytorch_model.safetensors", "context_embedder.weight"),)

    @pytest.fixture(scope="class")
    def neighbor(self, settings: dict[str, Any], diffusion_checkpoints: dict[str, str]) -> dict[str, Any]:
        return {**settings, "model_id": diffusion_checkpoints["schnell"]}

    @pytest.fixture(scope="class")
    def refused(self) -> Sequence[tuple[Any, str, str]]:
        return [(draw(width=72), "out_of_range", "/width")]


class TestSDXL(Drawing):
    backend_class = SDXLBackend
    kind, pipelines = "sdxl", ("StableDiffusionXLPipeline",)
    needed_files = ("model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors")
    needed_weights = (("unet/diffusion_pytorch_model.safetensors", "conv_in.weight"),)

    @pytest.fixture(scope="class")
    def neighbor(self, settings: dict[str, Any]) -> dict[str, Any]:
        return {**settings, "scheduler": "EulerAncestralDiscreteScheduler"}

    @pytest.fixture(scope="class")
    def refused(self) -> Sequence[tuple[Any, str, str]]:
        return [(draw(adapters=["a"], adapter_weights=[5e3]), "out_of_range", "/adapter_weights/0")]


class TestSDXLImage(Drawing):
    backend_class = SDXLBackend
    kind = "sdxl"
    pipelines = ("StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline")
    more: ClassVar[Mapping[str, Any]] = {"mode": "img2img"}
    exempt: ClassVar[Mapping[str, str]] = {
        **Drawing.exempt,
        **dict.fromkeys(
            (
                *CHECKPOINT_CHECKS,
                "test_a_missing_library_is_told_with_the_command_that_installs_it",
                "test_a_model_can_be_loaded_again",
                "test_memory_comes_back",
                "test_nothing_global_changes_by_the_first_load_of_a_process",
                "test_streams_end_in_the_answer_of_a_call",
                "test_two_models_of_the_family_keep_to_themselves",
            ),
            "it loads and steps as the one from text does, which TestSDXL shows",
        ),
    }

    @pytest.fixture(scope="class")
    def requests(self) -> Sequence[Any]:
        return [
            redraw(seed=1, num_inference_steps=2, strength=0.6),
            redraw("the dog", seed=2, num_inference_steps=2, image=picture(seed=2), mask=mask()),
            redraw("a city", seed=3, num_inference_steps=3, strength=1.0, negative_prompt="sketch"),
            redraw(seed=4, num_inference_steps=2, image=picture(96, 64)),
        ]

    @pytest.fixture(scope="class")
    def refused(self) -> Sequence[tuple[Any, str, str]]:
        return [(redraw(strength=0.1, num_inference_steps=5), "out_of_range", "/strength")]

    @pytest.fixture(scope="class")
    def poison(self, refused: Sequence[tuple[Any, str, str]]) -> Sequence[tuple[Any, str, str]]:
        return [*refused, (redraw(mask=mask(64, 72)), "mismatch", "/mask_b64")]
