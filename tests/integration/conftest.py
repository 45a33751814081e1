"""What several files of tests share: queues of jobs, checkpoints, and one thread of torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.integration.adapter_cases import Studio
from tests.integration.queues import Queues, RedisServer


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Several threads only slow small models down, and leave less for others on the machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(params=["sqlite", "redis"])
def queues(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Queues]:
    """Each queue in turn, empty."""
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        server.clear()
        opened = Queues(server.url)
    else:
        opened = Queues(f"sqlite:///{tmp_path}/jobs.db")
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def diffusion_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of small checkpoints of FLUX and SDXL."""
    from tests.diffusion_checkpoints import make_flux, make_sdxl

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
