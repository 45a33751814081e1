"""A deadline holds before admission, in line, at work and between the steps of a stream."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from sheaf_client.errors import DeadlineExceededError
from tests.conftest import MakeRequest
from tests.engine.harness import Inline, Streaming, World, block, hold_first, nothing_left, outcome, steered


async def drain(stream: Any) -> list[Any]:
    return [event async for event in stream]


def held() -> World:
    world = World()
    world.hooks["predict"] = hold_first(world)
    return world


@pytest.mark.parametrize("timeout", [0.0, -1.0])
def test_who_comes_too_late_is_refused_and_holds_no_place(make_request: MakeRequest, timeout: float) -> None:
    world = held()
    with steered(world) as runtime:
        block(runtime, world, make_request)
        request = make_request(1.0)
        with pytest.raises(DeadlineExceededError) as caught:
            runtime.predict_now(request, timeout=timeout)
        assert caught.value.request_id == str(request.request_id)
        with pytest.raises(DeadlineExceededError):
            asyncio.run(runtime.predict(make_request(1.0), timeout=timeout))
        with pytest.raises(DeadlineExceededError):
            list(runtime.iter_stream(make_request(1.0), timeout=timeout))
        with pytest.raises(DeadlineExceededError):
            asyncio.run(drain(runtime.stream(make_request(1.0), timeout=timeout)))
        late = runtime.submit(make_request(1.0), timeout=timeout)
        world.gate.set()
        assert isinstance(outcome(late), DeadlineExceededError)
        nothing_left(runtime)
        assert world.calls == [[0.0]]


@pytest.mark.parametrize("timeout", [float("inf"), 1e300, 1e12])
def test_any_length_of_patience_will_do(make_request: MakeRequest, timeout: float) -> None:
    with steered(World(), Streaming) as runtime:
        assert runtime.submit(make_request(1.0), timeout=timeout).result(10).mean[0] == 1
        assert runtime.predict_now(make_request(1.0), timeout=timeout).mean[0] == 1
        assert asyncio.run(runtime.predict(make_request(1.0), timeout=timeout)).mean[0] == 1
        assert list(runtime.iter_stream(make_request(1.0), timeout=timeout))[-1].type == "result"
        assert asyncio.run(drain(runtime.stream(make_request(1.0), timeout=timeout)))[-1].type == "result"


def test_who_expires_in_line_is_told_by_its_own_name(make_request: MakeRequest) -> None:
    world = held()
    with steered(world) as runtime:
        block(runtime, world, make_request)
        requests = [make_request(1.0) for _ in range(3)]
        futures = [runtime.submit(r, timeout=0.01) for r in requests]
        with pytest.raises(DeadlineExceededError):
            runtime.predict_now(make_request(2.0), timeout=0.05)
        world.gate.set()
        errors = [outcome(f) for f in futures]
        assert [e.request_id for e in errors] == [str(r.request_id) for r in requests]
        nothing_left(runtime)
        assert world.calls == [[0.0]]


def test_a_deadline_within_the_window_is_told_before_the_window_ends(make_request: MakeRequest) -> None:
    with steered(World(), wait="always", timeout_ms=60_000) as runtime:
        late = runtime.submit(make_request(1.0), timeout=0.02)
        assert isinstance(outcome(late), DeadlineExceededError)
        nothing_left(runtime)


def test_a_deadline_passes_while_the_call_is_at_work(make_request: MakeRequest) -> None:
    world = held()
    with steered(world) as runtime:
        with pytest.raises(DeadlineExceededError):
            runtime.predict_now(make_request(1.0), timeout=0.02)
        assert world.entered.is_set()
        with pytest.raises(DeadlineExceededError):
            asyncio.run(runtime.predict(make_request(1.0), timeout=0.02))
        world.gate.set()
        nothing_left(runtime)
        assert runtime.predict_now(make_request(3.0), timeout=10).mean[0] == 3


@pytest.mark.parametrize("way", ["threads", "loop"])
def test_a_deadline_between_the_steps_of_a_stream_counts_from_its_beginning(
    make_request: MakeRequest, way: str
) -> None:
    """Steps that come in time each do not move it."""
    pause, closed = threading.Event(), threading.Event()
    world = World(step=lambda _: pause.wait(0.01), closed=closed.set)
    with steered(world, Streaming) as runtime:
        request = make_request(1.0, horizon=10_000)

        def listen() -> list[Any]:
            if way == "threads":
                return list(runtime.iter_stream(request, timeout=0.1))
            return asyncio.run(drain(runtime.stream(request, timeout=0.1)))

        with pytest.raises(DeadlineExceededError) as caught:
            listen()
        assert caught.value.request_id == str(request.request_id)
        assert closed.wait(10)
        assert world.threads["closed"] == world.threads["load"]
        nothing_left(runtime)


def test_a_step_that_takes_too_long_does_not_hold_its_caller(make_request: MakeRequest) -> None:
    world = World()
    world.hooks["step"] = world.hold
    with steered(world, Streaming) as runtime:
        with pytest.raises(DeadlineExceededError):
            list(runtime.iter_stream(make_request(1.0), timeout=0.05))
        world.gate.set()
        nothing_left(runtime)


def test_an_answer_computed_here_is_given_even_after_its_deadline(make_request: MakeRequest) -> None:
    """A caller that runs its own call cannot leave it; what it then has is no secret from it."""
    pause = threading.Event()
    with steered(World(predict=lambda _: pause.wait(0.05)), Inline) as runtime:
        assert runtime.predict_now(make_request(1.0), timeout=0.01).mean[0] == 1
        nothing_left(runtime)
