"""A model that may run on its caller's thread: still one call at a time, in order, each answered once."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sheaf_client.errors import InternalServerError, UnavailableError
from tests.conftest import MakeRequest
from tests.engine.harness import Inline, Streaming, Values, World, outcome, steered, wait_until


class InlineStreaming(Streaming):
    """Both at once."""

    inline = True


def test_a_lone_caller_runs_its_call_itself(make_request: MakeRequest) -> None:
    world = World()
    with steered(world, Inline) as runtime:
        for i in range(20):
            assert runtime.predict_now(make_request(float(i)), timeout=10).mean[0] == i
        here = threading.get_ident()
        assert here in world.threads["predict"]
        assert here not in world.threads["load"]


def test_callers_together_never_overlap_in_the_model(make_request: MakeRequest) -> None:
    """Guests, the lane and streams by turns, and every caller hears its own answer once."""
    world = World()
    count, per_caller = 8, 40

    def ask(number: int) -> None:
        dice = random.Random(number)
        for i in range(per_caller):
            value = float(1000 * number + i)
            kind = dice.randrange(4)
            if kind == 0:
                assert runtime.submit(make_request(value)).result(20).mean[0] == value
            elif kind == 1 and i % 8 == 0:
                events = list(runtime.iter_stream(make_request(value), timeout=20))
                assert events[-1].response.mean[0] == value
            else:
                assert runtime.predict_now(make_request(value), timeout=20).mean[0] == value

    with steered(world, InlineStreaming) as runtime, ThreadPoolExecutor(count) as callers:
        for done in [callers.submit(ask, number) for number in range(count)]:
            done.result(60)
        assert runtime.depth == 0
    assert world.most_inside == 1
    served = sorted(value for call in world.calls for value in call)
    assert len(served) == len(set(served))


def test_what_comes_while_a_guest_runs_is_served_in_order_after_it(make_request: MakeRequest) -> None:
    def hold(values: Values) -> None:
        if values == [0.0]:
            world.hold()

    world = World(predict=hold)
    with steered(world, Inline, max_batch_size=1) as runtime:
        ends: list[Any] = []
        guest = threading.Thread(target=lambda: ends.append(runtime.predict_now(make_request(0.0))))
        guest.start()
        assert world.entered.wait(10)
        futures = [runtime.submit(make_request(float(i))) for i in range(1, 6)]
        assert runtime.depth == 5
        world.gate.set()
        assert [f.result(10).mean[0] for f in futures] == [1, 2, 3, 4, 5]
        guest.join(10)
    assert ends[0].mean[0] == 0
    assert world.calls == [[float(i)] for i in range(6)]


@pytest.mark.parametrize("drain", [True, False])
def test_stopping_while_a_guest_runs_waits_for_it(make_request: MakeRequest, *, drain: bool) -> None:
    order: list[str] = []
    world = World(
        predict=lambda _: (world.hold(), order.append("ran")), unload=lambda: order.append("unloaded")
    )
    with steered(world, Inline) as runtime:
        ends: list[Any] = []
        guest = threading.Thread(target=lambda: ends.append(runtime.predict_now(make_request(0.0))))
        guest.start()
        assert world.entered.wait(10)
        waiting = runtime.submit(make_request(1.0))
        stopper = threading.Thread(target=lambda: runtime.stop(drain=drain))
        stopper.start()
        wait_until(lambda: runtime._lane is None)
        with pytest.raises(UnavailableError):
            runtime.predict_now(make_request(2.0))
        world.gate.set()
        stopper.join(10)
        guest.join(10)
        assert ends[0].mean[0] == 0
        end = outcome(waiting)
        assert end.mean[0] == 1 if drain else isinstance(end, UnavailableError)
    assert order == ["ran", *(["ran"] if drain else []), "unloaded"]


def test_a_window_that_ends_while_a_guest_runs_harms_nobody(make_request: MakeRequest) -> None:
    """The lane sleeps until the window of one who has left; meanwhile a guest is at work beyond that time."""
    woke = threading.Event()
    world = World(predict=lambda _: woke.wait(0.2))
    with steered(world, Inline, wait="always", timeout_ms=50) as runtime:
        left = runtime.submit(make_request(0.0))
        wait_until(lambda: runtime._lane is not None and runtime._lane._sleeper.asleep)
        assert left.cancel()
        for i in range(3):
            assert runtime.predict_now(make_request(float(i)), timeout=20).mean[0] == i
        assert runtime.submit(make_request(5.0)).result(10).mean[0] == 5


def test_a_guest_that_is_interrupted_hears_of_it_and_the_model_goes_on(make_request: MakeRequest) -> None:
    def interrupt(values: Values) -> None:
        if values == [666.0]:
            raise KeyboardInterrupt

    with steered(World(predict=interrupt), Inline) as runtime:
        with pytest.raises(KeyboardInterrupt):
            runtime.predict_now(make_request(666.0), timeout=10)
        assert runtime.predict_now(make_request(1.0), timeout=10).mean[0] == 1
        assert runtime.submit(make_request(2.0)).result(10).mean[0] == 2


def test_a_guest_whose_model_exits_gets_an_error(make_request: MakeRequest) -> None:
    def leave(values: Values) -> None:
        if values == [666.0]:
            raise SystemExit(3)

    with steered(World(predict=leave), Inline) as runtime:
        with pytest.raises(InternalServerError):
            runtime.predict_now(make_request(666.0), timeout=10)
        assert runtime.predict_now(make_request(1.0), timeout=10).mean[0] == 1


def test_an_interrupted_guest_leaves_no_shared_call_behind(make_request: MakeRequest) -> None:
    def interrupt(values: Values) -> None:
        if len(world.calls) == 1:
            raise KeyboardInterrupt

    world = World(predict=interrupt)
    with steered(world, Inline, cache=True) as runtime:
        with pytest.raises(KeyboardInterrupt):
            runtime.predict_now(make_request(1.0), timeout=10)
        assert runtime.predict_now(make_request(1.0), timeout=10).mean[0] == 1
