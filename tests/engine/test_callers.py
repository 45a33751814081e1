"""Many callers at once, who leave when they like, on a model that fails, dies and hangs: each hears once."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sheaf.backends.base import BackendDiedError
from sheaf.engine import model as engine_model
from sheaf.engine.delivery import Outcome
from sheaf.engine.terms import CallTerms
from sheaf_client import ProblemError
from sheaf_client.contracts.base import BaseResponse
from sheaf_client.errors import BackendError
from tests.conftest import MakeRequest
from tests.engine.harness import Inline, Steered, Streaming, Values, Watching, World, nothing_left, steered

POISON, KILLER = 666.0, 777.0


@pytest.mark.parametrize("cache", [False, True], ids=["plain", "cached"])
def test_a_thousand_callers_that_disconnect_leave_nothing(make_request: MakeRequest, *, cache: bool) -> None:
    dice = random.Random(1)
    fates: Counter[str] = Counter()

    async def caller(runtime: Any, number: int) -> None:
        value = float(number % 100)
        kind = number % 4
        if kind == 3:
            events = [event async for event in runtime.stream(make_request(value))]
            assert events[-1].response.mean[0] == value
        elif kind == 2:
            answers = await runtime.predict_many([make_request(value), make_request(value + 1)])
            assert [answer.mean[0] for answer in answers] == [value, value + 1]
        else:
            answer = await runtime.predict(make_request(value), timeout=60, tenant=f"t{number % 3}")
            assert answer.mean[0] == value
        fates["answered"] += 1

    async def day(runtime: Any) -> None:
        tasks = [asyncio.create_task(caller(runtime, number)) for number in range(1000)]
        for count, task in enumerate(dice.sample(tasks, 500)):
            if count == 250:  # half of them leave while all wait
                world.gate.set()
            if dice.random() < 0.2:
                await asyncio.sleep(0)
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        failures = [
            e for e in ends if isinstance(e, BaseException) and not isinstance(e, asyncio.CancelledError)
        ]
        assert not failures
        fates["cancelled"] = sum(isinstance(e, asyncio.CancelledError) for e in ends)

    world = World()
    world.hooks = {"predict": world.hold, "step": world.hold}
    with steered(world, Streaming, cache=cache, max_queue=4000) as runtime:
        asyncio.run(day(runtime))
        assert fates["answered"] + fates["cancelled"] == 1000
        assert fates["answered"] >= 500
        assert fates["cancelled"] >= 250
        nothing_left(runtime)
        assert runtime.predict_now(make_request(5.0), timeout=10).mean[0] == 5


@pytest.mark.parametrize("cache", [False, True], ids=["plain", "cached"])
@pytest.mark.parametrize("backend", [Steered, Inline])
def test_every_caller_hears_exactly_once_whatever_happens(
    make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch, backend: type[Steered], *, cache: bool
) -> None:
    """Threads ask, leave and run their own calls; requests fail, kill the model and expire."""
    monkeypatch.setattr(engine_model, "_FIRST_PAUSE", 0.001)

    def predict(values: Values) -> None:
        if KILLER in values:
            raise BackendDiedError
        if POISON in values:
            raise RuntimeError("secret")

    told: list[list[Outcome]] = []
    left: list[bool] = []
    lock = threading.Lock()
    threads, per_thread = 6, 60

    def caller(number: int) -> None:
        dice = random.Random(number)
        for i in range(per_thread):
            value = dice.choices([float(i % 7), POISON, KILLER], [30, 4, 1])[0]
            outcomes: list[Outcome] = []
            terms = CallTerms(dice.choice([None, None, 20.0, 0.0005]), dice.randrange(3), f"t{number % 3}")
            goes = dice.random() < 0.3
            with lock:
                told.append(outcomes)
                left.append(goes)
            here = backend.inline and dice.random() < 0.5
            try:
                tracker = runtime._track(make_request(value), lambda o=outcomes: o.append, terms, here=here)
            except ProblemError as error:
                outcomes.append(error)
                continue
            if tracker.sink is None:
                assert tracker.outcome is not None
                outcomes.append(tracker.outcome)
            if goes:
                tracker.cancel()

    observer = Watching()
    with steered(
        World(predict=predict), backend, cache=cache, max_batch_size=4, observer=observer
    ) as runtime:
        with ThreadPoolExecutor(threads) as pool:
            for done in [pool.submit(caller, number) for number in range(threads)]:
                done.result(60)
        nothing_left(runtime)
        assert runtime.predict_now(make_request(5.0), timeout=10).mean[0] == 5
    assert len(told) == threads * per_thread
    for outcomes, goes in zip(told, left, strict=True):
        assert len(outcomes) <= 1 if goes else len(outcomes) == 1
    assert observer.told["began"] == len(observer.ends) == len(told) + 1
    assert set(observer.ends.values()) == {1}
    kinds = Counter(type(o).__name__ for outcomes in told for o in outcomes)
    assert kinds["TimeSeriesResponse"] > 100
    assert kinds["BackendError"] > 5
    named = [o.request_id for outcomes in told for o in outcomes]
    assert len(set(map(str, named))) == len(named)


def test_callers_in_many_loops_each_hear_in_their_own(make_request: MakeRequest) -> None:
    async def ask(runtime: Any, number: int) -> list[float]:
        answers = await runtime.predict_many([make_request(float(100 * number + i)) for i in range(20)])
        return [answer.mean[0] for answer in answers]

    with steered(World()) as runtime, ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(lambda n=n: asyncio.run(ask(runtime, n))) for n in range(12)]
        for number, done in enumerate(asked):
            assert done.result(30) == [100 * number + i for i in range(20)]
        nothing_left(runtime)


def test_a_callback_may_ask_again_and_take_others_back(make_request: MakeRequest) -> None:
    """Callbacks of an answer run on the model's thread; they may submit and cancel there."""
    world = World(predict=lambda values: world.hold() if values == [0.0] else None)
    done = threading.Event()
    again: list[Any] = []
    with steered(world, max_batch_size=1) as runtime:
        first = runtime.submit(make_request(0.0))
        assert world.entered.wait(10)
        second = runtime.submit(make_request(1.0))

        def react(_: Any) -> None:
            second.cancel()
            again.append(runtime.submit(make_request(2.0)))
            done.set()

        first.add_done_callback(react)
        world.gate.set()
        assert done.wait(10)
        assert again[0].result(10).mean[0] == 2
        assert second.cancelled()
        assert world.calls == [[0.0], [2.0]]


def test_a_callback_that_raises_harms_nobody(make_request: MakeRequest) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("the caller's own")

    with steered(World(predict=_poison)) as runtime:
        for value in (1.0, POISON):
            future = runtime.submit(make_request(value))
            future.add_done_callback(fail)
            end = future.exception(10) or future.result()
            assert isinstance(end, BackendError if value == POISON else BaseResponse)
        assert runtime.predict_now(make_request(5.0), timeout=10).mean[0] == 5


def _poison(values: Values) -> None:
    if POISON in values:
        raise RuntimeError("secret")
