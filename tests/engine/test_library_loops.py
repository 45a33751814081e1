"""A library's own loop on its thread: what it is answered, what it raises, and where it stops."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from sheaf.api.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf.backends.loops import LibraryLoop, LoopBackend
from sheaf_client import ProgressEvent, ResultEvent
from sheaf_client.errors import BackendError, InvalidRequestError
from tests.conftest import MakeRequest
from tests.engine.harness import World, nothing_left, outcome, steered, value_of, wait_until
from tests.engine.stepping import answer

Loop = LibraryLoop[float, float, TimeSeriesResponse]


class Doubling(LoopBackend[TimeSeriesRequest, TimeSeriesResponse, float, float]):
    """The model doubles what it is asked, and refuses 13; the hook `loop` is the library's own code."""

    model_type = "time_series"

    def __init__(self, *, world: World) -> None:
        self.world = world

    def load(self) -> None:
        """There is nothing to load."""

    def steps(self, request: TimeSeriesRequest) -> int:
        return request.horizon

    def run(self, request: TimeSeriesRequest, loop: Loop) -> TimeSeriesResponse:
        return answer(request, self.world.call("loop", value_of(request), loop))

    def forward(self, questions: Sequence[float]) -> list[float | Exception]:
        self.world.calls.append(list(questions))
        return [InvalidRequestError("no 13") if value == 13 else 2 * value for value in questions]


@pytest.fixture(autouse=True)
def loops_have_ended() -> Any:
    yield
    wait_until(lambda: not [t for t in threading.enumerate() if t.name == "sheaf-loop"])


def ask_once(value: float, loop: Loop) -> float:
    return loop.ask(value)


def forgiving(value: float, loop: Loop) -> float:
    try:
        return loop.ask(value)
    except InvalidRequestError:
        return loop.ask(7.0)


@pytest.mark.parametrize(
    ("library", "end"), [(ask_once, None), (forgiving, 14)], ids=["that lets it through", "that goes on"]
)
def test_a_refusal_in_the_place_of_an_answer_is_raised_where_the_loop_asked(
    library: Callable[..., float], end: float | None, make_request: MakeRequest
) -> None:
    world = World(loop=library)
    with steered(world, Doubling) as runtime:
        bad, good = [runtime.submit(make_request(value, horizon=1)) for value in (13.0, 5.0)]
        assert outcome(good).mean[0] == 10
        if end is None:
            assert isinstance(outcome(bad), InvalidRequestError)
        else:
            assert outcome(bad).mean[0] == end


def silent(value: float, loop: Loop) -> float:
    """Its steps ask the model nothing."""
    for step in range(1, 1_000_000):
        loop.tell(ProgressEvent(step=step, total_steps=1_000_000))
    return value


def test_steps_that_ask_nothing_let_others_have_their_turn(make_request: MakeRequest) -> None:
    def library(value: float, loop: Loop) -> float:
        return silent(value, loop) if value == 1 else ask_once(value, loop)

    with steered(World(loop=library), Doubling) as runtime:
        events = runtime.iter_stream(make_request(1.0, horizon=9), timeout=20)
        assert [next(events).step for _ in range(3)] == [1, 2, 3]
        assert runtime.predict_now(make_request(4.0, horizon=1), timeout=20).mean[0] == 8
        events.close()
        nothing_left(runtime)


@pytest.mark.parametrize("cancelled_once", [True, False])
def test_a_loop_that_is_cancelled_unwinds_even_where_it_asks_again(
    make_request: MakeRequest, *, cancelled_once: bool
) -> None:
    asked: list[str] = []

    def library(value: float, loop: Loop) -> float:
        try:
            while True:
                loop.ask(value)
                asked.append("")
        finally:
            if not cancelled_once:
                loop.ask(value)  # as a library does that saves its state on the way out

    with steered(World(loop=library), Doubling) as runtime:
        future = runtime.submit(make_request(1.0, horizon=9))
        wait_until(lambda: asked)
        assert future.cancel()
        nothing_left(runtime)


def test_an_event_is_made_for_a_caller_who_streams_alone(make_request: MakeRequest) -> None:
    made: list[int] = []

    def event(step: int) -> ProgressEvent:
        made.append(step)
        return ProgressEvent(step=step, total_steps=3)

    def library(value: float, loop: Loop) -> float:
        for step in (1, 2, 3):
            value = loop.ask(value)
            loop.tell(lambda step=step: event(step))
        return value

    with steered(World(loop=library), Doubling) as runtime:
        assert runtime.predict_now(make_request(1.0, horizon=3), timeout=20).mean[0] == 8
        assert made == []
        *events, last = runtime.iter_stream(make_request(1.0, horizon=3), timeout=20)
        assert [e.step for e in events if isinstance(e, ProgressEvent)] == made == [1, 2, 3]
        assert isinstance(last, ResultEvent)


def test_without_an_engine_the_loops_run_together_and_stream(make_request: MakeRequest) -> None:
    def library(value: float, loop: Loop) -> float:
        if value == 0:
            return value  # it asks nothing at all
        for step in range(1, int(value) + 1):
            value = loop.ask(value)
            loop.tell(ProgressEvent(step=step, total_steps=2))
        return value

    backend = Doubling(world=World(loop=library))
    requests = [make_request(value, horizon=2) for value in (0.0, 1.0, 2.0, 13.0)]
    ends = backend.batch_predict(requests)
    assert isinstance(ends[3], InvalidRequestError)
    assert [end.mean[0] for end in ends[:3] if isinstance(end, TimeSeriesResponse)] == [0, 2, 8]
    assert backend.world.calls == [[1, 2, 13], [4]]
    *events, last = backend.stream(requests[2])
    assert [event.step for event in events if isinstance(event, ProgressEvent)] == [1, 2]
    assert isinstance(last, TimeSeriesResponse)
    assert last.mean is not None
    assert last.mean[0] == 8
    with pytest.raises(InvalidRequestError):
        list(backend.stream(requests[3]))
    left = backend.stream(requests[2])
    assert next(left)
    left.close()  # type: ignore[attr-defined]  # a generator


def test_too_few_answers_are_a_fault_of_the_backend(make_request: MakeRequest) -> None:
    class Short(Doubling):
        def forward(self, questions: Sequence[float]) -> list[float | Exception]:
            return super().forward(questions)[1:]

    with steered(World(loop=ask_once), Short) as runtime:
        assert isinstance(outcome(runtime.submit(make_request(4.0, horizon=1))), BackendError)
        nothing_left(runtime)


def test_a_beginning_that_hangs_leaves_no_loops_of_those_behind_it(make_request: MakeRequest) -> None:
    begun: list[float] = []

    def library(value: float, loop: Loop) -> float:
        begun.append(value)
        if len(begun) == 1:
            world.hold()
        return loop.ask(value)

    world = World(loop=library)
    ready = threading.Event()
    with steered(world, Doubling, call_timeout_s=0.3) as runtime:
        assert runtime._lane is not None
        runtime._lane.run_on_thread(ready.wait)  # so that all begin in one call
        asked = [runtime.submit(make_request(float(i), horizon=1)) for i in range(4)]
        ready.set()
        assert {type(outcome(future)) for future in asked} == {BackendError}
        world.gate.set()
        assert outcome(runtime.submit(make_request(7.0, horizon=1))).mean[0] == 14
    assert begun == [0, 7]  # and `loops_have_ended` sees their threads
