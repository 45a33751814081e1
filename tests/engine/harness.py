"""A model whose every method can be steered, and ways to run it, wait for it and count what it answers."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from sheaf.api.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf.backends.base import ModelBackend
from sheaf.cache import CacheConfig
from sheaf.engine import ModelRuntime
from sheaf.engine.delivery import Outcome
from sheaf.engine.observer import BatchRecord, Observer
from sheaf.spec import ModelSpec
from sheaf_client import ProgressEvent
from sheaf_client.contracts.base import BaseRequest
from tests.conftest import MakeRequest
from tests.echoes import Echo, Gated

Values = list[float]


class World:
    """What the backends of one runtime share, however often the model is loaded anew.

    `hooks` holds what to do first in a method, by its name; it takes what the method takes.
    """

    def __init__(self, **hooks: Callable[..., Any]) -> None:
        self.hooks = hooks
        self.loads = 0
        self.calls: list[Values] = []
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.threads: dict[str, set[int]] = {}
        self._lock = threading.Lock()
        self.inside = 0
        self.most_inside = 0

    def call(self, name: str, *args: Any) -> Any:
        self.threads.setdefault(name, set()).add(threading.get_ident())
        hook = self.hooks.get(name)
        return None if hook is None else hook(*args)

    def hold(self, *_: Any) -> None:
        """A hook that waits until the gate is open."""
        self.entered.set()
        assert self.gate.wait(20), "the test never opened the gate"

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Counts how many threads are in the model at once."""
        with self._lock:
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
        try:
            yield
        finally:
            with self._lock:
                self.inside -= 1


def value_of(request: TimeSeriesRequest) -> float:
    assert request.history is not None
    value = request.history[-1]
    assert isinstance(value, float)
    return value


class Steered(Echo):
    """Echo, with the world's hooks before each method; a request's cost is its horizon."""

    def __init__(self, *, world: World) -> None:
        super().__init__()
        self.world = world

    def load(self) -> None:
        self.world.loads += 1
        self.world.call("load")

    def warm_up(self) -> None:
        self.world.call("warm_up")

    def unload(self) -> None:
        self.world.call("unload")

    def check(self, request: TimeSeriesRequest) -> None:
        self.world.call("check", request)

    def batch_key(self, request: TimeSeriesRequest) -> Hashable:
        return self.world.call("batch_key", request)  # type: ignore[no-any-return]

    def cost(self, request: TimeSeriesRequest) -> float:
        given = self.world.call("cost", request)
        return float(request.horizon) if given is None else given  # type: ignore[no-any-return]

    def deterministic(self, request: TimeSeriesRequest) -> bool:
        return self.world.call("deterministic", request) is not False

    def free_memory(self) -> None:
        self.world.call("free_memory")

    def batch_predict(self, requests: Sequence[TimeSeriesRequest]) -> list[TimeSeriesResponse | Exception]:
        values = [value_of(request) for request in requests]
        self.world.calls.append(values)
        with self.world.at_work():
            self.world.call("predict", values)
            answers: list[TimeSeriesResponse | Exception] = [self.answer(request) for request in requests]
        given = self.world.call("respond", answers)
        return answers if given is None else given  # type: ignore[no-any-return]


class Streaming(Steered):
    """Steered, with as many steps as the horizon."""

    def stream(self, request: TimeSeriesRequest) -> Iterator[ProgressEvent | TimeSeriesResponse]:
        self.world.call("open", request)
        return self._steps(request)

    def _steps(self, request: TimeSeriesRequest) -> Iterator[ProgressEvent | TimeSeriesResponse]:
        try:
            for step in range(1, request.horizon + 1):
                with self.world.at_work():
                    self.world.call("step", step)
                yield ProgressEvent(step=step, total_steps=request.horizon)
            yield self.answer(request)
        finally:
            self.world.call("closed")


class Inline(Steered):
    """Steered, on the thread of a lone caller."""

    inline = True


class Watching(Observer):
    """Counts what it is told."""

    def __init__(self) -> None:
        self.records: list[BatchRecord] = []
        self.reloads: list[str] = []
        self.told: Counter[str] = Counter()
        self.ends: Counter[Any] = Counter()

    def began(self, model: str, request: BaseRequest, *, streamed: bool) -> Any:
        self.told["began"] += 1
        return request.request_id

    def ended(self, call: Any, outcome: Outcome | None) -> None:
        self.ends[call] += 1

    def executed(self, batch: BatchRecord) -> None:
        self.records.append(batch)

    def cached(self, model: str, *, hit: bool) -> None:
        self.told["hit" if hit else "miss"] += 1

    def refused(self, model: str, code: str) -> None:
        self.told[code] += 1

    def reloaded(self, model: str, reason: str) -> None:
        self.reloads.append(reason)


@contextmanager
def running(
    backend: type[ModelBackend[Any, Any]],
    *,
    kwargs: dict[str, Any] | None = None,
    cache: CacheConfig | None = None,
    observer: Observer | None = None,
    **policy: Any,
) -> Iterator[tuple[ModelRuntime, Any]]:
    """A runtime that is started, and stopped after it; the gate of its backend is opened before that."""
    spec = ModelSpec(
        name="echo", backend_cls=backend, backend_kwargs=kwargs or {}, batch_policy=policy, cache=cache
    )
    runtime = ModelRuntime(spec, observer)
    runtime.start()
    try:
        yield runtime, runtime.backend
    finally:
        gate = getattr(runtime.backend, "gate", None)
        if gate is not None:
            gate.set()
        runtime.stop()


@contextmanager
def steered(
    world: World, backend: type[ModelBackend[Any, Any]] = Steered, *, cache: bool = False, **options: Any
) -> Iterator[ModelRuntime]:
    """A runtime over a steered backend."""
    config = CacheConfig() if cache else None
    with running(backend, kwargs={"world": world}, cache=config, **options) as (runtime, _):
        try:
            yield runtime
        finally:
            world.gate.set()


def wait_until(condition: Any, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition never held"
        time.sleep(0.002)


def block(runtime: ModelRuntime, backend: Gated | World, make_request: MakeRequest) -> Future[Any]:
    """Occupy the model, so that what comes next must wait."""
    first = runtime.submit(make_request(0.0))
    assert backend.entered.wait(10)
    return first


def hold_first(world: World) -> Callable[[Values], None]:
    """A `predict` hook that holds the model's first call until the gate is open, and no other."""

    def hook(values: Values) -> None:
        if len(world.calls) == 1:
            world.hold()

    return hook


#: Threads of models that other tests of this process keep running, or left hanging.
OF_OTHERS: set[threading.Thread] = set()


def lanes() -> set[threading.Thread]:
    """The threads of models that a test has begun."""
    return {thread for thread in threading.enumerate() if thread.name == "sheaf-echo"} - OF_OTHERS


def outcome(future: Future[Any]) -> Any:
    """What a future ended with: a response or its exception."""
    return future.exception(20) or future.result(0)


def nothing_left(runtime: ModelRuntime) -> None:
    """Wait until nothing is in line, at work or shared; it stays so, since nobody asks any more."""
    lane, shared = runtime._lane, runtime._shared
    assert lane is not None
    wait_until(lambda: runtime.depth == 0 and lane._running is None and not lane._tasks)
    assert not list(lane._line)
    assert shared is None or not shared._flights
