"""A step that fails, hangs, or takes the model with it: whose requests end, and how the others go on."""

from __future__ import annotations

from typing import Any

import pytest

from sheaf.backends.base import BackendDiedError
from sheaf.engine import model as engine_model
from sheaf_client.errors import (
    BackendError,
    InternalServerError,
    InvalidRequestError,
)
from tests.engine.harness import (
    Values,
    Watching,
    World,
    hold_first,
    nothing_left,
    outcome,
    steered,
    wait_until,
)
from tests.engine.stepping import Form, Own, behind, ends, held


@pytest.mark.parametrize("kind", [RuntimeError, SystemExit], ids=["an error", "an exit"])
@pytest.mark.parametrize("where", ["prepare", "each", "finish"])
@pytest.mark.parametrize("position", range(4))
def test_a_fault_of_one_is_nobody_elses(
    form: Form, ask: Any, where: str, position: int, kind: type[BaseException]
) -> None:
    def fail(value: float) -> None:
        if value == 666.0:
            raise kind("secret")

    values = [10.0, 20.0, 30.0, 40.0]
    values[position] = 666.0
    world = held(World(**{where: fail}))
    with steered(world, form) as runtime:
        futures = behind(runtime, world, ask(1, 4), *[ask(v, 3) for v in values])
        got = ends(futures)
        assert got[0] == 5
        assert [v + 3 for v in values if v != 666.0] == [v for v in got[1:] if not isinstance(v, Exception)]
        error = got[1 + position]
        assert isinstance(error, BackendError)
        assert "secret" not in str(error)
        nothing_left(runtime)


@pytest.mark.parametrize("position", range(5))
def test_a_step_that_raises_is_taken_again_in_halves(form: Form, ask: Any, position: int) -> None:
    world = World()

    def poison(values: Values) -> None:
        hold_first(world)(values)
        if 666.0 in values and len(world.calls) > 2:
            raise RuntimeError("which of them?")

    world.hooks["step"] = poison
    values = [10.0, 20.0, 30.0, 40.0, 50.0]
    values[position] = 666.0
    with steered(world, form) as runtime:
        got = ends(behind(runtime, world, ask(1, 4), *[ask(v, 4) for v in values]))
        assert [v for v in got if not isinstance(v, Exception)] == [5, *(v + 4 for v in values if v != 666.0)]
        assert isinstance(got[1 + position], BackendError)
        nothing_left(runtime)


def test_memory_that_runs_out_bounds_the_steps_of_that_shape_alone(form: Form, ask: Any) -> None:
    world = World(batch_key=lambda request: request.item_id)

    def fit(values: Values) -> None:
        hold_first(world)(values)
        if len([v for v in values if v < 100]) > 2:
            raise MemoryError

    world.hooks["step"] = fit
    with steered(world, form) as runtime:
        large = [ask(v, 3, item_id="large") for v in (1, 2, 3, 4)]
        small = [ask(v, 3, item_id="small") for v in (101, 102, 103, 104)]
        assert ends(behind(runtime, world, *large, *small)) == [4, 5, 6, 7, 104, 105, 106, 107]
        tried = [call for call in world.calls if len(call) > 2 and call[0] < 100]
        assert tried == [[1, 2, 3, 4]]  # once; then the bound is known
        assert [call for call in world.calls if call[0] > 100] == [[101, 102, 103, 104]] * 3
        assert [bound.cost for bound in runtime._model.shapes.values()] == [2]


def test_who_finds_no_memory_to_begin_waits_until_others_are_done(form: Form, ask: Any) -> None:
    world = World()

    def prepare(value: float) -> None:
        if value == 20 and len(world.calls) < 3:
            raise MemoryError

    world.hooks["prepare"] = prepare
    held(world)
    with steered(world, form) as runtime:
        assert ends(behind(runtime, world, ask(10, 3), ask(20, 2))) == [13, 22]
        assert world.calls == [[10], [10], [10], [20], [20]]
        nothing_left(runtime)


