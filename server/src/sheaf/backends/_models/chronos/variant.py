"""The interface of the Chronos models: a run over some requests that can pause after each block of steps.

`predict` drains a run of a whole batch, `stream` reports on a run of one request; both give equal answers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np
import torch

from sheaf.api.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf.backends._families.time_series import Forecast, answer, target_of, wants_quantiles
from sheaf.backends._models.chronos.facts import ChronosFacts, QuantileFacts
from sheaf.backends._shared.refusals import answer_each
from sheaf_client.contracts.events import ProgressEvent

#: A run yields after each block of steps that is done and returns one forecast per request, in order.
Run = Generator[None, None, list[Forecast]]

FactsT = TypeVar("FactsT", bound=ChronosFacts)
QuantileFactsT = TypeVar("QuantileFactsT", bound=QuantileFacts)


class Variant(ABC, Generic[FactsT]):
    """One kind of Chronos checkpoint, loaded."""

    def __init__(self, facts: FactsT) -> None:
        self.facts = facts

    @abstractmethod
    def run(self, requests: Sequence[TimeSeriesRequest]) -> Run:
        """Forecast requests that passed `check`, whatever they differ in."""

    def predict(self, requests: Sequence[TimeSeriesRequest]) -> list[TimeSeriesResponse | Exception]:
        """Forecast in one run; what has no finite forecast gets its error in place."""
        run = self.run(requests)
        while True:
            try:
                next(run)
            except StopIteration as end:
                return [*answer_each(answer, requests, end.value)]

    def stream(self, request: TimeSeriesRequest) -> Iterator[ProgressEvent | TimeSeriesResponse]:
        """Yield one event per block of steps, then the response."""
        run = self.run([request])
        total = self.facts.blocks(request)
        step = 0
        while True:
            try:
                next(run)
            except StopIteration as end:
                forecasts: list[Forecast] = end.value
                break
            step += 1
            yield ProgressEvent(step=step, total_steps=total)
        yield answer(request, forecasts[0])


class QuantileVariant(Variant[QuantileFactsT]):
    """A model whose output is quantiles at trained levels; its point forecast is the median."""

    def __init__(self, facts: QuantileFactsT) -> None:
        super().__init__(facts)
        self.median = facts.levels.index(0.5)

    @abstractmethod
    def interpolate(self, trained: torch.Tensor, levels: list[float]) -> torch.Tensor:
        """Quantiles at `levels`, shape (levels, horizon), from those trained, as the library does it."""

    def forecast(
        self, request: TimeSeriesRequest, trained: torch.Tensor, warnings: tuple[str, ...] = ()
    ) -> Forecast:
        """The forecast from `trained`, float32 of shape (trained levels, horizon)."""
        quantiles = None
        if wants_quantiles(request):
            known, levels = self.facts.levels, list(request.quantile_levels)
            if set(levels) <= set(known):
                quantiles = trained[[known.index(level) for level in levels]].numpy()
            else:
                quantiles = self.interpolate(trained, levels).numpy()
        warnings = (*self.facts.length_warnings(request), *warnings)
        return Forecast(trained[self.median].numpy(), "median", quantiles, warnings=warnings)


def context_of(request: TimeSeriesRequest, context_length: int) -> torch.Tensor:
    """The target as the models read it: float32, NaN where missing, the last `context_length` steps."""
    return torch.as_tensor(target_of(request)[-context_length:].astype(np.float32))


def pad_left(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """Tensors of shape (rows, time) below one another, the shorter ones after NaN, which models skip."""
    width = max(row.shape[-1] for row in rows)
    pad = torch.nn.functional.pad
    return torch.cat([pad(row, (width - row.shape[-1], 0), value=torch.nan) for row in rows])
