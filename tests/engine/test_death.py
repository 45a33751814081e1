"""A model that dies is loaded anew; who did not kill it is answered, and who did is told so."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from sheaf.backends.base import BackendDiedError
from sheaf.engine import model as engine_model
from sheaf_client import ProgressEvent
from sheaf_client.errors import BackendError, DeadlineExceededError, UnavailableError
from tests.conftest import MakeRequest
from tests.engine.harness import (
    Inline,
    Steered,
    Streaming,
    Values,
    Watching,
    World,
    hold_first,
    outcome,
    steered,
    wait_until,
)

KILLER = 666.0
DEATHS = [BackendDiedError("the worker is gone"), RuntimeError("CUDA error: device-side assert triggered")]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts to load follow each other at once."""
    monkeypatch.setattr(engine_model, "_FIRST_PAUSE", 0.01)


class Mortal(World):
    """Dies of one value, and of others the first time only; its first call waits for the gate."""

    def __init__(self, error: Exception = DEATHS[0], *, once: bool = False, **hooks: Any) -> None:
        super().__init__(predict=self.live, **hooks)
        self.error, self.once, self.deaths = error, once, 0

    def live(self, values: Values) -> None:
        hold_first(self)(values)
        if KILLER in values and not (self.once and self.deaths):
            self.deaths += 1
            raise self.error


@pytest.mark.parametrize("error", DEATHS, ids=["died", "cuda"])
@pytest.mark.parametrize("position", range(4))
def test_innocents_are_answered_and_the_killer_is_refused(
    make_request: MakeRequest, error: Exception, position: int
) -> None:
    world, observer = Mortal(error), Watching()
    values = [1.0, 2.0, 3.0, 4.0]
    values[position] = KILLER
    with steered(world, observer=observer) as runtime:
        first = runtime.submit(make_request(0.0))
        assert world.entered.wait(10)
        futures = [runtime.submit(make_request(v)) for v in values]
        world.gate.set()
        assert first.result(10).mean[0] == 0
        for value, future in zip(values, futures, strict=True):
            end = outcome(future)
            if value == KILLER:
                assert isinstance(end, BackendError)
                assert end.__cause__ is error
                assert end.request_id
            else:
                assert end.mean[0] == value
        assert runtime.predict_now(make_request(5.0), timeout=10).mean[0] == 5
        assert (world.deaths, world.loads, len(observer.reloads)) == (2, 3, 2)
        assert observer.reloads[0] == type(error).__name__


def test_who_killed_by_chance_is_answered_the_second_time(make_request: MakeRequest) -> None:
    world = Mortal(once=True)
    world.gate.set()
    with steered(world) as runtime:
        assert runtime.predict_now(make_request(KILLER), timeout=10).mean[0] == KILLER
        assert world.loads == 2


def test_a_caller_that_left_is_not_run_again(make_request: MakeRequest) -> None:
    world = Mortal(load=lambda: world.loads == 1 or world.hold())
    with steered(world) as runtime:
        world.gate.set()
        runtime.predict_now(make_request(0.0), timeout=10)
        world.gate.clear()
        future = runtime.submit(make_request(KILLER))
        wait_until(lambda: world.loads == 2)
        assert future.cancel()
        world.gate.set()
        runtime.predict_now(make_request(1.0), timeout=10)
        assert world.deaths == 1


def test_an_inline_death_is_mended_on_the_models_own_thread(make_request: MakeRequest) -> None:
    world = Mortal(once=True)
    world.gate.set()
    with steered(world, Inline) as runtime:
        assert runtime.predict_now(make_request(KILLER), timeout=10).mean[0] == KILLER
        assert world.loads == 2
        assert threading.get_ident() not in world.threads["load"]
        assert runtime.predict_now(make_request(1.0), timeout=10).mean[0] == 1


def test_streams_in_progress_are_told(make_request: MakeRequest) -> None:
    world = Mortal()
    world.gate.set()
    with steered(world, Streaming) as runtime:
        stream = runtime.iter_stream(make_request(1.0, horizon=10_000), timeout=20)
        assert isinstance(next(stream), ProgressEvent)
        assert isinstance(outcome(runtime.submit(make_request(KILLER))), BackendError)
        with pytest.raises(BackendError, match="loaded anew"):
            list(stream)
        assert list(runtime.iter_stream(make_request(1.0), timeout=10))[-1].type == "result"


