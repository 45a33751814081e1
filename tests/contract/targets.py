"""The places a model can run, each behind the same typed client: what one contract suite is run against."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sheaf.embedded import EmbeddedServer
from sheaf.http import create_app
from sheaf.local import LocalModels
from sheaf.spec import ModelSpec, ResourceConfig
from sheaf_client import AsyncSheaf, Sheaf

#: Ports of the test clusters; Ray's proxy cannot be given port 0.
RAY_PORT = 18273


@contextmanager
def local(specs: list[ModelSpec]) -> Iterator[Sheaf]:
    """Models in this process."""
    with Sheaf.local(specs) as client:
        yield client


@contextmanager
def asgi(specs: list[ModelSpec]) -> Iterator[Sheaf]:
    """The ASGI app in this process: all of HTTP but the socket."""
    models = LocalModels.start(specs)
    with Sheaf.asgi(create_app(models)) as client:
        yield client
    models.stop()


@contextmanager
def http(specs: list[ModelSpec]) -> Iterator[Sheaf]:
    """The embedded server, over a socket."""
    with EmbeddedServer(specs, port=0) as server, Sheaf(server.url) as client:
        yield client


@contextmanager
def ray_cluster() -> Iterator[None]:
    """A Ray cluster of this machine's two cores, dashboard off."""
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=150 * 2**20,
        log_to_driver=False,
        logging_level="ERROR",
    )
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def ray_serve(specs: list[ModelSpec]) -> Iterator[Sheaf]:
    """Ray Serve on a cluster of its own."""
    from sheaf import ModelServer

    with ray_cluster():
        small = ResourceConfig(num_cpus=min(0.1, 1 / len(specs)))
        small_ones = [s.model_copy(update={"resources": small}) for s in specs]
        with ModelServer(small_ones, port=RAY_PORT) as server, Sheaf(server.url, timeout=120) as client:
            yield client


def open_async(client: Sheaf, specs: list[ModelSpec]) -> AsyncSheaf:
    """An asynchronous client of the kind of a target: of the same server, or of models of its own."""
    target = repr(client).removeprefix("Sheaf(").removesuffix(")")
    if target.startswith("http"):
        return AsyncSheaf(target, timeout=120)
    if target.startswith("local"):
        return AsyncSheaf.local(specs)
    return AsyncSheaf.asgi(create_app(LocalModels.start(specs)))


TARGETS: dict[str, Any] = {"local": local, "asgi": asgi, "http": http, "ray": ray_serve}
