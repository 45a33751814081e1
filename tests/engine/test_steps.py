"""Requests that work in steps join and leave a running batch at its boundaries; each ends as if alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from sheaf.backends.base import BackendDiedError, ModelBackend
from sheaf.engine import ModelRuntime
from sheaf.engine import model as engine_model
from sheaf_client.errors import (
    BackendError,
    DeadlineExceededError,
    InvalidRequestError,
    OverloadedError,
    UnavailableError,
)
from tests.conftest import MakeRequest
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
from tests.engine.stepping import Library, Own

Form = type[ModelBackend[Any, Any]]


@pytest.fixture(params=[Own, Library], ids=["own loop", "library's loop"])
def form(request: pytest.FixtureRequest) -> Any:
    """Both forms are one to the scheduler."""
    return request.param


@pytest.fixture(autouse=True)
def no_course_is_left() -> Any:
    """A library's call that ended early has unwound."""
    yield
    wait_until(lambda: not [t for t in threading.enumerate() if t.name == "sheaf-loop"])


@pytest.fixture
def ask(make_request: MakeRequest) -> Callable[..., Any]:
    """A request of a value that takes so many steps."""
    return lambda value, steps=3, **fields: make_request(float(value), horizon=steps, **fields)


def held(world: World | None = None) -> World:
    """A world whose first step waits for the gate, while a line forms."""
    world = world or World()
    world.hooks.setdefault("step", hold_first(world))
    return world


def behind(runtime: ModelRuntime, world: World, first: Any, *rest: Any) -> list[Future[Any]]:
    """Submit one request, the others while its first step is held; then let all go."""
    futures = [runtime.submit(first)]
    assert world.entered.wait(10)
    futures += [runtime.submit(request) for request in rest]
    world.gate.set()
    return futures


def pause(_: float) -> None:
    """A step takes a moment, so that many of them are not over before the test looks."""
    threading.Event().wait(0.01)


def ends(futures: list[Future[Any]]) -> list[Any]:
    return [e if isinstance(e := outcome(f), Exception) else e.mean[0] for f in futures]


def test_requests_join_and_leave_at_the_boundaries(form: Form, ask: Any) -> None:
    world = held()
    with steered(world, form) as runtime:
        futures = behind(runtime, world, ask(10, 5), ask(20, 2), ask(30, 3))
        assert ends(futures) == [15, 22, 33]
        assert world.calls == [[10], [10, 20, 30], [10, 20, 30], [10, 30], [10]]
        nothing_left(runtime)


def test_who_came_first_goes_first_where_there_is_no_room(form: Form, ask: Any) -> None:
    world = held()
    with steered(world, form, max_batch_size=2) as runtime:
        futures = behind(runtime, world, ask(10, 2), ask(20, 3), ask(30, 2), ask(40, 1))
        assert ends(futures) == [12, 23, 32, 41]
        assert world.calls == [[10], [10, 20], [20, 30], [20, 30], [40]]


def test_the_shortest_goes_first_where_the_policy_says_so(form: Form, ask: Any) -> None:
    world = held(World(each=pause))
    with steered(world, form, max_batch_size=1, shortest_first=True) as runtime:
        futures = behind(runtime, world, ask(10, 7), ask(20, 30), ask(30, 1), ask(40, 2))
        assert ends(futures) == [17, 50, 31, 42]
        assert world.calls == [[10], [30], [40], [40], *[[10]] * 6, *[[20]] * 30]


def test_shapes_take_turns(form: Form, ask: Any) -> None:
    """What cannot share a step does not wait for the end of another shape's."""
    world = held(World(batch_key=lambda request: request.item_id))
    with steered(world, form) as runtime:
        large, small = [ask(v, 3, item_id="large") for v in (1, 2)], [ask(v, 2, item_id="s") for v in (3, 4)]
        assert ends(behind(runtime, world, *large, *small)) == [4, 5, 5, 6]
        assert world.calls[:5] == [[1], [3, 4], [1, 2], [3, 4], [1, 2]]