class Mortal(World):
    """Dies in the step that has a killer in it; of any but 666 the first time only."""

    def __init__(self, killer: float, *, at_step: int = 2, **hooks: Any) -> None:
        super().__init__(step=self.live, **hooks)
        self.killer, self.at_step, self.deaths = killer, at_step, 0

    def live(self, values: Values) -> None:
        hold_first(self)(values)
        again = self.killer == 666 or not self.deaths
        if self.killer in values and len(self.calls) > self.at_step and again:
            self.deaths += 1
            raise BackendDiedError


@pytest.mark.parametrize("killer", [20.0, 666.0], ids=["once", "always"])
def test_a_model_that_dies_begins_its_requests_anew(
    form: Form, ask: Any, monkeypatch: pytest.MonkeyPatch, killer: float
) -> None:
    monkeypatch.setattr(engine_model, "_FIRST_PAUSE", 0.01)
    world, observer = Mortal(killer), Watching()
    with steered(world, form, observer=observer, max_batch_size=2) as runtime:
        got = ends(behind(runtime, world, ask(10, 5), ask(killer, 5), ask(30, 5)))
        assert got[0] == 15
        assert got[2] == 35
        assert isinstance(got[1], BackendError) if killer == 666 else got[1] == 25
        assert world.deaths == (2 if killer == 666 else 1)
        assert len(observer.reloads) == world.deaths
        assert sorted(observer.ends.values()) == [1, 1, 1]
        nothing_left(runtime)


def test_progress_is_told_once_though_the_model_died(
    form: Form, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_model, "_FIRST_PAUSE", 0.01)
    world = Mortal(10.0)
    world.gate.set()
    with steered(world, form) as runtime:
        events = list(runtime.iter_stream(ask(10, 5), timeout=20))
        assert [event.step for event in events[:-1]] == [1, 2, 3, 4, 5]
        assert events[-1].response.mean[0] == 15
        assert world.deaths == 1


def test_a_step_that_hangs_fails_its_requests_and_nobody_elses(form: Form, ask: Any) -> None:
    world = World()

    def hang(values: Values) -> None:
        if 666.0 in values and len(world.calls) > 1:
            world.hold()

    world.hooks["step"] = hang
    with steered(world, form, call_timeout_s=0.2, max_batch_size=1) as runtime:
        stuck, other = runtime.submit(ask(666, 3)), runtime.submit(ask(20, 3))
        assert isinstance(outcome(stuck), BackendError)
        assert outcome(other).mean[0] == 23
        assert world.loads == 2
        world.gate.set()
        nothing_left(runtime)


def test_a_refusal_while_preparing_reaches_its_caller(form: Form, ask: Any) -> None:
    def refuse(value: float) -> None:
        if value == 666.0:
            raise InvalidRequestError("not this one")

    with steered(World(prepare=refuse), form) as runtime:
        bad, good = runtime.submit(ask(666)), runtime.submit(ask(1))
        assert isinstance(outcome(bad), InvalidRequestError)
        assert outcome(good).mean[0] == 4


def test_an_outcome_that_is_none_of_the_two_ends_that_request_alone(ask: Any) -> None:
    world = held(World(each=lambda value: "fine" if value == 666.0 else None))
    with steered(world, Own) as runtime:
        bad, good = behind(runtime, world, ask(666), ask(1))
        assert isinstance(outcome(bad), BackendError)
        assert outcome(good).mean[0] == 4


def test_an_interrupt_leaves_no_state_behind(form: Form, ask: Any) -> None:
    discarded: list[float] = []
    world = held(World(discard=discarded.append))

    def interrupt(values: Values) -> None:
        hold_first(world)(values)
        if 666.0 in values:
            raise KeyboardInterrupt

    world.hooks["step"] = interrupt
    with steered(world, form) as runtime:
        got = ends(behind(runtime, world, ask(10, 4), ask(666, 2), ask(20, 2)))
        assert [type(end) for end in got] == [InternalServerError] * 3
        wait_until(lambda: sorted(discarded) == [10, 20, 666])
        # The lane goes on.
        assert outcome(runtime.submit(ask(30, 2))).mean[0] == 32
        nothing_left(runtime)
