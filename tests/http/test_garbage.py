"""A request is freed by its last reference: the collector, which holds all others up, has nothing to find."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from sheaf.api.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf.spec import ModelSpec
from sheaf_client import ProgressEvent
from tests.echoes import Echo
from tests.http.conftest import GOOD, Serve, connect, read_answer, whole

REQUESTS = 60


class Patient(Echo):
    """Takes longer than the server waits before it looks whether a client is still there."""

    def batch_predict(self, requests: Sequence[TimeSeriesRequest]) -> list[TimeSeriesResponse | Exception]:
        time.sleep(0.03)
        if any(request.history == [666.0] for request in requests):
            raise RuntimeError("poison")
        return super().batch_predict(requests)

    def stream(self, request: TimeSeriesRequest) -> Iterator[ProgressEvent | TimeSeriesResponse]:
        yield ProgressEvent(step=1, total_steps=1)
        yield self.answer(request)


class Quick(Echo):
    inline = True


def spec(name: str, backend: type[Echo], **policy: Any) -> ModelSpec:
    return ModelSpec(name=name, backend_cls=backend, batch_policy=policy)


KINDS: dict[str, tuple[bytes, set[int]]] = {
    "answered at once": (whole(path="/quick/predict"), {200}),
    "answered later": (whole(path="/patient/predict"), {200}),
    "late": (whole(path="/patient/predict", **{"x-sheaf-timeout": "0.025"}), {200, 504}),
    "overloaded": (whole(path="/full/predict"), {200, 503}),
    "failed": (whole({**GOOD, "history": [666.0]}, path="/patient/predict"), {500}),
    "invalid": (whole({**GOOD, "horizon": 0}, path="/quick/predict"), {422}),
    "malformed": (whole(path="/quick/predict").replace(b'"horizon"', b'"horizon '), {400}),
    "unknown": (whole(path="/nobody/predict"), {404}),
    "a batch": (whole({"requests": [GOOD, {**GOOD, "horizon": 0}]}, path="/patient/batch"), {200}),
    "a page": (b"GET /models HTTP/1.1\r\nhost: localhost\r\n\r\n", {200}),
}


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.collect()
    # What other tests of the process left is large, and looking through it outlasts idle connections.
    gc.freeze()
    gc.disable()
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.unfreeze()
    gc.enable()


def found() -> Counter[str]:
    """What only the collector would free, by type."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    kinds = Counter(type(thing).__name__ for thing in gc.garbage)
    gc.garbage.clear()
    return kinds


@pytest.mark.parametrize("kind", KINDS)
def test_requests_leave_nothing_to_the_collector(serve: Serve, kind: str, no_collection: None) -> None:
    server = serve([spec("quick", Quick), spec("patient", Patient), spec("full", Patient, max_queue=1)])
    content, expected = KINDS[kind]
    connections = [connect(server) for _ in range(6)]

    def ask(rounds: int) -> set[int]:
        statuses: set[int] = set()
        for _ in range(rounds):
            for connection in connections:
                connection.sendall(content)
            statuses |= {read_answer(connection)[0] for connection in connections}
        return statuses

    ask(2)
    time.sleep(0.1)
    found()
    assert ask(REQUESTS // 6) <= expected
    time.sleep(0.1)
    garbage = found()
    assert garbage.total() < REQUESTS, garbage


def test_a_cycle_would_be_found(no_collection: None) -> None:
    for _ in range(REQUESTS):
        circle: list[Any] = []
        circle.append(circle)
    del circle
    assert found()["list"] >= REQUESTS
