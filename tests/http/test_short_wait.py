"""Who waits for a model a moment has no task; who waits longer has one, which sees to all that may happen."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest

from sheaf.api.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf.embedded import EmbeddedServer
from sheaf.http import short_wait
from sheaf.http.limits import Limits
from sheaf.http.short_wait import ShortWait
from sheaf.spec import ModelSpec
from tests.echoes import Echo, Gated
from tests.engine.harness import wait_until
from tests.http.conftest import GOOD, Serve, answers_of, connect, read_all, read_answer, whole
from tests.observability.readings import scrape


class Asked:
    """A request whose outcome comes when the test says so."""

    def __init__(self, *, soon: bool = True) -> None:
        self._soon = soon
        self.tell: Callable[[], None] | None = None

    def call_back(self, tell: Callable[[], None] | None, within: float) -> bool:
        assert within >= 0
        self.tell = tell
        return self._soon


def test_an_outcome_that_comes_soon_needs_no_task_and_a_late_one_has_one() -> None:
    seen: list[str] = []

    async def run() -> None:
        wait = ShortWait()
        quick, slow, hurried, late = Asked(), Asked(), Asked(soon=False), asyncio.Event()
        for name, asked in (("quick", quick), ("slow", slow), ("hurried", hurried)):

            def begin_task(name: str = name) -> None:
                seen.append(f"{name} has a task")
                if name == "slow":
                    late.set()

            def go_on(name: str = name) -> None:
                seen.append(f"{name} goes on")

            wait.add(asked, go_on, begin_task)
        assert quick.tell is not None
        quick.tell()
        await asyncio.wait_for(late.wait(), 10)
        assert slow.tell is None  # its task alone waits from now on
        again = Asked()  # after a pause in which nobody waited
        done = asyncio.Event()
        wait.add(again, lambda: seen.append("again goes on"), done.set)
        await asyncio.wait_for(done.wait(), 10)

    asyncio.run(run())
    assert seen == ["hurried has a task", "quick goes on", "slow has a task"]


def test_an_answer_is_the_same_with_a_task_and_without(serve: Serve) -> None:
    gate = threading.Event()

    class Slow(Echo):
        def batch_predict(
            self, requests: Sequence[TimeSeriesRequest]
        ) -> list[TimeSeriesResponse | Exception]:
            assert gate.wait(20), "the test never opened the gate"
            return super().batch_predict(requests)

    server = serve([ModelSpec(name="echo", backend_cls=Echo), ModelSpec(name="slow", backend_cls=Slow)])
    assert server._server is not None
    tasks = server._server.server_state.tasks
    with connect(server) as connection, connect(server) as other:
        connection.sendall(whole())
        quick = read_answer(connection)
        other.sendall(whole(path="/slow/predict"))
        wait_until(lambda: tasks)
        gate.set()
        slow = read_answer(other)
    assert quick[0] == slow[0] == 200
    assert quick[1]["mean"] == slow[1]["mean"]


def test_who_leaves_during_it_frees_its_place_at_once_and_is_counted_as_gone(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(short_wait, "_MOMENT", 10)  # the wait is far from its end
    server = serve(ModelSpec(name="gated", backend_cls=Gated, batch_policy={"max_batch_size": 1}))
    backend = server._models.get("gated").backend
    assert isinstance(backend, Gated)
    with connect(server) as stays, connect(server) as leaves, connect(server) as waits:
        leaves.sendall(whole(path="/gated/predict"))
        assert backend.entered.wait(10)
        waits.sendall(whole(path="/gated/predict"))
        stays.sendall(whole({**GOOD, "horizon": 3}, path="/gated/predict"))
        wait_until(lambda: waiting(server) == 2)
        for connection in (leaves, waits):
            connection.close()
        wait_until(lambda: counted(server, "499") == 2)
        assert waiting(server) == 1
        backend.gate.set()
        status, answer = read_answer(stays)
    assert (status, len(answer["mean"])) == (200, 3)
    wait_until(lambda: counted(server, "200") == 1)
    assert [batch[0].horizon for batch in backend.batches] == [2, 3]
    assert server._server is not None
    assert not server._server.server_state.tasks


def test_the_end_of_a_server_counts_who_is_in_it(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(short_wait, "_MOMENT", 10)
    server = serve(ModelSpec(name="gated", backend_cls=Gated), Limits(drain_timeout=0.1))
    backend = server._models.get("gated").backend
    assert isinstance(backend, Gated)
    with connect(server) as connection:
        connection.sendall(whole(path="/gated/predict") * 2)
        assert backend.entered.wait(10)
        server._server.should_exit = True  # type: ignore[union-attr]
        answers = answers_of(read_all(connection))
        backend.gate.set()
    assert [status for status, _, _ in answers] == [503, 503]
    wait_until(lambda: "2 requests were not answered within 0.1 s" in caplog.text)


def waiting(server: EmbeddedServer) -> float:
    return scrape(server.url).of("sheaf_queue_depth", model="gated")


def counted(server: EmbeddedServer, status: str) -> float:
    return scrape(server.url).of("sheaf_requests_total", model="gated", route="predict", status=status)
