"""Backends whose behaviour tests can steer: real ones in every respect but that their model is arithmetic."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path

from sheaf.api.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf.backends.base import ModelBackend, respond
from sheaf_client import ProgressEvent
from sheaf_client.contracts.problem import Fault
from sheaf_client.errors import InvalidRequestError


class Echo(ModelBackend[TimeSeriesRequest, TimeSeriesResponse]):
    """Repeats the last value; keeps the batches it was given."""

    model_type = "time_series"

    def __init__(self, *, add: float = 0.0, seconds: float = 0.0) -> None:
        self.add, self.seconds = add, seconds
        self.batches: list[list[TimeSeriesRequest]] = []
        self.threads: set[int] = set()
        self.unloaded = False

    def load(self) -> None:
        self.threads.add(threading.get_ident())

    def unload(self) -> None:
        self.unloaded = True

    def answer(self, request: TimeSeriesRequest) -> TimeSeriesResponse:
        assert request.history is not None
        value = request.history[-1]
        assert isinstance(value, float)
        mean = [value + self.add] * request.horizon
        return respond(
            request,
            TimeSeriesResponse,
            mean=mean,
            horizon=request.horizon,
            frequency=request.frequency,
            item_id=request.item_id,
        )

    def batch_predict(self, requests: Sequence[TimeSeriesRequest]) -> list[TimeSeriesResponse | Exception]:
        self.threads.add(threading.get_ident())
        self.batches.append(list(requests))
        if self.seconds:
            time.sleep(self.seconds)
        return [self.answer(request) for request in requests]

    @property
    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.batches]


class Gated(Echo):
    """Holds every batch until `gate` is opened, so that a line can form behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.entered = threading.Event()

    def batch_predict(self, requests: Sequence[TimeSeriesRequest]) -> list[TimeSeriesResponse | Exception]:
        self.entered.set()
        assert self.gate.wait(20), "the test never opened the gate"
        return super().batch_predict(requests)

    def batch_key(self, request: TimeSeriesRequest) -> Hashable:
        return request.static_covariates.get("key") if request.static_covariates else None

    def cost(self, request: TimeSeriesRequest) -> float:
        return float(request.horizon)


class Fragile(Echo):
    """Raises for a whole batch where one member's last value is 666; refuses 13 for that request alone."""

    def batch_predict(self, requests: Sequence[TimeSeriesRequest]) -> list[TimeSeriesResponse | Exception]:
        answers = super().batch_predict(requests)
        for index, request in enumerate(requests):
            assert request.history is not None
            if request.history[-1] == 666:
                raise RuntimeError("secret: /etc/model/weights.bin")
            if request.history[-1] == 13:
                fault = Fault(code="unsupported", path="/history", message="Thirteen is refused.")
                answers[index] = InvalidRequestError("Refused.", errors=[fault])
        return answers


class Stepping(Echo):
    """Streams `horizon` steps, each `seconds` long."""

    def __init__(self, *, add: float = 0.0, seconds: float = 0.0) -> None:
        super().__init__(add=add, seconds=seconds)
        self.steps_taken = 0
        self.closed = threading.Event()

    def stream(self, request: TimeSeriesRequest) -> Iterator[ProgressEvent | TimeSeriesResponse]:
        try:
            for step in range(request.horizon):
                self.threads.add(threading.get_ident())
                time.sleep(self.seconds)
                self.steps_taken += 1
                yield ProgressEvent(step=step + 1, total_steps=request.horizon)
            yield self.answer(request)
        finally:
            self.closed.set()


class Broken(Echo):
    """Cannot be loaded."""

    def load(self) -> None:
        raise FileNotFoundError("no checkpoint at /models/none")


class NotANumber(Echo):
    """Answers with NaN, as a model out of its depth does."""

    def answer(self, request: TimeSeriesRequest) -> TimeSeriesResponse:
        mean = [float("nan")] * request.horizon
        return respond(
            request, TimeSeriesResponse, mean=mean, horizon=request.horizon, frequency=request.frequency
        )


class Mortal(Echo):
    """Kills its own process at the value 99, the first time: `grave` is a file that says it has happened."""

    def __init__(self, *, grave: str) -> None:
        super().__init__()
        self.grave = Path(grave)

    def batch_predict(self, requests: Sequence[TimeSeriesRequest]) -> list[TimeSeriesResponse | Exception]:
        if not self.grave.exists() and any(99 in (request.history or ()) for request in requests):
            self.grave.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().batch_predict(requests)


class Measured(Echo):
    """Refuses 13, which has no size either."""

    def check(self, request: TimeSeriesRequest) -> None:
        if request.history is not None and request.history[-1] == 13.0:
            raise InvalidRequestError("13 is refused.")

    def answer_size(self, request: TimeSeriesRequest) -> int:
        self.check(request)
        return 20 * request.horizon


class Unwritable(Echo):
    """Answers 13 with what is no JSON, and refuses 12 by it."""

    def answer(self, request: TimeSeriesRequest) -> TimeSeriesResponse:
        response = super().answer(request)
        if response.mean[0] == 12.0:
            fault = Fault(code="\ud800", path="/\ud800", message="\ud800")
            raise InvalidRequestError("\ud800", errors=[fault])
        return response.model_copy(update={"mean": [object()]}) if response.mean[0] == 13.0 else response
