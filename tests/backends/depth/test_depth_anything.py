"""The backend `depth-anything` against the library's own call for each image alone."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sheaf.api.depth import DepthRequest, DepthResponse
from sheaf.backends._shared.images import encoded
from sheaf.backends.depth_anything import DepthAnythingBackend
from sheaf.spec import ModelSpec
from sheaf_client import Sheaf
from sheaf_client.errors import InvalidRequestError
from tests.backends.depth.checkpoints import make_depth_anything

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_thread")]

#: Width and height: of one shape for the model, of others, and with a side that is scaled up.
SIZES = [(80, 60), (160, 120), (50, 90), (56, 56), (31, 29), (150, 40)]


@pytest.fixture(scope="module", params=["relative", "metric"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_depth_anything(tmp_path_factory.mktemp("depth"), metric=request.param == "metric")


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def direct(path: Path, image: Image.Image) -> Any:
    """The map of one image by the library's own pipeline's steps, shape (height, width)."""
    from transformers import DepthAnythingForDepthEstimation, DPTImageProcessorPil

    model = DepthAnythingForDepthEstimation.from_pretrained(path).eval()
    processor = DPTImageProcessorPil.from_pretrained(path)
    with torch.inference_mode():
        found = model(**processor(images=image, return_tensors="pt"))
    size = [(image.height, image.width)]
    return processor.post_process_depth_estimation(found, target_sizes=size)[0]["predicted_depth"].numpy()


def test_images_of_any_sizes_together_equal_the_librarys_single_calls(checkpoint: Path) -> None:
    pictures = [picture(*size, seed) for seed in range(2) for size in SIZES]
    random.Random(0).shuffle(pictures)
    spec = ModelSpec(name="d", backend="depth-anything", backend_kwargs={"model_id": str(checkpoint)})
    with Sheaf.local([spec]) as client:
        given: dict[str, Any] = {"model_name": "d", "normalize": False}
        asked = [DepthRequest(image=encoded(image, "png"), **given) for image in pictures]
        together = client.depth.estimate_many(asked)
        scaled = client.depth.estimate(model="d", image=encoded(pictures[0], "png"))
    assert any(answer.metadata.usage and answer.metadata.usage.batch_size > 1 for answer in together)
    for image, answer in zip(pictures, together, strict=True):
        expected = direct(checkpoint, image)
        assert (answer.height, answer.width) == expected.shape
        np.testing.assert_allclose(answer.to_numpy(), expected, atol=2e-5 * np.abs(expected).max())
        assert (answer.min_depth, answer.max_depth) == (answer.to_numpy().min(), answer.to_numpy().max())
        assert np.ptp(expected) > 0.05 * np.abs(expected).max(), "a flat map proves nothing"
    assert (scaled.to_numpy().min(), scaled.to_numpy().max()) == (0, 1)
    assert scaled.max_depth == together[0].max_depth


def test_what_is_long_and_narrow_is_refused_and_the_next_is_answered(checkpoint: Path) -> None:
    backend = DepthAnythingBackend(checkpoint)
    backend.load()
    for width, height, said in ((600, 20, "600 by 20 pixels"), (2, 900, "2 by 900 pixels")):
        with pytest.raises(InvalidRequestError) as refused:
            backend.check(DepthRequest(model_name="d", image=encoded(picture(width, height), "png")))
        (fault,) = refused.value.errors
        assert (fault.code, fault.path) == ("out_of_range", "/image_b64")
        assert said in fault.message
    assert isinstance(backend.predict(backend.smallest()), DepthResponse)