def test_a_stream_that_kills_is_told_and_the_model_comes_back(make_request: MakeRequest) -> None:
    def die(step: int) -> None:
        if step == 2 and world.loads == 1:
            raise DEATHS[1]

    world = World(step=die)
    with steered(world, Streaming) as runtime:
        events = runtime.iter_stream(make_request(1.0, horizon=3), timeout=10)
        next(events)
        with pytest.raises(BackendError):
            next(events)
        assert list(runtime.iter_stream(make_request(1.0, horizon=3), timeout=10))[-1].type == "result"
        assert world.loads == 2


def test_while_the_model_cannot_be_loaded_the_waiting_wait_and_the_new_are_refused(
    make_request: MakeRequest,
) -> None:
    tried = threading.Semaphore(0)
    allow = threading.Event()

    def load() -> None:
        if world.loads > 1 and not allow.is_set():
            tried.release()
            raise RuntimeError("no such device")

    world = Mortal(once=True, load=load)
    with steered(world) as runtime:
        first = runtime.submit(make_request(0.0))
        assert world.entered.wait(10)
        waiting = [runtime.submit(make_request(v)) for v in (1.0, KILLER, 2.0)]
        world.gate.set()
        for _ in range(3):
            assert tried.acquire(timeout=10)
        assert not runtime.ready
        for call in (runtime.submit, runtime.predict_now):
            with pytest.raises(UnavailableError) as caught:
                call(make_request(3.0))
            assert caught.value.retry_after
            assert caught.value.request_id
        with pytest.raises(UnavailableError):
            asyncio.run(runtime.predict(make_request(3.0)))
        with pytest.raises(UnavailableError):
            list(runtime.iter_stream(make_request(3.0)))
        assert not any(f.done() for f in waiting)
        allow.set()
        assert [f.result(20).mean[0] for f in [first, *waiting]] == [0, 1, KILLER, 2]
        assert runtime.ready
        assert runtime.predict_now(make_request(3.0), timeout=10).mean[0] == 3


def test_deadlines_hold_while_the_model_cannot_be_loaded(make_request: MakeRequest) -> None:
    def load() -> None:
        if world.loads > 1:
            raise RuntimeError("no such device")

    world = Mortal(load=load)
    with steered(world) as runtime:
        runtime.submit(make_request(0.0))
        assert world.entered.wait(10)
        late = [runtime.submit(make_request(v), timeout=0.2) for v in (KILLER, 2.0)]
        kept = runtime.submit(make_request(3.0))
        world.gate.set()
        for future in late:
            assert isinstance(outcome(future), DeadlineExceededError)
        assert not kept.done()
        runtime.stop()
        assert isinstance(outcome(kept), UnavailableError)


@pytest.mark.parametrize("drain", [True, False])
def test_stopping_while_the_model_cannot_be_loaded_tells_everyone(
    make_request: MakeRequest, *, drain: bool
) -> None:
    tried = threading.Event()

    def load() -> None:
        if world.loads > 1:
            tried.set()
            raise RuntimeError("no such device")

    world = Mortal(load=load)
    with steered(world, max_batch_size=2) as runtime:
        runtime.submit(make_request(0.0))
        assert world.entered.wait(10)
        waiting = [runtime.submit(make_request(v)) for v in (KILLER, *map(float, range(20)))]
        world.gate.set()
        assert tried.wait(10)
        runtime.stop(drain=drain)
        assert all(isinstance(outcome(f), UnavailableError) for f in waiting)
        loads = world.loads
        assert loads < 15  # not once more for each batch that is refused


@pytest.mark.parametrize("kind", [SystemExit, MemoryError])
def test_whatever_a_reload_raises_it_is_tried_again(
    make_request: MakeRequest, kind: type[BaseException]
) -> None:
    def load() -> None:
        if world.loads in {2, 3}:
            raise kind

    world = Mortal(once=True, load=load)
    world.gate.set()
    with steered(world) as runtime:
        assert runtime.predict_now(make_request(KILLER), timeout=20).mean[0] == KILLER
        assert world.loads == 4


def test_every_old_model_is_let_go_before_the_next_is_loaded(make_request: MakeRequest) -> None:
    order: list[str] = []
    world = Mortal(load=lambda: order.append("load"), unload=lambda: order.append("unload"))
    world.gate.set()
    with steered(world, Steered) as runtime:
        outcome(runtime.submit(make_request(KILLER)))
        runtime.predict_now(make_request(1.0), timeout=10)
    assert order == ["load", "unload"] * 3
