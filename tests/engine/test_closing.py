"""Stopping waits for what somebody waits for; not for a call whose callers have all left."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from sheaf.api.time_series import TimeSeriesRequest
from sheaf.embedded import EmbeddedServer
from sheaf.engine import ModelRuntime
from sheaf.engine.lane_model import LaneState
from sheaf.spec import ModelSpec
from sheaf_client import AsyncSheaf, Sheaf
from sheaf_client.errors import DeadlineExceededError, UnavailableError
from tests.conftest import MakeRequest
from tests.engine.harness import Inline, Steered, World, hold_first, outcome, steered, wait_until


def spec_of(world: World, **policy: Any) -> ModelSpec:
    return ModelSpec(name="m", backend_cls=Steered, backend_kwargs={"world": world}, batch_policy={**policy})


def unloads(world: World) -> list[int]:
    """A list that grows by one with each unload: how many calls were in the model by then."""
    seen: list[int] = []
    world.hooks["unload"] = lambda: seen.append(world.inside)
    return seen


@contextmanager
def interrupted(world: World, thread: Callable[[], int | None]) -> Iterator[None]:
    """Ctrl-C comes once the model is in the call that it holds, and is told to that thread.

    Told again until it is heard, since a thread in httpx or the system may be told a moment before it sleeps.
    """
    heard = threading.Event()

    def hear(*_: object) -> None:
        heard.set()
        raise KeyboardInterrupt

    def press() -> None:
        assert world.entered.wait(10)
        while not heard.is_set():
            ident = thread()
            assert ident is not None
            signal.pthread_kill(ident, signal.SIGINT)
            heard.wait(1)

    before = signal.signal(signal.SIGINT, hear)
    presses = threading.Thread(target=press)
    presses.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGINT, before)
        presses.join(10)


def main_thread() -> int | None:
    return threading.main_thread().ident


@pytest.mark.parametrize("drain", [True, False])
@pytest.mark.parametrize("cache", [False, True], ids=["plain", "cached"])
def test_a_call_that_timed_out_is_not_waited_for(
    make_request: MakeRequest, *, cache: bool, drain: bool
) -> None:
    world = World(predict=lambda _: world.hold())
    seen = unloads(world)
    with steered(world, cache=cache) as runtime:
        with pytest.raises(DeadlineExceededError):
            runtime.predict_now(make_request(1.0), timeout=0.05)
        assert world.entered.wait(10)
        runtime.stop(drain=drain)
        assert (world.inside, seen) == (1, [])  # it is still in the model, which is its own to unload
        world.gate.set()
        wait_until(lambda: seen)
    assert seen == [0]
    assert world.threads["unload"] == world.threads["predict"]


def test_a_call_left_while_the_model_stops_is_not_waited_for(make_request: MakeRequest) -> None:
    world = World(predict=lambda _: world.hold())
    seen = unloads(world)
    with steered(world) as runtime:
        lane, future = runtime._lane, runtime.submit(make_request(1.0))
        assert world.entered.wait(10)
        stopping = threading.Thread(target=runtime.stop)
        stopping.start()
        assert lane is not None
        wait_until(lambda: lane._state is LaneState.DRAINING)
        future.cancel()
        stopping.join(10)
        assert (stopping.is_alive(), world.inside, seen) == (False, 1, [])
        world.gate.set()
        wait_until(lambda: seen)


def test_who_still_waits_behind_it_is_answered(make_request: MakeRequest) -> None:
    world = World()
    world.hooks["predict"] = hold_first(world)
    seen = unloads(world)
    with steered(world, max_batch_size=1) as runtime:
        with pytest.raises(DeadlineExceededError):
            runtime.predict_now(make_request(1.0), timeout=0.05)
        assert world.entered.wait(10)
        waiting = runtime.submit(make_request(2.0))
        threading.Timer(0, world.gate.set).start()
        runtime.stop()
        assert set(outcome(waiting).mean) == {2.0}
        assert seen == [0]


def test_a_lone_call_that_was_answered_is_unloaded_before_stop_returns(make_request: MakeRequest) -> None:
    for backend in (Steered, Inline):
        world = World()
        seen = unloads(world)
        with steered(world, backend) as runtime:
            assert set(runtime.predict_now(make_request(3.0)).mean) == {3.0}
        assert seen == [0]


def test_it_is_not_loaded_anew_where_nobody_waits(make_request: MakeRequest) -> None:
    world = World(predict=lambda _: world.hold())
    with steered(world, call_timeout_s=0.5) as runtime:
        lane = runtime._lane
        with pytest.raises(DeadlineExceededError):
            runtime.predict_now(make_request(1.0), timeout=0.05)
        runtime.stop()
        assert lane is not None
        assert lane._watchdog is not None
        lane._watchdog.join(1)  # the watcher would have given the thread up by now
        world.gate.set()
        assert lane._ended.wait(10)
    assert world.loads == 1


def test_ctrl_c_ends_a_load() -> None:
    world = World()
    world.hooks["load"] = world.hold
    seen = unloads(world)
    runtime = ModelRuntime(spec_of(world))
    with interrupted(world, main_thread):
        runtime.start()
    assert (world.gate.is_set(), seen) == (False, [])
    world.gate.set()
    wait_until(lambda: seen)
    assert not runtime.ready


def call_in_process(spec: ModelSpec) -> None:
    with Sheaf.local([spec]) as client:
        client.time_series.forecast(model="m", history=[1.0], horizon=1, frequency="1d")


def call_many_in_process(spec: ModelSpec) -> None:
    with Sheaf.local([spec]) as client:
        asked = TimeSeriesRequest(model_name="m", history=[1.0], horizon=1, frequency="1d")
        client.time_series.forecast_many([asked, asked])


def stream_in_process(spec: ModelSpec) -> None:
    with Sheaf.local([spec]) as client:
        asked = client.time_series.stream(model="m", history=[1.0], horizon=1, frequency="1d")
        with asked as stream:
            stream.final()


def call_served(spec: ModelSpec) -> None:
    with EmbeddedServer([spec], port=0) as server, Sheaf(server.url) as client:
        client.time_series.forecast(model="m", history=[1.0], horizon=1, frequency="1d")


CALLS: dict[str, Callable[[ModelSpec], None]] = {
    "local": call_in_process,
    "many": call_many_in_process,
    "stream": stream_in_process,
    "served": call_served,
}


@pytest.mark.parametrize("name", CALLS)
def test_ctrl_c_leaves_the_block(name: str) -> None:
    world = World(predict=lambda _: world.hold())
    seen = unloads(world)
    with interrupted(world, main_thread):
        CALLS[name](spec_of(world))
    assert (world.inside, seen) == (1, [])
    world.gate.set()
    wait_until(lambda: seen)
    assert seen == [0]


@pytest.mark.parametrize("name", ["local", "many", "stream"])
def test_ctrl_c_that_another_thread_is_told_of_leaves_it_too(name: str) -> None:
    world = World(predict=lambda _: world.hold())
    seen = unloads(world)
    with interrupted(world, threading.get_ident):
        CALLS[name](spec_of(world))
    assert (world.inside, seen) == (1, [])
    world.gate.set()
    wait_until(lambda: seen)
    assert seen == [0]


def test_ctrl_c_waits_for_no_other_thread() -> None:
    world = World(predict=lambda _: world.hold())
    seen = unloads(world)

    def call_beside(pool: ThreadPoolExecutor) -> None:
        with Sheaf.local([spec_of(world)]) as client:
            asked = partial(client.time_series.forecast, model="m", history=[1.0], horizon=1, frequency="1d")
            others.append(pool.submit(asked))
            assert world.entered.wait(10)
            raise KeyboardInterrupt

    others: list[Future[Any]] = []
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(KeyboardInterrupt):
            call_beside(pool)
        assert (world.inside, seen) == (1, [])
        with pytest.raises(UnavailableError):
            others[0].result(10)
    world.gate.set()
    wait_until(lambda: seen)


@pytest.mark.parametrize("caller", ["task", "thread"])
def test_ctrl_c_waits_for_no_other_caller_of_an_asynchronous_client(caller: str) -> None:
    world = World(predict=lambda _: world.hold())
    seen = unloads(world)
    others: list[Future[Any]] = []

    async def main() -> None:
        async with AsyncSheaf.local([spec_of(world)]) as client:
            call = client.time_series.forecast(model="m", history=[1.0], horizon=1, frequency="1d")
            if caller == "thread":
                others.append(pool.submit(asyncio.run, call))
            else:
                asked = asyncio.create_task(call)
                asked.add_done_callback(lambda done: others.append(told(done)))
            await asyncio.to_thread(world.entered.wait, 10)
            signal.raise_signal(signal.SIGINT)
            await asyncio.Event().wait()

    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(main())
        assert (world.inside, seen) == (1, [])
        with pytest.raises(UnavailableError):
            others[0].result(10)
    world.gate.set()
    wait_until(lambda: seen)


def told(done: asyncio.Task[Any]) -> Future[Any]:
    """The outcome of a task, for whoever has no event loop."""
    future: Future[Any] = Future()
    future.set_exception(done.exception() or AssertionError("it was answered"))
    return future
