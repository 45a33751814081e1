"""Requests that come together run as batches: those to a quick model on the thread that brings them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from sheaf.backends.base import BackendDiedError
from sheaf.engine import ModelRuntime, coalescing
from sheaf.engine import model as engine_model
from sheaf.engine.coalescing import coalesced
from sheaf.engine.pending import PendingRequest
from sheaf_client import ProblemError
from sheaf_client.contracts.base import BaseResponse
from sheaf_client.errors import BackendError, DeadlineExceededError, InvalidRequestError, UnavailableError
from tests.conftest import MakeRequest
from tests.engine.harness import Inline, Steered, Values, Watching, World, nothing_left, steered, wait_until

POISON = 666.0


def run(day: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(day(), 30))


async def end_of(asked: PendingRequest) -> Any:
    """The value that was answered, or the error."""
    try:
        return (await asked.answer()).mean[0]
    except ProblemError as error:
        return error


def kinds(ends: list[Any]) -> list[Any]:
    return [type(end) if isinstance(end, ProblemError) else end for end in ends]


def test_they_run_as_one_batch_on_this_thread(make_request: MakeRequest) -> None:
    world, observer = World(), Watching()

    async def day() -> None:
        with coalesced():
            asked = [runtime.ask(make_request(float(i)), timeout=10) for i in range(5)]
            assert [a.outcome for a in asked] == [None] * 5
            assert world.calls == []
        found = [a.outcome for a in asked]  # there, before anything was awaited
        assert all(isinstance(outcome, BaseResponse) for outcome in found)
        assert [await end_of(a) for a in asked] == [0, 1, 2, 3, 4]
        assert {a.outcome.metadata.usage.batch_size for a in asked} == {5}  # type: ignore[union-attr]

    with steered(world, Inline, observer=observer) as runtime:
        run(day)
        nothing_left(runtime)
    assert world.calls == [[0, 1, 2, 3, 4]]
    assert world.threads["predict"] == {threading.get_ident()}
    assert set(observer.ends.values()) == {1}


def test_more_than_a_batch_holds_are_all_answered(make_request: MakeRequest) -> None:
    world = World()

    async def day() -> None:
        with coalesced():
            asked = [runtime.ask(make_request(float(i))) for i in range(7)]
        assert [await end_of(a) for a in asked] == [*range(7)]

    with steered(world, Inline, max_batch_size=2) as runtime:
        run(day)
        nothing_left(runtime)
    assert max(map(len, world.calls)) == 2
    assert world.most_inside == 1


def test_a_fault_stays_with_the_request_that_caused_it(make_request: MakeRequest) -> None:
    def predict(values: Values) -> None:
        if POISON in values:
            raise RuntimeError("secret")

    def check(request: Any) -> None:
        if request.history[-1] == 13.0:
            raise InvalidRequestError("unlucky")

    async def day() -> None:
        with coalesced():
            asked = [runtime.ask(make_request(v)) for v in (1.0, POISON, 2.0)]
            with pytest.raises(InvalidRequestError, match="unlucky"):
                runtime.ask(make_request(13.0))
            asked.append(runtime.ask(make_request(3.0)))
        assert kinds([await end_of(a) for a in asked]) == [1, BackendError, 2, 3]

    with steered(World(predict=predict, check=check), Inline) as runtime:
        run(day)
        nothing_left(runtime)


def test_a_model_that_dies_of_one_answers_the_others(
    make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_model, "_FIRST_PAUSE", 0.001)

    def predict(values: Values) -> None:
        if POISON in values:
            raise BackendDiedError

    async def day() -> None:
        with coalesced():
            asked = [runtime.ask(make_request(v)) for v in (1.0, POISON, 2.0)]
        assert kinds([await end_of(a) for a in asked]) == [1, BackendError, 2]

    with steered(World(predict=predict), Inline) as runtime:
        run(day)
        nothing_left(runtime)


def test_where_the_model_is_at_work_they_wait_for_it(make_request: MakeRequest) -> None:
    def predict(values: Values) -> None:
        if values == [0.0]:
            world.hold()

    world = World(predict=predict)

    async def day() -> None:
        first = runtime.submit(make_request(0.0))
        assert world.entered.wait(10)
        with coalesced():
            asked = [runtime.ask(make_request(float(i))) for i in (1, 2)]
        assert [a.outcome for a in asked] == [None, None]
        ends = asyncio.gather(*map(end_of, asked))
        await asyncio.sleep(0)
        world.gate.set()
        assert await ends == [1, 2]
        assert first.result(10).mean[0] == 0

    with steered(world, Inline) as runtime:
        run(day)
    assert world.most_inside == 1


def test_who_gathers_and_fails_leaves_nobody_behind(make_request: MakeRequest) -> None:
    async def day() -> None:
        asked: list[PendingRequest] = []
        with contextlib.suppress(ZeroDivisionError), coalesced():
            asked.append(runtime.ask(make_request(1.0)))
            raise ZeroDivisionError
        assert await end_of(asked[0]) == 1

    with steered(World(), Inline) as runtime:
        run(day)


def test_an_interrupt_in_one_model_leaves_the_others_served(make_request: MakeRequest) -> None:
    def interrupt(_: Values) -> None:
        raise KeyboardInterrupt

    async def day(other: ModelRuntime) -> None:
        def gather() -> None:
            with coalesced():
                asked.extend(model.ask(make_request(1.0)) for model in (other, interrupted, runtime))

        asked: list[PendingRequest] = []
        with pytest.raises(KeyboardInterrupt):
            gather()
        assert [await end_of(a) for a in (asked[0], asked[2])] == [1, 1]

    with (
        steered(World(), Inline) as runtime,
        steered(World(predict=interrupt), Inline) as interrupted,
        steered(World(), Inline) as other,
    ):
        run(lambda: day(other))


@pytest.mark.parametrize("drain", [True, False])
def test_a_model_that_stops_meanwhile_tells_everybody(make_request: MakeRequest, *, drain: bool) -> None:
    async def day() -> None:
        with coalesced():
            asked = [runtime.ask(make_request(float(i))) for i in range(3)]
            stopper = threading.Thread(target=lambda: runtime.stop(drain=drain))
            stopper.start()
            wait_until(lambda: runtime._lane is None)
            with pytest.raises(UnavailableError):
                runtime.ask(make_request(9.0))
        expected = [0, 1, 2] if drain else [UnavailableError] * 3
        assert kinds([await end_of(a) for a in asked]) == expected
        stopper.join(10)
        assert not stopper.is_alive()

    with steered(World(), Inline) as runtime:
        run(day)


@pytest.mark.parametrize("timeouts", [[0.01, 10.0], [0.01, 0.01]], ids=["one", "all"])
def test_a_deadline_that_passes_meanwhile_is_told(
    make_request: MakeRequest, timeouts: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    late = [timeout < 1 for timeout in timeouts]

    async def day() -> None:
        with coalesced():
            asked = [runtime.ask(make_request(float(i)), timeout=t) for i, t in enumerate(timeouts)]
            time.sleep(0.05)  # noqa: ASYNC251 - the loop is held up
        ends = [DeadlineExceededError if passed else i for i, passed in enumerate(late)]
        assert kinds([await end_of(a) for a in asked]) == ends
        assert (await runtime.predict(make_request(5.0), timeout=10)).mean[0] == 5

    with steered(world, Inline) as runtime:
        run(day)
    assert world.calls == [*([] if all(late) else [[1.0]]), [5.0]]
    assert not caplog.records


def test_a_window_is_kept(make_request: MakeRequest) -> None:
    world = World()

    async def day() -> None:
        before = time.monotonic()
        with coalesced():
            asked = [runtime.ask(make_request(float(i))) for i in range(2)]
        assert [a.outcome for a in asked] == [None, None]
        assert [await end_of(a) for a in asked] == [0, 1]
        assert time.monotonic() - before >= 0.1

    with steered(world, Inline, wait="always", timeout_ms=100) as runtime:
        run(day)
    assert world.calls == [[0, 1]]


def test_equal_requests_share_a_call_where_answers_are_kept(make_request: MakeRequest) -> None:
    world = World()

    async def day() -> None:
        with coalesced():
            asked = [runtime.ask(make_request(v)) for v in (1.0, 1.0, 2.0)]
        assert [await end_of(a) for a in asked] == [1, 1, 2]

    with steered(world, Inline, cache=True) as runtime:
        run(day)
        nothing_left(runtime)
    assert world.calls == [[1.0, 2.0]]


def test_the_thread_of_a_model_that_is_not_quick_is_woken_at_the_end(
    make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coalescing, "_LONGEST", 20.0)
    world = World()

    async def day() -> None:
        with coalesced():
            asked = []
            for i in range(3):
                asked.append(runtime.ask(make_request(float(i))))
                time.sleep(0.02)  # noqa: ASYNC251 - time for the thread, were it awake
            assert world.calls == []
        assert [await end_of(a) for a in asked] == [0, 1, 2]

    with steered(world, Steered) as runtime:
        run(day)
        nothing_left(runtime)
    assert world.calls == [[0, 1, 2]]
    assert threading.get_ident() not in world.threads["predict"]


def test_a_thread_is_woken_while_others_still_come_for_long(
    make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coalescing, "_LONGEST", 0.0)
    world = World()

    async def day() -> None:
        with coalesced():
            asked = [runtime.ask(make_request(0.0))]
            time.sleep(0.002)  # noqa: ASYNC251 - clocks differ
            asked.append(runtime.ask(make_request(1.0)))
            wait_until(lambda: world.calls == [[0, 1]])
        assert [await end_of(a) for a in asked] == [0, 1]

    with steered(world, Steered) as runtime:
        run(day)


@pytest.mark.parametrize("kind", [Inline, Steered])
def test_what_goes_on_after_the_end_is_not_of_the_turn(
    make_request: MakeRequest, kind: type[Steered]
) -> None:
    async def later(begun: asyncio.Event) -> Any:
        await begun.wait()
        return await runtime.predict(make_request(1.0), timeout=10)

    async def day() -> None:
        begun = asyncio.Event()
        with coalesced():
            task = asyncio.create_task(later(begun))  # has a copy of the context
        begun.set()
        assert (await task).mean[0] == 1

    with steered(World(), kind) as runtime:
        run(day)


def test_who_leaves_frees_the_place(make_request: MakeRequest) -> None:
    world = World()

    async def day() -> None:
        with coalesced():
            asked = [runtime.ask(make_request(float(i))) for i in range(2)]
            asked[0].cancel()
            assert runtime.depth == 1
        assert await end_of(asked[1]) == 1

    with steered(world, Inline) as runtime:
        run(day)
        nothing_left(runtime)
    assert world.calls == [[1.0]]
