"""Calls whose time runs out say how long they had, and which keyword gives them longer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import pytest

from sheaf.spec import ModelSpec
from sheaf_client import CallTimeoutError, Sheaf
from sheaf_client.contracts.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf_client.errors import DeadlineExceededError
from tests.contract.targets import TARGETS, open_async
from tests.echoes import Echo

LATE = (CallTimeoutError, DeadlineExceededError)
ASKED: dict[str, Any] = {"history": [1.0, 2.0], "horizon": 1, "frequency": "1h"}


class Shut(Echo):
    """Answers nothing until the test is over."""

    gate: ClassVar[threading.Event] = threading.Event()

    def batch_predict(self, requests: Sequence[TimeSeriesRequest]) -> list[TimeSeriesResponse | Exception]:
        assert self.gate.wait(20), "the test never opened the gate"
        return super().batch_predict(requests)


SPECS = [ModelSpec(name="shut", backend_cls=Shut)]


@pytest.fixture(params=["local", "asgi", "http"])
def client(request: pytest.FixtureRequest) -> Iterator[Sheaf]:
    Shut.gate.clear()
    with TARGETS[request.param](SPECS) as running:
        yield running.with_options(model="shut", timeout=0.125)
        Shut.gate.set()


def test_a_call_that_is_late_says_what_it_had(client: Sheaf) -> None:
    with pytest.raises(LATE, match=r"The call had 0\.125 s; `timeout=` gives it another limit\."):
        client.time_series.forecast(**ASKED)
    with pytest.raises(LATE, match=r"The call had 0\.2 s;"):
        client.time_series.forecast(**ASKED, timeout=0.2)


def test_so_do_calls_of_many(client: Sheaf) -> None:
    requests = [TimeSeriesRequest(model_name="shut", **ASKED) for _ in range(2)]
    try:
        answers: list[Any] = client.time_series.forecast_many(requests)
    except LATE as error:  # over HTTP the call may fail as a whole
        answers = [error]
    for answer in answers:
        assert isinstance(answer, LATE)
        assert str(answer).count("The call had 0.125 s;") == 1


def test_so_do_awaited_calls(client: Sheaf) -> None:
    async def call() -> None:
        async with open_async(client, SPECS) as awaited:
            with pytest.raises(LATE, match=r"The call had 0\.125 s;"):
                await awaited.time_series.forecast(model="shut", **ASKED, timeout=0.125)
            Shut.gate.set()

    asyncio.run(call())
