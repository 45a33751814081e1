"""A request that the model fails on is alone with its fault, wherever and with whom it stands in a batch."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import Any

import pytest

from sheaf.backends.base import BackendDiedError
from sheaf.engine.delivery import Outcome
from sheaf.engine.execution import run_batch
from sheaf.engine.jobs import PredictJob
from sheaf.engine.observer import Observer
from sheaf_client import ProblemError
from sheaf_client.errors import BackendError, InternalServerError, InvalidRequestError
from tests.conftest import MakeRequest
from tests.engine.harness import Steered, Streaming, Values, World, hold_first, outcome, steered, value_of

POISON = 666.0


class Spiteful(Exception):  # noqa: N818
    """Cannot even be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Panic(BaseException):
    """What Rust's panics are under pyo3."""


def poisoned(kind: type[BaseException] = RuntimeError) -> Any:
    def hook(values: Values) -> None:
        if POISON in values:
            raise kind("secret")

    return hook


@pytest.mark.parametrize("size", range(1, 9))
def test_any_poisons_in_a_batch_cost_nobody_else(make_request: MakeRequest, size: int) -> None:
    """Every subset of a batch, and each member is told exactly once."""
    requests = [make_request(float(i)) for i in range(size)]
    bad = [make_request(POISON) for _ in range(size)]
    for poisons in itertools.product([False, True], repeat=size):
        told: list[list[Outcome]] = [[] for _ in range(size)]
        jobs = [PredictJob(bad[i] if poisons[i] else requests[i], told[i].append) for i in range(size)]
        failures, fitted = run_batch(Steered(world=World(predict=poisoned())), jobs, clock=lambda: 0.0)
        assert failures == sum(poisons)
        assert fitted is None
        for i, outcomes in enumerate(told):
            assert len(outcomes) == 1
            if poisons[i]:
                assert isinstance(outcomes[0], BackendError)
                assert outcomes[0].request_id == str(bad[i].request_id)
            else:
                assert outcomes[0].mean[0] == i  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "kind",
    [
        *(RuntimeError, Spiteful, KeyError, MemoryError, StopIteration, RecursionError),
        *(SystemExit, GeneratorExit, asyncio.CancelledError, Panic),
    ],
)
def test_whatever_is_raised_stays_inside(make_request: MakeRequest, kind: type[BaseException]) -> None:
    world = World()
    world.hooks["predict"] = lambda values: (hold_first(world)(values), poisoned(kind)(values))
    with steered(world) as runtime:
        first = runtime.submit(make_request(0.0))
        world.entered.wait(10)
        rest = [runtime.submit(make_request(v)) for v in (1.0, POISON, 2.0, POISON, 3.0)]
        world.gate.set()
        ends = [outcome(f) for f in [first, *rest]]
        assert [e.mean[0] for e in ends if not isinstance(e, ProblemError)] == [0, 1, 2, 3]
        for error in (ends[2], ends[4]):
            assert isinstance(error, BackendError)
            assert "secret" not in str(error)
        assert runtime.predict_now(make_request(4.0), timeout=10).mean[0] == 4
        assert world.loads == 1


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_would_end_a_program_ends_no_lane(make_request: MakeRequest, kind: type[BaseException]) -> None:
    def leave(values: Values) -> None:
        if POISON in values:
            raise kind("bye")

    with steered(World(predict=leave)) as runtime:
        assert isinstance(outcome(runtime.submit(make_request(POISON))), InternalServerError)
        assert runtime.predict_now(make_request(4.0), timeout=10).mean[0] == 4


def test_one_error_for_several_requests_names_each_its_own(make_request: MakeRequest) -> None:
    shared = InvalidRequestError("Refused.")

    def refuse(values: Values) -> None:
        if POISON in values:
            raise shared

    with steered(World(predict=refuse), wait="always", timeout_ms=200, max_batch_size=3) as runtime:
        requests = [make_request(POISON) for _ in range(3)]
        errors = [outcome(f) for f in [runtime.submit(r) for r in requests]]
    assert all(isinstance(e, InvalidRequestError) for e in errors)
    assert [e.request_id for e in errors] == [str(r.request_id) for r in requests]
    assert len(set(map(id, errors))) == 3


