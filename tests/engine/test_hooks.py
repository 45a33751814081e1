"""What a backend's own hooks raise on a caller's thread, or around its life, harms that call alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from sheaf.engine import ModelRuntime
from sheaf.spec import ModelSpec
from sheaf_client.errors import BackendError
from tests.conftest import MakeRequest
from tests.engine.harness import (
    Inline,
    Steered,
    Streaming,
    Watching,
    World,
    running,
    steered,
    value_of,
    wait_until,
)

BAD = 666.0


def raising(request: Any) -> Any:
    if value_of(request) == BAD:
        raise KeyError("secret")
    return None


def giving(value: Any) -> Callable[[Any], Any]:
    return lambda request: value if value_of(request) == BAD else None


HOOKS = [
    *[(name, raising) for name in ("check", "batch_key", "cost", "deterministic")],
    *[("cost", giving(cost)) for cost in (float("nan"), float("inf"), -1.0, "much", [1])],
    *[("batch_key", giving(key)) for key in ([1], ([],), {})],
]


async def collect(runtime: ModelRuntime, request: Any) -> list[Any]:
    return [event async for event in runtime.stream(request, timeout=10)]


CALLS: dict[str, Callable[[ModelRuntime, Any], Any]] = {
    "submit": lambda runtime, request: runtime.submit(request).result(10),
    "predict_now": lambda runtime, request: runtime.predict_now(request, timeout=10),
    "predict": lambda runtime, request: asyncio.run(runtime.predict(request, timeout=10)),
    "iter_stream": lambda runtime, request: list(runtime.iter_stream(request, timeout=10)),
    "stream": lambda runtime, request: asyncio.run(collect(runtime, request)),
}


@pytest.mark.parametrize("cache", [False, True], ids=["plain", "cached"])
@pytest.mark.parametrize("backend", [Steered, Streaming, Inline])
@pytest.mark.parametrize(("hook", "harm"), HOOKS)
def test_a_hook_that_fails_is_an_error_of_that_request(
    make_request: MakeRequest, backend: type[Steered], hook: str, harm: Any, *, cache: bool
) -> None:
    observer = Watching()
    with steered(World(**{hook: harm}), backend, cache=cache, observer=observer) as runtime:
        for name, call in CALLS.items():
            if hook == "deterministic" and (not cache or (backend is Streaming and "stream" in name)):
                continue  # nobody asks
            request = make_request(BAD)
            with pytest.raises(BackendError) as caught:
                call(runtime, request)
            assert "secret" not in str(caught.value)
            assert caught.value.request_id == str(request.request_id)
            call(runtime, make_request(1.0))
        assert runtime.depth == 0
        assert runtime._shared is None or not runtime._shared._flights


def test_many_hear_of_a_hook_that_fails_one_by_one(make_request: MakeRequest) -> None:
    with steered(World(batch_key=raising)) as runtime:
        outcomes = asyncio.run(runtime.predict_many([make_request(v) for v in (1.0, BAD, 2.0)]))
    assert [type(o).__name__ for o in outcomes] == [
        "TimeSeriesResponse",
        "BackendError",
        "TimeSeriesResponse",
    ]


@pytest.mark.parametrize("name", ["load", "warm_up"])
@pytest.mark.parametrize("kind", [RuntimeError, SystemExit, MemoryError])
def test_a_model_that_does_not_come_up_raises_and_leaves_nothing(
    name: str, kind: type[BaseException]
) -> None:

    def fail() -> None:
        raise kind("no weights")

    before = threading.active_count()
    world = World(**{name: fail})
    # What would end a program, such as the server that loads a model more, is an error of the model's.
    told = kind if issubclass(kind, Exception) else RuntimeError
    with pytest.raises(told, match="no weights"), steered(world):
        pass
    assert world.threads["unload"] == world.threads["load"]
    wait_until(lambda: threading.active_count() <= before)


def test_a_model_that_did_not_come_up_can_be_started_again(make_request: MakeRequest) -> None:
    def fail() -> None:
        if world.loads == 1:
            raise RuntimeError("not yet")

    world = World(load=fail)
    runtime = ModelRuntime(ModelSpec(name="echo", backend_cls=Steered, backend_kwargs={"world": world}))
    with pytest.raises(RuntimeError):
        runtime.start()
    runtime.start()
    assert runtime.predict_now(make_request(1.0), timeout=10).mean[0] == 1
    runtime.stop()
    runtime.start()
    assert runtime.predict_now(make_request(2.0), timeout=10).mean[0] == 2
    runtime.stop()


def test_a_model_that_cannot_be_let_go_is_stopped_all_the_same(make_request: MakeRequest) -> None:
    def fail() -> None:
        raise RuntimeError("it holds on")

    with steered(World(unload=fail)) as runtime:
        runtime.predict_now(make_request(), timeout=10)
        runtime.stop()
        assert not runtime.ready


def test_the_model_lives_and_ends_on_one_thread(make_request: MakeRequest) -> None:
    world = World()
    with steered(world, Streaming) as runtime:
        runtime.predict_now(make_request(), timeout=10)
        list(runtime.iter_stream(make_request(), timeout=10))
    touched = [world.threads[name] for name in ("load", "warm_up", "predict", "step", "closed", "unload")]
    assert len(set.union(*touched)) == 1


def test_an_unknown_setting_is_told_at_once() -> None:
    with pytest.raises(ValueError, match="do not fit"), running(Steered, kwargs={"wrld": 1}):
        pass
