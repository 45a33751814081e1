"""Requests that work in steps join and leave a running batch at its boundaries; each ends as if alone."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from sheaf.engine import ModelRuntime
from sheaf.scheduling.batch import BatchPolicy
from sheaf_client.errors import (
    DeadlineExceededError,
    OverloadedError,
    UnavailableError,
)
from tests.conftest import MakeRequest
from tests.engine.harness import (
    Values,
    World,
    nothing_left,
    outcome,
    steered,
    wait_until,
)
from tests.engine.stepping import Form, Own, behind, ends, held, pause


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


def test_without_an_engine_the_answers_are_the_same(form: Any, ask: Any) -> None:
    backend = form(world=World())
    answers = backend.batch_predict([ask(10, 1), ask(20, 4), ask(30, 2)])
    assert [a.mean[0] for a in answers] == [11, 24, 32]
    assert backend.world.calls == [[10, 20, 30], [20, 30], [20], [20]]


def test_without_an_engine_no_more_are_under_way_than_an_engine_would_let(form: Any, ask: Any) -> None:
    begun, most = 0, 0

    def begin(_: float) -> None:
        nonlocal begun, most
        begun += 1
        most = max(most, begun)

    def end(_: float) -> None:
        nonlocal begun
        begun -= 1

    backend = form(world=World(prepare=begin, finish=end))
    requests = [ask(i, 1 + i % 3) for i in range(300)]
    threads = threading.active_count()
    answers = backend.predict_all(requests)
    assert [a.mean[0] for a in answers] == [i + 1 + i % 3 for i in range(300)]
    assert (begun, most) == (0, BatchPolicy().max_batch_size)
    assert max(map(len, backend.world.calls)) == most
    assert threading.active_count() <= threads + 1  # the last may be at its end still


def test_without_an_engine_a_place_that_is_free_is_taken_at_once(form: Any, ask: Any) -> None:
    backend = form(world=World())
    most = BatchPolicy().max_batch_size
    backend.predict_all([ask(i, 1 if i % 2 else 3) for i in range(most + 4)])
    assert [len(call) for call in backend.world.calls] == [most, most // 2 + 4, most // 2 + 2, 2]


def test_without_an_engine_what_ends_the_call_leaves_no_state(form: Any, ask: Any) -> None:
    discarded: list[float] = []

    def stop(_: Values) -> None:
        raise KeyboardInterrupt

    backend = form(world=World(step=stop, discard=discarded.append))
    with pytest.raises(KeyboardInterrupt):
        backend.predict_all([ask(10, 2), ask(20, 2)])
    wait_until(lambda: sorted(discarded) == [10, 20])
