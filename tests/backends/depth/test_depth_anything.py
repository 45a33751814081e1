"""The backend `depth-anything` against the library's own call for each image alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sheaf.api.depth import DepthRequest
from sheaf.backends._shared.images import encoded
from sheaf.backends.depth_anything import DepthAnythingBackend
from tests.backends.conformance import BackendConformance
from tests.backends.depth.checkpoints import make_depth_anything

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_thread")]

#: Width and height: of one shape for the model, of others, and with a side that is scaled up.
SIZES = [(80, 60), (160, 120), (50, 90), (56, 56), (31, 29), (150, 40)]


def ask(width: int, height: int, seed: int = 0, **fields: Any) -> DepthRequest:
    coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8))
    picture = coarse.resize((width, height), Image.Resampling.BICUBIC)
    return DepthRequest(model_name="d", image=encoded(picture, "png"), **fields)


def depths(path: Path) -> Callable[[DepthRequest], dict[str, Any]]:
    """The map of one image by the steps of the library's own pipeline."""
    model = transformers.DepthAnythingForDepthEstimation.from_pretrained(path).eval()
    processor = transformers.DPTImageProcessorPil.from_pretrained(path)

    def call(request: DepthRequest) -> dict[str, Any]:
        image = request.image.to_pil()
        with torch.inference_mode():
            found = model(**processor(images=image, return_tensors="pt"))
        size = [(image.height, image.width)]
        depth = processor.post_process_depth_estimation(found, target_sizes=size)[0]["predicted_depth"]
        least, most = float(depth.min()), float(depth.max())
        depth = (depth - least) / (most - least) if request.normalize else depth
        return {"depth": depth.numpy(), "height": image.height, "min_depth": least, "max_depth": most}

    return call


class TestDepthAnything(BackendConformance):
    backend_class = DepthAnythingBackend
    needed_files = ("config.json", "preprocessor_config.json", "model.safetensors")
    needed_weights = (("model.safetensors", "head.conv1.weight"),)

    @pytest.fixture(scope="class")
    def settings(self, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
        return {"model_id": make_depth_anything(tmp_path_factory.mktemp("relative"))}

    @pytest.fixture(scope="class")
    def neighbor(self, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
        return {"model_id": make_depth_anything(tmp_path_factory.mktemp("metric"), metric=True)}

    @pytest.fixture(scope="class")
    def requests(self) -> list[DepthRequest]:
        return [ask(*size, normalize=i % 2 == 0) for i, size in enumerate([*SIZES, SIZES[0]])]

    @pytest.fixture(scope="class")
    def direct(self, settings: dict[str, Any]) -> Callable[[DepthRequest], dict[str, Any]]:
        return depths(settings["model_id"])

    @pytest.fixture(scope="class")
    def refused(self) -> list[tuple[DepthRequest, str, str]]:
        return [(ask(*size), "out_of_range", "/image_b64") for size in ((600, 20), (2, 900))]

    def test_metres_equal_the_librarys(self, neighbor: dict[str, Any], requests: list[DepthRequest]) -> None:
        call = depths(neighbor["model_id"])
        found = [answer.depth for answer in self.loaded(neighbor).predict_all(requests)]
        self.assert_all_alike(found, [call(request)["depth"] for request in requests])
