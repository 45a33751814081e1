"""A library that answers one after another: calls stay short, so the quick do not wait for the slow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from sheaf.api.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf.backends.base import ModelBackend
from sheaf.backends.statsforecast import StatsForecastBackend
from sheaf.engine.jobs import Job, PredictJob
from sheaf.engine.model import LoadedModel
from sheaf.engine.observer import Observer
from sheaf.scheduling.batch import BatchPolicy
from sheaf.scheduling.queue import Entry, WaitingLine
from sheaf.spec import ModelSpec
from tests.conftest import MakeRequest
from tests.echoes import Echo

#: Seconds of a slow and a quick request, as their horizons say in milliseconds.
SLOW, QUICK = 5600, 10


class Clock:
    """Time as the model makes it pass."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Loop(Echo):
    """Answers one after another, each for as many milliseconds as its horizon."""

    batch_predict = ModelBackend.batch_predict

    def __init__(self, *, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def predict(self, request: TimeSeriesRequest) -> TimeSeriesResponse:
        self.clock.now += request.horizon / 1000
        return self.answer(request)

    def cost(self, request: TimeSeriesRequest) -> float:
        return float(request.horizon)


class Together(Loop):
    """The same, which says nothing of a loop: it has a batch call of its own."""

    def batch_predict(self, requests: Sequence[TimeSeriesRequest]) -> list[TimeSeriesResponse | Exception]:
        return [self.predict(request) for request in requests]


class Line:
    """A model and its line, driven turn by turn."""

    def __init__(self, backend: type[Loop], **policy: Any) -> None:
        self.clock = Clock()
        settings = {"clock": self.clock}
        bounds = BatchPolicy.model_validate(policy)
        spec = ModelSpec(name="echo", backend_cls=backend, backend_kwargs=settings, batch_policy=bounds)
        self.model = LoadedModel(spec, Observer(), self.clock)
        self.line: WaitingLine[Job] = WaitingLine(spec.batch_policy, padded=False)
        self.sizes: list[int] = []

    def add(self, request: Any, tenant: str) -> list[float]:
        """Put a request in line; the list gets the time of its answer."""
        ends: list[float] = []
        job = PredictJob(request, lambda _: ends.append(self.clock.now))
        self.line.add(Entry(job, None, float(request.horizon), self.clock.now, None, 0, tenant))
        return ends

    def run(self) -> None:
        while len(self.line):
            began = self.clock.now
            batch = self.line.take(began, self.model.max_cost)
            self.sizes.append(len(batch))
            self.model.run(batch)
            self.line.charge(batch, self.clock.now - began)


@pytest.mark.parametrize(("backend", "policy"), [(Loop, {}), (Together, {"target_ms": 500})])
def test_a_quick_one_waits_for_one_slow_call_of_another_s(
    make_request: MakeRequest, backend: type[Loop], policy: dict[str, Any]
) -> None:
    line = Line(backend, **policy)
    slow = [line.add(make_request(1.0, horizon=SLOW), "ann") for _ in range(6)]
    quick = line.add(make_request(1.0, horizon=QUICK), "bob")
    line.run()
    assert quick[0] <= (SLOW + QUICK) / 1000
    # Each slow one is answered when it is done, and not with the last.
    assert sorted(end for (end,) in slow) == pytest.approx([5.61 + 5.6 * i for i in range(6)], abs=0.02)


def test_all_wait_for_the_last_where_the_backend_says_nothing(make_request: MakeRequest) -> None:
    """What a default target is for: as it is, where a call is one pass for all."""
    line = Line(Together)
    ends = [line.add(make_request(1.0, horizon=SLOW), "ann") for _ in range(6)]
    ends.append(line.add(make_request(1.0, horizon=QUICK), "bob"))
    line.run()
    assert line.sizes == [7]
    assert [end for (end,) in ends] == pytest.approx([6 * 5.6 + 0.01] * 7)


def test_quick_ones_share_calls_up_to_the_target(make_request: MakeRequest) -> None:
    line = Line(Loop)
    for _ in range(200):
        line.add(make_request(1.0, horizon=QUICK), "ann")
    line.run()
    assert line.sizes[:4] == [1, 2, 4, 8]
    assert max(line.sizes) == BatchPolicy().max_batch_size
    assert len(line.sizes) < 15


def test_the_policy_goes_before_the_backend_s_target(make_request: MakeRequest) -> None:
    line = Line(Loop, target_ms=1e7)
    for _ in range(40):
        line.add(make_request(1.0, horizon=SLOW), "ann")
    line.run()
    assert max(line.sizes) > 8


def test_which_backends_have_a_target() -> None:
    assert StatsForecastBackend.default_target_ms() == 500
    assert Loop.default_target_ms() == 500
    assert Together.default_target_ms() is None
    assert Echo.default_target_ms() is None
