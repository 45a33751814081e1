"""A caller may leave at any moment: its place is free at once, nothing is left behind, the next is served."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from sheaf.backends.base import BackendDiedError
from sheaf.engine import ModelRuntime
from sheaf_client.errors import DeadlineExceededError
from tests.conftest import MakeRequest
from tests.engine.harness import Steered, Streaming, World, nothing_left, outcome, steered, wait_until

Make = Callable[[ModelRuntime], Awaitable[Any]]


async def cancelled_after(steps: int, call: Awaitable[Any]) -> bool:
    """Let a call go so many steps of the loop, then cancel it; whether it was over by then."""
    task = asyncio.ensure_future(call)
    for _ in range(steps):
        if task.done():
            break
        await asyncio.sleep(0)
    over = task.done()
    task.cancel()
    await asyncio.wait([task])
    assert over or task.cancelled() or task.exception() is None
    return over


def calls(make_request: MakeRequest) -> dict[str, Make]:
    async def stream(runtime: ModelRuntime) -> list[Any]:
        return [event async for event in runtime.stream(make_request(1.0, horizon=3))]

    def many(runtime: ModelRuntime) -> Awaitable[Any]:
        return runtime.predict_many([make_request(float(i)) for i in range(3)])

    return {
        "predict": lambda runtime: runtime.predict(make_request(1.0)),
        "timed": lambda runtime: runtime.predict(make_request(1.0), timeout=20),
        "many": many,
        "stream": stream,
    }


@pytest.mark.parametrize("cache", [False, True], ids=["plain", "cached"])
@pytest.mark.parametrize("backend", [Steered, Streaming])
@pytest.mark.parametrize("name", ["predict", "timed", "many", "stream"])
def test_leaving_after_any_number_of_steps(
    make_request: MakeRequest, name: str, backend: type[Steered], *, cache: bool
) -> None:
    """Cancel after 0, 1, 2, … steps of the loop, until a call was over before that."""

    async def leave_everywhere() -> int:
        steps, over = 0, False
        while not over:
            unlike = partial(make_request, seed=steps)  # no answer is kept yet
            over = await cancelled_after(steps, calls(unlike)[name](runtime))
            steps += 1 if steps < 40 else steps // 4
            assert steps < 10**6, "the call is never over"
        return steps

    with steered(World(), backend, cache=cache) as runtime:
        assert asyncio.run(leave_everywhere()) > 1
        nothing_left(runtime)
        assert runtime.predict_now(make_request(2.0), timeout=10).mean[0] == 2


@pytest.mark.parametrize("name", ["predict", "timed", "many", "stream"])
@pytest.mark.parametrize("backend", [Steered, Streaming])
def test_leaving_while_the_call_is_at_work(
    make_request: MakeRequest, name: str, backend: type[Steered]
) -> None:
    world = World()
    world.hooks = {"predict": world.hold, "step": world.hold}

    async def leave(runtime: ModelRuntime) -> None:
        task = asyncio.ensure_future(calls(make_request)[name](runtime))
        while not world.entered.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with steered(world, backend) as runtime:
        asyncio.run(leave(runtime))
        world.gate.set()
        assert runtime.predict_now(make_request(2.0), timeout=10).mean[0] == 2
        nothing_left(runtime)


def test_a_future_may_be_cancelled_at_every_stage(make_request: MakeRequest) -> None:
    died = threading.Event()

    def predict(values: list[float]) -> None:
        if values == [0.0]:
            world.hold()
        if values == [666.0] and not died.is_set():
            died.set()
            raise BackendDiedError

    loading = threading.Event()

    def load() -> None:
        if world.loads == 2:
            loading.wait(10)

    world = World(predict=predict, load=load)
    with steered(world, max_batch_size=1) as runtime:
        at_work = runtime.submit(make_request(0.0))
        assert world.entered.wait(10)
        in_line = runtime.submit(make_request(1.0))
        retried = runtime.submit(make_request(666.0))
        assert in_line.cancel()
        assert runtime.depth == 1
        assert at_work.cancel()
        world.gate.set()
        assert died.wait(10)
        wait_until(lambda: world.loads == 2)
        assert runtime.depth == 1
        assert retried.cancel()
        assert runtime.depth == 0
        loading.set()
        answered = runtime.submit(make_request(2.0))
        assert answered.result(10).mean[0] == 2
        assert not answered.cancel()
        assert world.calls == [[0.0], [666.0], [2.0]]
        nothing_left(runtime)


def test_a_stream_left_in_line_cleans_up_on_the_models_thread(make_request: MakeRequest) -> None:
    """Expired between two steps by a caller that needs its place, not by the lane."""

    def step(number: int) -> None:
        if number == 2:
            world.hold()

    def hold(values: list[float]) -> None:
        world.entered.clear()
        world.gate.clear()
        world.hold()

    closed = threading.Event()
    world = World(predict=hold, step=step, closed=closed.set)
    with steered(world, Streaming, max_queue=1) as runtime:
        events = runtime.iter_stream(make_request(1.0, horizon=50), timeout=0.3)
        next(events)
        assert world.entered.wait(10)
        other = runtime.submit(make_request(2.0))  # runs between two steps, and holds the model
        world.entered.clear()
        world.gate.set()
        wait_until(lambda: world.calls)
        assert world.entered.wait(10)
        with pytest.raises(DeadlineExceededError):
            list(events)
        # The stream's next step waits; its deadline has passed, and this caller takes its place.
        third = runtime.submit(make_request(3.0))
        assert not closed.is_set()
        world.hooks["predict"] = lambda _: None
        world.gate.set()
        assert other.result(10).mean[0] == 2
        assert third.result(10).mean[0] == 3
        assert closed.wait(10)
        assert world.threads["closed"] == world.threads["load"]


@pytest.mark.parametrize("drain", [True, False])
def test_stopping_ends_a_stream_at_work(make_request: MakeRequest, *, drain: bool) -> None:
    closed = threading.Event()
    world = World(closed=closed.set)
    world.hooks["step"] = lambda number: world.hold() if number == 2 else None
    with steered(world, Streaming) as runtime:
        kinds: list[str] = []

        def listen() -> None:
            try:
                kinds.extend(e.type for e in runtime.iter_stream(make_request(1.0, horizon=30), timeout=20))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told
                kinds.append(type(error).__name__)

        listener = threading.Thread(target=listen)
        listener.start()
        assert world.entered.wait(10)
        stopper = threading.Thread(target=lambda: runtime.stop(drain=drain))
        stopper.start()
        wait_until(lambda: runtime._lane is None)
        wait_until(lambda: not drain or stopper.is_alive())
        world.gate.set()
        stopper.join(10)
        listener.join(10)
    assert kinds[-1] == ("result" if drain else "UnavailableError")
    assert closed.is_set()
    assert world.threads["closed"] == world.threads["load"]


def test_a_loop_that_is_gone_is_not_kept(make_request: MakeRequest) -> None:
    """Callers that make a loop for each call leave none of them behind."""
    import gc

    from sheaf.engine import delivery

    gc.collect()
    before = set(delivery._mailboxes)  # of servers that other tests keep running
    world = World()
    world.hooks["predict"] = world.hold
    with steered(world) as runtime:

        async def leave() -> None:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(runtime.predict(make_request(1.0)), 0.01)

        for _ in range(5):
            asyncio.run(leave())
        world.gate.set()
        for _ in range(5):
            assert asyncio.run(runtime.predict(make_request(1.0))).mean[0] == 1
        nothing_left(runtime)
    gc.collect()
    assert set(delivery._mailboxes) <= before


def test_an_answer_for_a_loop_that_is_closed_is_dropped(make_request: MakeRequest) -> None:
    world = World()
    world.hooks["predict"] = world.hold
    with steered(world) as runtime:
        loop = asyncio.new_event_loop()
        task = loop.create_task(runtime.predict(make_request(1.0)))
        while not world.entered.is_set():
            loop.run_until_complete(asyncio.sleep(0.001))
        task.cancel()
        loop.run_until_complete(asyncio.wait([task]))
        loop.close()
        world.gate.set()
        assert outcome(runtime.submit(make_request(2.0))).mean[0] == 2
