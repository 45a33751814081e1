"""Asynchronous clients in one event loop after another and in two at once; synchronous ones inside a loop."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from sheaf.embedded import EmbeddedServer
from sheaf.http import create_app
from sheaf.local import LocalModels
from sheaf.spec import ModelSpec
from sheaf_client import AsyncSheaf, ClientClosedError, Sheaf
from tests.echoes import Echo, Stepping

SPECS = [ModelSpec(name="m", backend_cls=Echo), ModelSpec(name="steps", backend_cls=Stepping)]


def ask(value: float, **more: Any) -> dict[str, Any]:
    return {"model": "m", "history": [value], "horizon": 1, "frequency": "1h", **more}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with EmbeddedServer(SPECS, port=0) as serving:
        yield serving.url


@pytest.fixture(scope="module")
def models() -> Iterator[LocalModels]:
    held = LocalModels.start(SPECS)
    yield held
    held.stop()


@pytest.fixture(params=["http", "own httpx client", "asgi", "local"])
def client(request: pytest.FixtureRequest, server: str, models: LocalModels) -> AsyncSheaf:
    """A client; where it sends a call once, no second try hides what goes wrong."""
    make: dict[str, Callable[[], AsyncSheaf]] = {
        "http": lambda: AsyncSheaf(server, max_retries=0),
        "own httpx client": lambda: AsyncSheaf(server, http_client=httpx.AsyncClient()),
        "asgi": lambda: AsyncSheaf.asgi(create_app(models), max_retries=0),
        "local": lambda: AsyncSheaf.local(SPECS),
    }
    return make[request.param]()


def test_every_call_of_one_loop_after_another_is_answered(client: AsyncSheaf) -> None:
    async def use(value: float) -> list[float]:
        both = await asyncio.gather(
            *(client.time_series.forecast(**ask(v)) for v in (value, value + 0.5)),
        )
        return [mean for answer in both for mean in answer.mean]

    for turn in range(4):
        assert asyncio.run(use(turn)) == [turn, turn + 0.5]

    async def end() -> None:
        await client.close()
        await client.time_series.forecast(**ask(1))

    with pytest.raises(ClientClosedError):
        asyncio.run(end())


def test_two_open_loops_take_turns(server: str) -> None:
    client = AsyncSheaf(server, max_retries=0)
    with asyncio.Runner() as one, asyncio.Runner() as other:
        for value, runner in enumerate([one, other, one, other, other, one]):
            answer = runner.run(client.time_series.forecast(**ask(value)))
            assert answer.mean == [value]
        one.run(client.close())
        with pytest.raises(ClientClosedError):
            other.run(client.time_series.forecast(**ask(1)))


def test_loops_of_two_threads_call_at_once(server: str) -> None:
    client = AsyncSheaf(server, max_retries=0)
    got: dict[float, list[float]] = {}

    async def use(sign: float) -> list[float]:
        return [(await client.time_series.forecast(**ask(sign * n))).mean[0] for n in range(1, 21)]

    def thread(sign: float) -> None:
        got[sign] = asyncio.run(use(sign))

    threads = [threading.Thread(target=thread, args=(sign,)) for sign in (1.0, -1.0)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert got == {sign: [sign * n for n in range(1, 21)] for sign in (1.0, -1.0)}


def test_connections_end_with_their_loop_also_under_an_open_stream(server: str) -> None:
    client = AsyncSheaf(server, max_retries=0)

    async def use() -> None:
        await client.time_series.forecast(**ask(1))
        stream = client.time_series.stream(**ask(1, model="steps", horizon=200))
        await anext(stream)

    gc.collect()  # what other tests left
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for _ in range(3):
            asyncio.run(use())
        gc.collect()
    assert [str(warning.message) for warning in warned if warning.category is ResourceWarning] == []


def test_a_loop_goes_on_where_the_generators_of_it_were_shut_down(server: str) -> None:
    client = AsyncSheaf(server, max_retries=0)
    loop = asyncio.new_event_loop()
    for value in (1, 2):
        assert loop.run_until_complete(client.time_series.forecast(**ask(value))).mean == [value]
        loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@pytest.mark.parametrize("kind", ["http", "asgi", "local"])
def test_a_synchronous_client_works_inside_a_running_loop(
    server: str, models: LocalModels, kind: str
) -> None:
    make: dict[str, Callable[[], Sheaf]] = {
        "http": lambda: Sheaf(server),
        "asgi": lambda: Sheaf.asgi(create_app(models)),
        "local": lambda: Sheaf.local(SPECS),
    }

    async def use(client: Sheaf) -> list[float]:
        return client.time_series.forecast(**ask(7)).mean

    with make[kind]() as client:
        for _ in range(2):
            assert asyncio.run(use(client)) == [7]
