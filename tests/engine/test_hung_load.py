"""Loading anew that does not come back is given up: who comes is refused, and another load follows."""

from __future__ import annotations

import threading

import pytest

from sheaf.backends.base import BackendDiedError
from sheaf.engine import model as engine_model
from sheaf_client.errors import BackendError, UnavailableError
from tests.conftest import MakeRequest
from tests.engine.harness import (
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

KILLER = 666.0


class Stuck(World):
    """Dies of one value; then one method, of the load of that number, waits until the gate is open."""

    def __init__(self, method: str, load: int) -> None:
        super().__init__(predict=self.live, **{method: self.stick})
        self.load = load
        self.came_back = threading.Event()
        self.after: BaseException | None = None

    def live(self, values: Values) -> None:
        if KILLER in values:
            raise BackendDiedError("the worker is gone")

    def stick(self) -> None:
        if self.loads == self.load:
            self.hold()
            self.came_back.set()
            if self.after is not None:
                raise self.after


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_model, "_FIRST_PAUSE", 0.01)


@pytest.mark.parametrize("after", [None, RuntimeError("late")], ids=["a model", "an error"])
@pytest.mark.parametrize(("method", "load"), [("load", 2), ("warm_up", 2), ("unload", 1)])
def test_the_model_comes_back_and_what_comes_late_counts_no_more(
    make_request: MakeRequest, told: Watching, method: str, load: int, after: BaseException | None
) -> None:
    world = Stuck(method, load)
    world.after = after
    with steered(world, observer=told, load_timeout_s=0.1) as runtime:
        killer = runtime.submit(make_request(KILLER))
        assert world.entered.wait(10)
        waiting = [runtime.submit(make_request(float(i))) for i in range(3)]
        assert [outcome(f).mean[0] for f in waiting] == [0, 1, 2]
        assert isinstance(outcome(killer), BackendError)
        assert runtime.ready
        loads, reloads = world.loads, len(told.reloads)
        world.gate.set()
        assert world.came_back.wait(10)
        wait_until(lambda: len(lanes()) == 1)
        assert runtime.predict_now(make_request(7.0), timeout=10).mean[0] == 7
        assert (world.loads, len(told.reloads)) == (loads, reloads)
        assert set(told.reloads) == {"BackendDiedError"}


def test_a_load_that_comes_back_late_is_let_go(make_request: MakeRequest, told: Watching) -> None:
    world = Stuck("load", 2)
    let_go = threading.Semaphore(0)
    world.hooks["unload"] = let_go.release
    with steered(world, observer=told, load_timeout_s=0.1) as runtime:
        runtime.submit(make_request(KILLER))
        assert world.entered.wait(10)
        assert runtime.submit(make_request(1.0)).result(10).mean[0] == 1
        wait_until(lambda: world.loads == 4)  # the one that is stuck, and one for each death
        for _ in range(2):
            assert let_go.acquire(timeout=10)  # those that died
        assert not let_go.acquire(blocking=False)
        world.gate.set()
        assert let_go.acquire(timeout=10)


def test_while_every_load_hangs_who_comes_is_refused_and_who_waits_waits(
    make_request: MakeRequest, told: Watching
) -> None:
    world = World(predict=lambda values: Stuck.live(world, values))  # type: ignore[arg-type]
    world.hooks["load"] = lambda: world.loads == 1 or world.hold()
    with steered(world, observer=told, load_timeout_s=0.05) as runtime:
        killer = runtime.submit(make_request(KILLER))
        assert world.entered.wait(10)
        waiting = runtime.submit(make_request(1.0))
        wait_until(lambda: world.loads == 3)
        assert not runtime.ready
        with pytest.raises(UnavailableError) as caught:
            runtime.predict_now(make_request(2.0))
        assert caught.value.retry_after
        assert not waiting.done()
        runtime.stop()
        assert isinstance(outcome(waiting), UnavailableError)
        assert isinstance(outcome(killer), UnavailableError)
        world.gate.set()


def test_a_model_that_cannot_be_let_go_does_not_hold_up_its_end(
    make_request: MakeRequest, told: Watching
) -> None:
    world = World()
    world.hooks["unload"] = world.hold
    with steered(world, Steered, observer=told, load_timeout_s=0.05) as runtime:
        assert runtime.predict_now(make_request(1.0)).mean[0] == 1
        runtime.stop()
        assert world.entered.is_set()
        world.gate.set()


def test_a_stream_that_does_not_clean_up_holds_up_nobody(make_request: MakeRequest, told: Watching) -> None:
    world = World(closed=lambda: world.loads == 1 and world.hold())
    with steered(world, Streaming, observer=told, call_timeout_s=0.1) as runtime:
        stream = runtime.iter_stream(make_request(1.0, horizon=10_000), timeout=20)
        next(stream)
        stream.close()
        assert world.entered.wait(10)
        assert runtime.predict_now(make_request(2.0), timeout=10).mean[0] == 2
        assert told.reloads == ["hung"]
        world.gate.set()