def test_priority_acts_between_two_steps(form: Form, ask: Any) -> None:
    world = held()
    with steered(world, form, max_batch_size=1, priority_seconds=100) as runtime:
        slow = runtime.submit(ask(10, 3))
        assert world.entered.wait(10)
        urgent = runtime.submit(ask(20, 2), priority=1)
        world.gate.set()
        assert ends([slow, urgent]) == [13, 22]
        assert world.calls == [[10], [20], [20], [10], [10]]


def test_tenants_share_the_steps(form: Form, ask: Any) -> None:
    world = held()
    with steered(world, form, max_batch_size=1) as runtime:
        first = runtime.submit(ask(10, 1), tenant="a")
        assert world.entered.wait(10)
        futures = [runtime.submit(ask(20 + i, 40), tenant="a") for i in range(2)]
        futures.append(runtime.submit(ask(30, 2), tenant="b"))
        world.gate.set()
        assert ends([first, *futures]) == [11, 60, 61, 32]
        assert max(i for i, call in enumerate(world.calls) if call == [30]) < 75


def test_a_batch_of_many_and_streams_ride_the_same_steps(form: Form, ask: Any) -> None:
    world = held()

    async def all_ways(runtime: ModelRuntime) -> tuple[Any, ...]:
        async def stream() -> list[Any]:
            return [event async for event in runtime.stream(ask(20, 2))]

        alone = asyncio.ensure_future(runtime.predict(ask(10, 3)))
        while not world.entered.is_set():
            await asyncio.sleep(0.001)
        streamed = asyncio.ensure_future(stream())
        many = asyncio.ensure_future(runtime.predict_many([ask(30, 1), ask(40, 2)]))
        while runtime.depth < 3:
            await asyncio.sleep(0.001)
        world.gate.set()
        return await alone, await streamed, await many

    with steered(world, form) as runtime:
        alone, events, many = asyncio.run(all_ways(runtime))
        assert [alone.mean[0], *(response.mean[0] for response in many)] == [13, 31, 42]
        assert [(e.step, e.total_steps) for e in events[:-1]] == [(1, 2), (2, 2)]
        assert events[-1].response.mean[0] == 22
        assert [sorted(call) for call in world.calls] == [[10], [10, 20, 30, 40], [10, 20, 40]]
        usage = events[-1].response.metadata.usage
        assert usage.batch_size == 4
        assert usage.compute_seconds > 0
        assert alone.metadata.usage.queue_seconds >= 0


def test_a_request_without_steps_is_answered_in_one_call(ask: Any) -> None:
    world = World(steps=lambda request: 0 if request.item_id == "quick" else request.horizon)
    with steered(world, Own) as runtime:
        assert runtime.predict_now(ask(7, 3, item_id="quick"), timeout=10).mean[0] == 7
        assert world.calls == []
        assert runtime.predict_now(ask(7, 3), timeout=10).mean[0] == 10
        events = list(runtime.iter_stream(ask(7, 3, item_id="quick"), timeout=10))
        assert [event.type for event in events] == ["progress", "result"]


def test_equal_requests_share_their_steps(form: Form, make_request: MakeRequest) -> None:
    world = held()
    equal = [make_request(10.0, horizon=3, seed=1) for _ in range(3)]
    with steered(world, form, cache=True) as runtime:
        assert ends(behind(runtime, world, *equal)) == [13] * 3
        assert world.calls == [[10]] * 3
        kept = runtime.predict_now(make_request(10.0, horizon=3, seed=1), timeout=10)
        assert kept.metadata.usage.cache_hit
        nothing_left(runtime)


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


