"""Who waits for a model a moment has no task; who waits longer has one, which sees to all that may happen."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

from sheaf.api.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf.http.short_wait import ShortWait
from sheaf.spec import ModelSpec
from tests.echoes import Echo
from tests.engine.harness import wait_until
from tests.http.conftest import Serve, connect, read_answer, whole


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
