"""Models that change while others answer: nothing in flight is lost, and what fails changes nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sheaf.local import LocalModels
from sheaf.spec import ModelSpec
from sheaf_client.errors import ModelNotFoundError, UnavailableError
from tests.conftest import MakeRequest
from tests.echoes import Broken, Echo, Gated, Stepping


def echo(add: float, **more: Any) -> ModelSpec:
    return ModelSpec(name="echo", backend_cls=Echo, backend_kwargs={"add": add, **more})


class Inline(Echo):
    """Runs on its caller's thread."""

    inline = True


class HeldInline(Gated):
    """Runs on its caller's thread, until the gate opens."""

    inline = True


@pytest.fixture
def models() -> Iterator[LocalModels]:
    held = LocalModels.start(echo(0.0))
    yield held
    held.stop()


def test_a_model_comes_and_goes(models: LocalModels, make_request: MakeRequest) -> None:
    more = ModelSpec(name="more", backend_cls=Echo, backend_kwargs={"add": 5.0})
    assert models.put(more)
    assert models.get("more").predict_now(make_request(1.0)).mean == [6, 6]
    with pytest.raises(ValueError, match="more"):
        models.load(more)
    held = models.get("more")
    models.unload("more")
    assert held.backend.unloaded
    with pytest.raises(ModelNotFoundError):
        models.get("more")
    with pytest.raises(UnavailableError):
        held.predict_now(make_request(1.0))
    for change in (models.update, models.unload):
        with pytest.raises(ModelNotFoundError):
            change("statsforecast")  # type: ignore[operator]


def test_a_bad_version_leaves_the_old_one(models: LocalModels, make_request: MakeRequest) -> None:
    old = models.get("echo")
    with pytest.raises(FileNotFoundError):
        models.update(ModelSpec(name="echo", backend_cls=Broken))
    assert models.get("echo") is old
    assert old.predict_now(make_request(1.0)).mean == [1, 1]


def test_who_holds_the_old_version_is_answered_by_the_new(
    models: LocalModels, make_request: MakeRequest
) -> None:
    old = models.get("echo")
    models.update(echo(1.0))
    models.update(echo(2.0))
    request = make_request(1.0)
    assert old.predict_now(request).mean == [3, 3]
    assert old.submit(request).result(10).mean == [3, 3]
    assert list(old.iter_stream(request))[-1].response.mean == [3, 3]
    old.check_open()

    async def ask() -> Any:
        events = [event async for event in old.stream(request)]
        return (await old.predict(request)).mean, events[-1].response.mean  # type: ignore[union-attr]

    assert asyncio.run(ask()) == ([3, 3], [3, 3])
    assert old.backend.unloaded
    assert not models.get("echo").backend.unloaded


@pytest.mark.parametrize("backend", [Echo, Inline])
def test_no_request_is_lost_while_versions_change(make_request: MakeRequest, backend: type[Echo]) -> None:
    def version(number: int) -> ModelSpec:
        return ModelSpec(name="echo", backend_cls=backend, backend_kwargs={"add": float(number)})

    models = LocalModels.start(version(0))
    stop = threading.Event()
    failures: list[BaseException] = []
    seen: list[list[float]] = []

    def repeat(ask: Callable[[], Any]) -> None:
        got: list[float] = []
        seen.append(got)
        while not stop.is_set():
            try:
                got.append(ask().mean[0])
            except BaseException as error:  # noqa: BLE001 - whatever it is, it must be told
                failures.append(error)

    def stream() -> Any:
        return list(models.get("echo").iter_stream(make_request(0.0)))[-1].response

    asks: list[Callable[[], Any]] = [
        *[lambda: models.get("echo").predict_now(make_request(0.0))] * 3,
        lambda: models.get("echo").submit(make_request(0.0)).result(10),
        lambda: asyncio.run(models.get("echo").predict(make_request(0.0))),
        stream,
    ]
    threads = [threading.Thread(target=repeat, args=(ask,)) for ask in asks]
    for thread in threads:
        thread.start()
    for number in range(1, 30):
        models.update(version(number))
    stop.set()
    for thread in threads:
        thread.join(20)
    models.stop()
    assert failures == []
    for got in seen:
        assert got == sorted(got), "an old version answered after a new one had"
    assert max(map(max, seen)) > 0


def test_a_stream_under_way_ends_with_the_version_it_began_with(make_request: MakeRequest) -> None:
    def version(add: float) -> ModelSpec:
        return ModelSpec(name="steps", backend_cls=Stepping, backend_kwargs={"add": add, "seconds": 0.005})

    models = LocalModels.start(version(0.0))
    events = iter(models.get("steps").iter_stream(make_request(1.0, horizon=40)))
    next(events)
    models.update(version(7.0))
    *progress, result = events
    assert len(progress) == 39
    assert result.response.mean == [1] * 40
    models.stop()


def test_a_model_is_not_unloaded_under_a_caller_that_runs_it(make_request: MakeRequest) -> None:
    models = LocalModels.start(ModelSpec(name="held", backend_cls=HeldInline))
    backend = models.get("held").backend
    assert isinstance(backend, HeldInline)
    answers: list[Any] = []
    unloaded_while_running: list[bool] = []

    def ask() -> None:
        answers.append(models.get("held").predict_now(make_request(1.0, model_name="held")))
        unloaded_while_running.append(backend.unloaded)

    caller = threading.Thread(target=ask)
    caller.start()
    assert backend.entered.wait(10)
    remover = threading.Thread(target=models.unload, args=("held",))
    remover.start()
    while "held" in models.runtimes:
        backend.entered.wait(0.01)
    remover.join(0.3)
    assert remover.is_alive()
    assert not backend.unloaded
    backend.gate.set()
    caller.join(10)
    remover.join(10)
    assert answers[0].mean == [1, 1]
    assert backend.unloaded