def test_who_leaves_between_two_steps_frees_its_place(form: Form, ask: Any) -> None:
    discarded: list[float] = []
    world = held(World(discard=discarded.append, each=pause))
    with steered(world, form, max_batch_size=1) as runtime:
        first, second = behind(runtime, world, ask(10, 400), ask(20, 400))
        wait_until(lambda: len(world.calls) > 3)
        assert second.cancel()  # never begun
        assert first.cancel()
        wait_until(lambda: discarded)
        assert outcome(runtime.submit(ask(30, 2))).mean[0] == 32
        assert discarded == [10]
        assert len([call for call in world.calls if call == [10]]) < 400
        nothing_left(runtime)


def test_who_leaves_during_a_step_takes_no_other(form: Form, ask: Any) -> None:
    discarded: list[float] = []
    world = held(World(discard=discarded.append))
    with steered(world, form) as runtime:
        future = runtime.submit(ask(10, 3))
        assert world.entered.wait(10)
        assert future.cancel()
        world.gate.set()
        wait_until(lambda: discarded == [10])
        assert world.calls == [[10]]
        nothing_left(runtime)


def test_a_stream_that_is_left_discards_its_state(form: Form, ask: Any) -> None:
    discarded: list[float] = []
    world = World(discard=discarded.append, each=pause)
    with steered(world, form) as runtime:
        events = runtime.iter_stream(ask(10, 1000), timeout=20)
        assert next(events).type == "progress"
        events.close()
        wait_until(lambda: discarded == [10])
        nothing_left(runtime)


def test_a_deadline_acts_between_two_steps(form: Form, ask: Any) -> None:
    discarded: list[float] = []
    over = threading.Event()
    world = World(discard=discarded.append, step=lambda _: over.wait(0.02))
    with steered(world, form) as runtime:
        late, other = runtime.submit(ask(10, 2000), timeout=0.2), runtime.submit(ask(20, 20))
        assert isinstance(outcome(late), DeadlineExceededError)
        assert outcome(other).mean[0] == 40
        wait_until(lambda: discarded == [10])
        nothing_left(runtime)


@pytest.mark.parametrize("drain", [True, False])
def test_stopping_finishes_or_discards_what_has_begun(form: Form, ask: Any, *, drain: bool) -> None:
    discarded: list[float] = []
    world = held(World(discard=discarded.append))
    with steered(world, form) as runtime:
        future = runtime.submit(ask(10, 5))
        assert world.entered.wait(10)
        stopper = threading.Thread(target=lambda: runtime.stop(drain=drain))
        stopper.start()
        wait_until(lambda: runtime._lane is None)
        world.gate.set()
        stopper.join(10)
        end = outcome(future)
    if drain:
        assert end.mean[0] == 15
        assert discarded == []
    else:
        assert isinstance(end, UnavailableError)
        wait_until(lambda: discarded == [10])


def test_the_line_is_bounded(form: Form, ask: Any) -> None:
    world = held()
    with steered(world, form, max_queue=2) as runtime:
        first = runtime.submit(ask(10, 2))
        assert world.entered.wait(10)
        rest = [runtime.submit(ask(20 + i, 2)) for i in range(2)]
        with pytest.raises(OverloadedError):
            runtime.submit(ask(90, 2))
        world.gate.set()
        assert ends([first, *rest]) == [12, 22, 23]


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


def test_one_thread_is_at_work_at_any_time(form: Form, ask: Any) -> None:
    world = World()
    inside: list[int] = []

    def enter(_: float) -> None:
        with world.at_work():
            inside.append(1)

    world.hooks.update(prepare=enter, each=enter, finish=enter)
    with steered(world, form) as runtime:
        futures = [runtime.submit(ask(i, 1 + i % 5)) for i in range(60)]
        assert ends(futures) == [i + 1 + i % 5 for i in range(60)]
        assert len(inside) >= 120
        assert world.most_inside == 1


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


def test_without_an_engine_the_answers_are_the_same(form: Any, ask: Any) -> None:
    backend = form(world=World())
    answers = backend.batch_predict([ask(10, 1), ask(20, 4), ask(30, 2)])
    assert [a.mean[0] for a in answers] == [11, 24, 32]
    assert backend.world.calls == [[10, 20, 30], [20, 30], [20], [20]]