@pytest.mark.parametrize(
    "spoil",
    [
        lambda answers: [None for _ in answers],
        lambda answers: answers[:-1],
        lambda answers: [*answers, answers[0]],
        lambda _: "answers",
        lambda answers: [KeyboardInterrupt() for _ in answers],
        lambda answers: [type(a).model_construct(request_id=a.request_id, metadata=None) for a in answers],
        lambda answers: tuple(answers[:0]),
    ],
    ids=["none", "too few", "too many", "text", "an interrupt", "past validation", "empty"],
)
def test_answers_that_are_none_are_errors(make_request: MakeRequest, spoil: Any) -> None:
    world = World(respond=spoil)
    with steered(world) as runtime:
        ends = [outcome(f) for f in [runtime.submit(make_request(float(i))) for i in range(3)]]
        assert {type(e) for e in ends} <= {BackendError, InternalServerError}
        world.hooks.clear()
        assert runtime.predict_now(make_request(4.0), timeout=10).mean[0] == 4


class Clumsy(Observer):
    """Fails at whatever it is told."""

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_"):
            raise RuntimeError("the metrics are full")
        return super().__getattribute__(name)


@pytest.mark.parametrize("cache", [False, True])
def test_an_observer_that_fails_costs_nobody_an_answer(make_request: MakeRequest, *, cache: bool) -> None:
    def die(values: Values) -> None:
        if POISON in values:
            raise BackendDiedError

    world = World(predict=die)
    with steered(world, Streaming, cache=cache, observer=Clumsy()) as runtime:
        for value in (4.0, 5.0, 4.0):
            assert runtime.predict_now(make_request(value), timeout=10).mean[0] == value
        events = list(runtime.iter_stream(make_request(4.0, horizon=3), timeout=10))
        assert [e.type for e in events] == ["progress"] * 3 + ["result"]
        assert isinstance(outcome(runtime.submit(make_request(POISON))), BackendError)
        assert runtime.predict_now(make_request(6.0), timeout=10).mean[0] == 6
        with pytest.raises(InvalidRequestError):
            runtime.submit(refused(make_request))
        assert world.loads == 3


def refused(make_request: MakeRequest) -> Any:
    """A request that no model without a feature store serves."""
    reference = {"feature_view": "v", "feature_name": "n", "entity_key": "k", "entity_value": "e"}
    return make_request(history=None, feature_ref=reference)


@pytest.mark.parametrize("stage", ["open", "step", "closed"])
def test_a_stream_that_fails_anywhere_ends_with_one_error(make_request: MakeRequest, stage: str) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("secret")

    world = World(**{stage: fail})
    seen: Counter[str] = Counter()
    with steered(world, Streaming) as runtime:
        request = make_request(4.0, horizon=2)
        try:
            for event in runtime.iter_stream(request, timeout=10):
                seen[event.type] += 1
        except BackendError as error:
            seen["error"] += ("secret" not in str(error)) and error.request_id == str(request.request_id)
        assert seen["error"] + seen["result"] == 1
        assert seen["error"] == (stage != "closed")
        world.hooks.clear()
        assert runtime.predict_now(make_request(4.0), timeout=10).mean[0] == 4
        assert world.loads == 1


def test_a_stream_that_ends_in_another_thing_ends_with_an_error(make_request: MakeRequest) -> None:
    class Odd(Streaming):
        def _steps(self, request: Any) -> Any:
            yield {0.0: None, 1.0: 7, 2.0: super().answer(make_request()), 3.0: ValueError("x")}[
                value_of(request)
            ]

    with steered(World(), Odd) as runtime:
        for value in range(4):
            with pytest.raises(BackendError):
                list(runtime.iter_stream(make_request(float(value)), timeout=10))
