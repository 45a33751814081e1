"""A model whose memory runs out: smaller batches go through, and later ones stay below what fitted."""

from __future__ import annotations

from typing import Any

import pytest

from sheaf_client.errors import BackendError
from tests.conftest import MakeRequest
from tests.engine.harness import Values, World, outcome, steered, wait_until


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own."""


ERRORS = [MemoryError(), OutOfMemoryError("secret"), RuntimeError("CUDA error: out of memory")]


class Small(World):
    """Has memory for so many requests at once; holds the first call until the gate is open."""

    def __init__(self, capacity: int, error: Exception, **hooks: Any) -> None:
        super().__init__(predict=self.fit, **hooks)
        self.capacity, self.error = capacity, error

    def fit(self, values: Values) -> None:
        if len(self.calls) == 1:
            self.hold()
        if len(values) > self.capacity:
            raise self.error

    def round(self, runtime: Any, make_request: MakeRequest, count: int) -> list[list[float]]:
        """Send so many while the model is held; returns the sizes of the calls they made."""
        self.calls.clear()
        self.gate.clear()
        self.entered.clear()
        first = runtime.submit(make_request(0.0, horizon=1))
        assert self.entered.wait(10)
        rest = [runtime.submit(make_request(float(i), horizon=1)) for i in range(1, count + 1)]
        self.gate.set()
        answers = [outcome(f) for f in [first, *rest]]
        assert [a.mean[0] for a in answers] == list(range(count + 1))
        return self.calls[1:]


@pytest.mark.parametrize("error", ERRORS, ids=["python", "torch", "text"])
def test_a_batch_too_large_is_halved_and_the_bound_is_kept(
    make_request: MakeRequest, error: Exception
) -> None:
    freed: list[int] = []
    world = Small(3, error, free_memory=lambda: freed.append(1))
    with steered(world, max_batch_size=16) as runtime:
        sizes = [len(call) for call in world.round(runtime, make_request, 16)]
        assert sizes == [16, 8, 4, 2, 2, 4, 2, 2, 8, 4, 2, 2, 4, 2, 2]
        assert len(freed) == 7
        assert runtime._model.memory.cost == 2
        assert [len(call) for call in world.round(runtime, make_request, 16)] == [2] * 8
        assert world.loads == 1


def test_the_bound_is_what_the_calls_that_fitted_cost(make_request: MakeRequest) -> None:
    """Not their number: one long request among short ones."""

    def fit(values: Values) -> None:
        if len(world.calls) == 1:
            world.hold()
        if sum(values) > 100:
            raise MemoryError

    world = World(predict=fit, cost=lambda request: request.history[-1])
    with steered(world, max_batch_size=4) as runtime:
        first = runtime.submit(make_request(0.0))
        assert world.entered.wait(10)
        rest = [runtime.submit(make_request(v)) for v in (1.0, 2.0, 3.0, 98.0)]
        world.gate.set()
        for future in [first, *rest]:
            future.result(10)
        assert world.calls[1:] == [[1, 2, 3, 98], [1, 2], [3, 98], [3], [98]]
        wait_until(lambda: runtime._model.memory.cost == 98)


def test_more_is_tried_after_many_that_fitted(make_request: MakeRequest) -> None:
    world = Small(8, MemoryError())
    with steered(world, max_batch_size=16) as runtime:
        world.round(runtime, make_request, 16)
        assert runtime._model.memory.cost == 8
        world.capacity = 16
        for _ in range(3):
            world.round(runtime, make_request, 500)
        assert runtime._model.memory.cost > 8
        assert max(len(call) for call in world.calls) > 8


def test_a_request_too_large_alone_fails_and_bounds_nobody(make_request: MakeRequest) -> None:
    def fit(values: Values) -> None:
        if 666.0 in values:
            raise MemoryError

    with steered(World(predict=fit)) as runtime:
        for _ in range(3):
            assert isinstance(outcome(runtime.submit(make_request(666.0))), BackendError)
        assert runtime._model.memory.cost == float("inf")
        assert runtime._model.latency.cost_within(10.0) == 0  # nothing ran, nothing was learned
        assert runtime.predict_now(make_request(1.0), timeout=10).mean[0] == 1


def test_memory_that_cannot_be_given_back_loads_the_model_anew(make_request: MakeRequest) -> None:
    def jam() -> None:
        if world.loads == 1:
            raise RuntimeError("CUDA error: illegal address")

    world = Small(2, MemoryError(), free_memory=jam)
    with steered(world, max_batch_size=4) as runtime:
        world.round(runtime, make_request, 4)
        assert world.loads == 2
