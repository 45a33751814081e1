"""What the tests of backends share: one thread of torch, and checkpoints that several files load."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.backends.diffusion.adapter_cases import Studio

BACKENDS = Path(__file__).parent


def pytest_itemcollected(item: pytest.Item) -> None:
    """A test of a family's folder has the family's mark."""
    family, *inside = item.path.relative_to(BACKENDS).parts
    if inside:
        item.add_marker(family)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Several threads only slow small models down, and leave less for others on the machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def diffusion_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of small checkpoints of FLUX and SDXL."""
    from tests.backends.diffusion.checkpoints import make_flux, make_sdxl

    folder = tmp_path_factory.mktemp("diffusion")
    return {
        "flux": str(make_flux(folder / "flux")),
        "schnell": str(make_flux(folder / "schnell", guidance=False)),
        "sdxl": str(make_sdxl(folder / "sdxl")),
        "sdxl-inpainting": str(make_sdxl(folder / "sdxl-inpainting", inpainting=True)),
    }


@pytest.fixture(scope="session")
def studio_of(
    diffusion_checkpoints: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Studio]:
    """The small checkpoint of a family of diffusion models with its LoRA files, made when first wanted."""
    folder = tmp_path_factory.mktemp("adapters")
    return cache(lambda family: Studio(family, diffusion_checkpoints[family], folder))
