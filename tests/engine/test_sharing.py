"""Equal requests share one call and one kept answer, and each caller has an answer of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from sheaf.api.materials import MaterialsRequest, MaterialsResponse
from sheaf.backends.base import ModelBackend, respond
from sheaf.cache import CacheConfig
from sheaf.engine import ModelRuntime
from sheaf.spec import ModelSpec
from sheaf_client.errors import (
    BackendError,
    DeadlineExceededError,
    OverloadedError,
    UnavailableError,
)
from tests.conftest import MakeRequest
from tests.engine.harness import (
    Inline,
    Steered,
    Watching,
    World,
    block,
    hold_first,
    nothing_left,
    outcome,
    running,
    steered,
    wait_until,
)


class Held(World):
    """Holds its first call until the gate is open."""

    def __init__(self, **hooks: Any) -> None:
        super().__init__(**hooks)
        self.hooks.setdefault("predict", hold_first(self))


def test_equal_requests_at_once_are_one_call(make_request: MakeRequest) -> None:
    world, observer = Held(), Watching()
    with steered(world, cache=True, observer=observer) as runtime:
        first = block(runtime, world, make_request)
        requests = [make_request(7.0) for _ in range(10)]
        futures = [runtime.submit(request) for request in requests]
        assert runtime.depth == 1
        world.gate.set()
        answers = [f.result(10) for f in futures]
        first.result(10)
        assert world.calls == [[0.0], [7.0]]
        assert [a.request_id for a in answers] == [r.request_id for r in requests]
        assert [a.metadata.usage.cache_hit for a in answers] == [False] + [True] * 9
        assert (observer.told["miss"], observer.told["hit"]) == (2, 9)
        later = make_request(7.0)
        kept = runtime.predict_now(later, timeout=10)
        assert kept.request_id == later.request_id
        assert kept.mean == [7, 7]
        assert kept.metadata.usage.cache_hit
        assert len(world.calls) == 2
        nothing_left(runtime)


def test_what_one_does_to_its_answer_no_other_sees(make_request: MakeRequest) -> None:
    """The leader, those who joined (with the same identifier, too), and those who come later."""
    world = Held()
    with steered(world, cache=True) as runtime:
        block(runtime, world, make_request)
        same = make_request(7.0)
        futures = [runtime.submit(r) for r in (same, same, make_request(7.0))]
        world.gate.set()
        answers = [f.result(10) for f in futures]
        for answer in answers:
            assert answer.mean == [7, 7]
            answer.mean[0] = -1.0
            answer.metadata.warnings.append("changed")
        for _ in range(2):
            kept = runtime.predict_now(make_request(7.0), timeout=10)
            assert kept.mean == [7, 7]
            assert kept.metadata.warnings == []
            kept.mean.clear()


class Atoms(ModelBackend[MaterialsRequest, MaterialsResponse]):
    """Answers with an array."""

    model_type = "materials"

    def load(self) -> None: ...

    def batch_predict(self, requests: Sequence[MaterialsRequest]) -> list[MaterialsResponse | Exception]:
        return [
            respond(r, MaterialsResponse, energy=1.0, n_atoms=2, forces=np.ones((2, 3), np.float32))
            for r in requests
        ]


def test_arrays_are_each_callers_own() -> None:
    with running(Atoms, cache=CacheConfig()) as (runtime, _):
        request = {"model_name": "echo", "atomic_numbers": [1, 1], "positions": np.zeros((2, 3))}
        for _ in range(3):
            answer = runtime.predict_now(MaterialsRequest(**request), timeout=10)  # type: ignore[arg-type]
            assert np.array_equal(answer.forces, np.ones((2, 3)))
            if answer.forces.flags.writeable:
                answer.forces[...] = -1
        assert answer.metadata.usage.cache_hit


def test_the_first_may_leave_and_the_others_are_answered(make_request: MakeRequest) -> None:
    world = Held()
    with steered(world, cache=True) as runtime:
        block(runtime, world, make_request)
        leader, follower = (runtime.submit(make_request(7.0)) for _ in range(2))
        assert leader.cancel()
        assert runtime.depth == 1
        world.gate.set()
        assert follower.result(10).mean[0] == 7


def test_the_call_goes_with_the_last_who_waits(make_request: MakeRequest) -> None:
    world = Held()
    with steered(world, cache=True) as runtime:
        block(runtime, world, make_request)
        futures = [runtime.submit(make_request(7.0)) for _ in range(3)]
        for future in futures:
            assert runtime.depth == 1
            assert future.cancel()
        assert runtime.depth == 0
        again = runtime.submit(make_request(7.0))
        world.gate.set()
        assert again.result(10).mean[0] == 7
        assert world.calls == [[0.0], [7.0]]
        nothing_left(runtime)


def test_an_error_goes_to_each_under_its_own_name_and_is_not_kept(make_request: MakeRequest) -> None:
    def fail(values: list[float]) -> None:
        hold_first(world)(values)
        if values == [666.0] and len(world.calls) < 3:
            raise RuntimeError("secret")

    world = World(predict=fail)
    with steered(world, cache=True) as runtime:
        block(runtime, world, make_request)
        requests = [make_request(666.0) for _ in range(4)]
        futures = [runtime.submit(r) for r in requests]
        world.gate.set()
        errors = [outcome(f) for f in futures]
        assert all(isinstance(e, BackendError) for e in errors)
        assert [e.request_id for e in errors] == [str(r.request_id) for r in requests]
        assert len(set(map(id, errors))) == 4
        assert runtime.predict_now(make_request(666.0), timeout=10).mean[0] == 666


@pytest.mark.parametrize("longer", [None, 30.0])
def test_the_patience_of_who_joins_counts(make_request: MakeRequest, longer: float | None) -> None:
    world = Held()
    with steered(world, cache=True) as runtime:
        block(runtime, world, make_request)
        joined: list[Any] = []

        async def leave() -> None:
            hasty = asyncio.ensure_future(runtime.predict(make_request(7.0), timeout=0.05))
            await asyncio.sleep(0)
            joined.append(runtime.submit(make_request(7.0), timeout=longer))
            with pytest.raises(DeadlineExceededError):
                await hasty

        asyncio.run(leave())
        world.gate.set()
        assert joined[0].result(10).mean[0] == 7


def test_all_who_wait_for_a_call_that_expires_are_told(make_request: MakeRequest) -> None:
    world = Held()
    with steered(world, cache=True) as runtime:
        block(runtime, world, make_request)
        futures = [runtime.submit(make_request(7.0), timeout=t) for t in (0.01, 0.05, 0.03)]
        time.sleep(0.06)  # the deadlines themselves
        world.gate.set()
        assert all(isinstance(outcome(f), DeadlineExceededError) for f in futures)
        assert world.calls == [[0.0]]
        nothing_left(runtime)


def test_a_refusal_of_the_first_leaves_nothing_to_join(make_request: MakeRequest) -> None:
    world = Held()
    with steered(world, cache=True, max_queue=1) as runtime:
        block(runtime, world, make_request)
        waiting = runtime.submit(make_request(1.0))
        for _ in range(3):
            with pytest.raises(OverloadedError):
                runtime.submit(make_request(7.0))
        world.gate.set()
        waiting.result(10)
        assert runtime.predict_now(make_request(7.0), timeout=10).mean[0] == 7
        nothing_left(runtime)


def test_stopping_tells_all_who_share_a_call(make_request: MakeRequest) -> None:
    world = Held()
    with steered(world, cache=True) as runtime:
        block(runtime, world, make_request)
        futures = [runtime.submit(make_request(7.0)) for _ in range(3)]
        stopper = threading.Thread(target=lambda: runtime.stop(drain=False))
        stopper.start()
        assert all(isinstance(outcome(f), UnavailableError) for f in futures)
        world.gate.set()
        stopper.join(10)


def test_an_answer_that_cannot_be_packed_reaches_who_asked_and_hangs_nobody(
    make_request: MakeRequest,
) -> None:
    def unpackable(answers: list[Any]) -> list[Any]:
        for answer in answers:
            if answer.mean[0] == 7:
                answer.metadata.odd = 2**70
        return answers

    world = Held(respond=unpackable)
    with steered(world, cache=True, max_batch_size=4) as runtime:
        block(runtime, world, make_request)
        sharing = [runtime.submit(make_request(7.0)) for _ in range(3)]
        beside = runtime.submit(make_request(8.0))
        world.gate.set()
        ends = [outcome(f) for f in sharing]
        assert ends[0].mean[0] == 7
        assert all(isinstance(e, BackendError) for e in ends[1:])
        assert beside.result(10).mean[0] == 8
        assert len(runtime.cache or ()) == 2  # of the first and of the one beside
        nothing_left(runtime)


def test_callers_of_an_inline_model_share_as_well(make_request: MakeRequest) -> None:
    world = Held()
    with steered(world, Inline, cache=True) as runtime:
        ends: list[Any] = []
        guests = [
            threading.Thread(target=lambda: ends.append(runtime.predict_now(make_request(7.0))))
            for _ in range(4)
        ]
        guests[0].start()
        assert world.entered.wait(10)
        for guest in guests[1:]:
            guest.start()
        flights = runtime._shared._flights  # type: ignore[union-attr]
        wait_until(lambda: [len(f._waiting or ()) for f in flights.values()] == [4])
        world.gate.set()
        for guest in guests:
            guest.join(10)
        assert [e.mean[0] for e in ends] == [7] * 4
        assert world.calls == [[7.0]]


def test_no_cache_is_kept_where_none_is_asked_for(make_request: MakeRequest) -> None:
    runtime = ModelRuntime(ModelSpec(name="echo", backend_cls=Steered, backend_kwargs={"world": World()}))
    assert runtime.cache is None
    with pytest.raises(UnavailableError):
        runtime.predict_now(make_request())
