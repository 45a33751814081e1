"""A call that does not come back is given up: its callers are told, the model is loaded anew."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from sheaf.backends.base import BackendDiedError
from sheaf_client.errors import BackendError, UnavailableError
from tests.conftest import MakeRequest
from tests.engine.harness import (
    Inline,
    Steered,
    Streaming,
    Values,
    Watching,
    World,
    lanes,
    outcome,
    steered,
    wait_until,
)

STUCK = 666.0


class Hanging(World):
    """One value never comes back before the gate is open; then it ends as `after` says."""

    def __init__(self, after: Exception | None = None, **hooks: Any) -> None:
        super().__init__(predict=self.hang, **hooks)
        self.after = after
        self.returned = threading.Event()

    def hang(self, values: Values) -> None:
        if STUCK in values:
            self.hold()
            self.returned.set()
            if self.after is not None:
                raise self.after


AFTER = [None, RuntimeError("late"), BackendDiedError("late"), MemoryError()]


@pytest.mark.parametrize("after", AFTER, ids=["an answer", "an error", "a death", "no memory"])
@pytest.mark.parametrize("backend", [Steered, Inline])
def test_others_go_on_and_what_comes_late_counts_no_more(
    make_request: MakeRequest, told: Watching, backend: type[Steered], after: Exception | None
) -> None:
    world = Hanging(after)
    with steered(world, backend, observer=told, call_timeout_s=0.1) as runtime:
        if backend is Steered:
            error = outcome(runtime.submit(make_request(STUCK)))
        else:  # the caller is in the call itself until that comes back
            ends: list[Any] = []
            guest = threading.Thread(target=lambda: ends.append(_end(runtime, make_request(STUCK))))
            guest.start()
            wait_until(lambda: told.reloads)
            world.gate.set()
            guest.join(10)
            error = ends[0]
        assert isinstance(error, BackendError)
        assert "did not come back" in str(error)
        assert error.request_id
        assert runtime.predict_now(make_request(1.0), timeout=10).mean[0] == 1
        world.gate.set()
        assert world.returned.wait(10)
        if backend is Steered:
            wait_until(lambda: len(lanes()) == 1)
        answers = [runtime.submit(make_request(float(i))).result(10).mean[0] for i in range(5)]
        assert answers == [0, 1, 2, 3, 4]
        assert (world.loads, told.reloads) == (2, ["hung"])
        assert runtime.ready
        assert runtime._model.memory.cost == float("inf")


def _end(runtime: Any, request: Any) -> Any:
    try:
        return runtime.predict_now(request)
    except BackendError as error:
        return error


def test_who_waited_behind_a_hung_call_is_served(make_request: MakeRequest, told: Watching) -> None:
    world = Hanging()
    with steered(world, observer=told, call_timeout_s=0.1, max_batch_size=1) as runtime:
        stuck = runtime.submit(make_request(STUCK))
        waiting = [runtime.submit(make_request(float(i))) for i in range(5)]
        assert [f.result(10).mean[0] for f in waiting] == [0, 1, 2, 3, 4]
        assert isinstance(outcome(stuck), BackendError)


def test_who_waits_beside_a_hung_guest_is_served(make_request: MakeRequest, told: Watching) -> None:
    world = Hanging()
    with steered(world, Inline, observer=told, call_timeout_s=0.2) as runtime:
        guest = threading.Thread(target=lambda: _end(runtime, make_request(STUCK)))
        guest.start()
        assert world.entered.wait(10)
        waiting = [runtime.submit(make_request(float(i))) for i in range(5)]
        assert [f.result(10).mean[0] for f in waiting] == [0, 1, 2, 3, 4]
        world.gate.set()
        guest.join(10)
        assert runtime.predict_now(make_request(7.0), timeout=10).mean[0] == 7


def test_the_model_hangs_twice(make_request: MakeRequest, told: Watching) -> None:
    world = Hanging()
    with steered(world, observer=told, call_timeout_s=0.1) as runtime:
        for _ in range(2):
            assert isinstance(outcome(runtime.submit(make_request(STUCK))), BackendError)
            assert runtime.predict_now(make_request(1.0), timeout=10).mean[0] == 1
        assert told.reloads == ["hung", "hung"]
        world.gate.set()


@pytest.mark.parametrize("end", ["goes on", "dies", "fails"])
def test_a_step_that_hangs_ends_its_stream_alone(make_request: MakeRequest, told: Watching, end: str) -> None:
    def step(number: int) -> None:
        if number == 2 and world.loads == 1:
            world.hold()
            if end != "goes on":
                raise {"dies": BackendDiedError("late"), "fails": RuntimeError("late")}[end]

    world = World(step=step)
    with steered(world, Streaming, observer=told, call_timeout_s=0.1) as runtime:
        stream = runtime.iter_stream(make_request(1.0, horizon=3), timeout=20)
        next(stream)
        with pytest.raises(BackendError, match="did not come back"):
            next(stream)
        world.gate.set()
        wait_until(lambda: len(lanes()) == 1)
        events = list(runtime.iter_stream(make_request(2.0, horizon=3), timeout=20))
        assert [e.type for e in events] == ["progress"] * 3 + ["result"]
        assert (world.loads, told.reloads) == (2, ["hung"])


@pytest.mark.parametrize("drain", [True, False])
@pytest.mark.parametrize("backend", [Steered, Inline])
def test_stopping_while_a_call_hangs_ends_and_tells_everyone(
    make_request: MakeRequest, told: Watching, backend: type[Steered], *, drain: bool
) -> None:
    world = Hanging()
    unloaded: list[int] = []
    world.hooks["unload"] = lambda: unloaded.append(world.loads)
    with steered(world, backend, observer=told, call_timeout_s=0.2) as runtime:
        ends: list[Any] = []
        caller = threading.Thread(target=lambda: ends.append(_end(runtime, make_request(STUCK))))
        caller.start()
        assert world.entered.wait(10)
        waiting = [runtime.submit(make_request(float(i))) for i in range(3)]
        runtime.stop(drain=drain)
        outcomes = [outcome(f) for f in waiting]
        if drain:
            assert [o.mean[0] for o in outcomes] == [0, 1, 2]
        else:
            assert all(isinstance(o, UnavailableError) for o in outcomes)
        assert unloaded == [world.loads]  # the model that came after; the other is in its call
        world.gate.set()
        caller.join(10)
        assert isinstance(ends[0], BackendError)


def test_an_awaiting_caller_hears_of_it(make_request: MakeRequest, told: Watching) -> None:
    world = Hanging()
    with steered(world, observer=told, call_timeout_s=0.1) as runtime:
        with pytest.raises(BackendError, match="did not come back"):
            asyncio.run(runtime.predict(make_request(STUCK)))
        world.gate.set()


def test_a_load_may_take_longer_than_a_call(make_request: MakeRequest, told: Watching) -> None:
    """A slow load is no hung call."""
    slow = threading.Event()

    def load() -> None:
        if world.loads == 2:
            slow.wait(0.3)

    world = Hanging(load=load)
    with steered(world, observer=told, call_timeout_s=0.1) as runtime:
        outcome(runtime.submit(make_request(STUCK)))
        assert runtime.predict_now(make_request(1.0), timeout=10).mean[0] == 1
        assert world.loads == 2
        world.gate.set()
