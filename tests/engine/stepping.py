"""Models that work in steps, in the two forms, whose every method can be steered by a `World`.

The answer is the request's value plus its steps, so a step that is lost, taken twice or taken for another
request is seen in it. A request takes as many steps as its horizon.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from typing import Any

from sheaf.api.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf.backends.base import ModelBackend, respond
from sheaf.backends.loops import LibraryLoop, LoopBackend
from sheaf.backends.stepwise import StepwiseBackend
from sheaf.engine import ModelRuntime
from tests.engine.harness import Values, World, hold_first, outcome, value_of

State = list[Any]
Form = type[ModelBackend[Any, Any]]
Request, Response = TimeSeriesRequest, TimeSeriesResponse


def answer(request: Request, end: float) -> Response:
    mean = [end] * request.horizon
    fields = {"mean": mean, "horizon": request.horizon, "frequency": request.frequency}
    return respond(request, Response, item_id=request.item_id, **fields)


def one_by_one(world: World, values: Values) -> list[Exception | None]:
    """One step of each; what the hook `step` raises stops all, what `each` raises ends one request."""
    world.calls.append(values)
    with world.at_work():
        world.call("step", values)
    ends: list[Exception | None] = []
    for value in values:
        try:
            ends.append(world.call("each", value))
        except Exception as error:  # noqa: BLE001 - handed on, as a backend would
            ends.append(error)
    return ends


class Own(StepwiseBackend[Request, Response, State]):
    """The loop is the backend's own: prepare, step, finish."""

    model_type = "time_series"

    def __init__(self, *, world: World) -> None:
        self.world = world

    def load(self) -> None:
        self.world.loads += 1
        self.world.call("load")

    def steps(self, request: Request) -> int:
        given = self.world.call("steps", request)
        return request.horizon if given is None else given  # type: ignore[no-any-return]

    def batch_key(self, request: Request) -> Hashable:
        return self.world.call("batch_key", request)  # type: ignore[no-any-return]

    def prepare(self, request: Request) -> State:
        self.world.call("prepare", value_of(request))
        return [request, value_of(request), self.steps(request), value_of(request)]

    def step(self, states: Sequence[State]) -> Sequence[Exception | None]:
        ends = one_by_one(self.world, [state[1] for state in states])
        for state, error in zip(states, ends, strict=True):
            if error is None:
                state[2:] = state[2] - 1, state[3] + 1
        return ends

    def remaining(self, state: State) -> int:
        return state[2]  # type: ignore[no-any-return]

    def finish(self, state: State) -> Response:
        self.world.call("finish", state[1])
        return answer(state[0], state[3])

    def discard(self, state: State) -> None:
        self.world.call("discard", state[1])

    def batch_predict(self, requests: Sequence[Request]) -> list[Response | Exception]:
        if any(self.steps(request) for request in requests):
            return super().batch_predict(requests)
        self.world.call("predict", [value_of(request) for request in requests])
        return [answer(request, value_of(request)) for request in requests]


class Library(LoopBackend[Request, Response, float, float]):
    """The loop is a library's: it asks for the model, and knows nothing of batches."""

    model_type = "time_series"

    def __init__(self, *, world: World) -> None:
        self.world = world

    def load(self) -> None:
        self.world.loads += 1
        self.world.call("load")

    def steps(self, request: Request) -> int:
        return request.horizon

    def batch_key(self, request: Request) -> Hashable:
        return self.world.call("batch_key", request)  # type: ignore[no-any-return]

    def run(self, request: Request, loop: LibraryLoop[float, float, Response]) -> Response:
        value = value_of(request)
        self.world.call("prepare", value)
        end = value
        ended = False
        try:
            for _ in range(request.horizon):
                end += loop.ask(value)
                self.world.call("each", value)
            ended = True
        finally:
            if not ended:
                self.world.call("discard", value)
        self.world.call("finish", value)
        return answer(request, end)

    def forward(self, questions: Sequence[float]) -> Sequence[float]:
        self.world.calls.append(list(questions))
        with self.world.at_work():
            self.world.call("step", list(questions))
        return [1.0] * len(questions)

    def progress(self, request: Request, state: LibraryLoop[float, float, Response]) -> Any:
        return StepwiseBackend.progress(self, request, state)


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
