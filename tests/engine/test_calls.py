"""The calls of one tenant take turns: a call of a thousand requests makes nobody wait for its end."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Hashable

import pytest

from sheaf.scheduling.batch import BatchPolicy
from sheaf.scheduling.fairness import Turns
from tests.conftest import MakeRequest
from tests.engine.harness import World, hold_first, steered
from tests.engine.simulation import Ask, Day, Ran

POLICY = BatchPolicy(max_batch_size=8)


def slow(cost: float) -> float:
    """A model that makes a few batches a second."""
    return 0.05 + 0.005 * cost


def call(name: str, count: int, *, at: float = 0.0, key: Hashable = None, tenant: str = "") -> list[Ask]:
    """One call of many requests."""
    return [Ask(at, key, tenant=tenant, call=name) for _ in range(count)]


def seconds_of(ran: list[Ran], *, since: float, until: float) -> Counter[Hashable]:
    """Seconds of the model by call, each batch divided among its members."""
    used: Counter[Hashable] = Counter()
    for batch in ran:
        if since <= batch.began < until:
            for ask in batch.asks:
                used[ask.tenant, ask.call] += batch.seconds / len(batch.asks)
    return used


@pytest.mark.parametrize("key", [None, "another"])
def test_who_asks_for_one_waits_for_the_batch_at_work_and_not_for_the_call(key: Hashable) -> None:
    asks = [*call("frame", 600), *[Ask(at, key) for at in (0.01, 1.0, 2.5, 4.0)]]
    done = Day(POLICY, seconds=slow).serve(asks)
    waits = [ran.began - entry.arrived for ran in done.ran for entry in ran.entries if entry.call is None]
    assert len(waits) == 4
    assert max(waits) <= max(ran.seconds for ran in done.ran)


@pytest.mark.parametrize("keys", [("x", "x"), ("x", "y")])
def test_two_calls_that_overlap_share_the_time(keys: tuple[str, str]) -> None:
    asks = [*call("first", 800, key=keys[0]), *call("second", 500, at=2.0, key=keys[1])]
    done = Day(POLICY, seconds=slow).serve(asks)
    used = seconds_of(done.ran, since=2.1, until=6.0)
    assert abs(used["", "first"] - used["", "second"]) <= 4 * max(ran.seconds for ran in done.ran)


def test_each_request_that_comes_by_itself_is_a_call_of_its_own() -> None:
    """Ten callers with one request at a time and a call of many get an eleventh each."""

    def follow(ask: Ask, now: float) -> Ask | None:
        return Ask(now, ask.key) if ask.call is None else None

    asks = [*call("frame", 200, key="x"), *[Ask(0.01, "y") for _ in range(10)]]
    done = Day(BatchPolicy(max_batch_size=2), seconds=slow, follow=follow).serve(asks, until=20.0)
    used = seconds_of(done.ran, since=1.0, until=20.0)
    assert 0.05 < used["", "frame"] / used.total() < 0.15


def test_more_calls_give_a_tenant_no_more_time() -> None:
    asks = [*call("one", 300, tenant="few", key="x")]
    for i in range(10):
        asks += call(f"{i}", 30, tenant="many", key="y")
    done = Day(POLICY, seconds=slow).serve(asks, until=4.0)
    used = seconds_of(done.ran, since=0.0, until=4.0)
    few = used["few", "one"]
    assert abs(few - (used.total() - few)) <= 4 * max(ran.seconds for ran in done.ran)


def test_a_flow_that_is_served_is_forgotten() -> None:
    turns = Turns({}, lambda _: 1)
    for _ in range(1000):
        for flow in (("a", None), ("a", object())):
            turns.enter(flow)
        turns.charge({turns.next_flow(): 1.0})
        turns.leave(flow)
        assert turns.next_flow() == ("a", None)
        turns.leave(("a", None))
    with pytest.raises(LookupError):
        turns.next_flow()
    assert not turns._calls
    assert not turns._weights


def test_a_request_passes_a_batch_of_many_in_the_engine(make_request: MakeRequest) -> None:
    """The model is held in the first batch; the request that comes then is in the second of thirteen."""
    world = World()
    world.hooks["predict"] = hold_first(world)
    with steered(world, max_batch_size=8) as runtime:

        async def ask() -> None:
            frame = asyncio.ensure_future(runtime.predict_many([make_request(float(i)) for i in range(100)]))
            await asyncio.to_thread(world.entered.wait, 20)
            before = runtime.depth
            one = asyncio.ensure_future(runtime.predict(make_request(-1.0)))
            while runtime.depth == before:
                await asyncio.sleep(0.001)
            # The batch at work uses up more than the call's turn, which is worth 20 ms of the model.
            threading.Timer(0.05, world.gate.set).start()
            answer, answers = await one, await frame
            assert answer.mean[0] == -1.0
            assert [value.mean[0] for value in answers] == list(range(100))

        asyncio.run(ask())
    batch = next(i for i, values in enumerate(world.calls) if -1.0 in values)
    assert batch == 1
    assert len(world.calls) > 10
