"""The interface of the Chronos models: a run over some requests that can pause after each block of steps.

`predict` drains a run of a whole batch, `stream` reports on a run of one request; both give equal answers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Hashable, Iterator, Sequence
from math import ceil
from typing import Any

import numpy as np
import torch

from sheaf.api.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf.backends._families.time_series import (
    Forecast,
    answer,
    check_history,
    check_level_count,
    check_timestamps,
    history_of,
    target_of,
    wants_quantiles,
    wants_samples,
)
from sheaf.backends._shared.refusals import attempt, refuse
from sheaf_client.contracts.events import ProgressEvent

#: The models scale by sums of squares in float32, which must hold those of a whole context; below the least a
#: series vanishes beside the constants that are added to its scale.
MIN_VALUE, MAX_VALUE = 1e-17, 1e17

#: A run yields after each block of steps that is done and returns one forecast per request, in order.
Run = Generator[None, None, list[Forecast]]


class Variant(ABC):
    """One kind of Chronos checkpoint, loaded.

    Attributes:
        context_length: steps of history that are read.
        model_context: steps the model can read, its own forecasts included.
        block_length: steps the model forecasts in one go; longer horizons build on their own forecasts.
    """

    def __init__(self, pipeline: Any, context_length: int | None) -> None:
        self.model_context: int = pipeline.model_context_length
        self.context_length = min(context_length or self.model_context, self.model_context)
        self.block_length: int = pipeline.model_prediction_length

    @abstractmethod
    def run(self, requests: Sequence[TimeSeriesRequest]) -> Run:
        """Forecast requests that passed `check`, whatever they differ in."""

    @abstractmethod
    def cost(self, request: TimeSeriesRequest) -> float:
        """Tokens that pass through the model for this request, roughly."""

    def check(self, request: TimeSeriesRequest) -> None:
        """Raise `InvalidRequestError` for what this model cannot do."""
        check_history(request, self.context_length)
        check_size("/history", history_of(request))
        check_timestamps(request)
        check_level_count(request)
        if request.static_covariates:
            raise refuse("/static_covariates", "This model takes no static covariates.")

    def batch_key(self, request: TimeSeriesRequest) -> Hashable:
        """Requests that finish after the same number of blocks: a short one does not wait for a long one."""
        return self.blocks(request)

    def deterministic(self, request: TimeSeriesRequest) -> bool:  # noqa: ARG002 - for those who override it
        """Whether the same request has the same answer."""
        return True

    def blocks(self, request: TimeSeriesRequest) -> int:
        """Blocks of steps that the horizon takes."""
        return ceil(request.horizon / self.block_length)

    def predict(self, requests: Sequence[TimeSeriesRequest]) -> list[TimeSeriesResponse | Exception]:
        """Forecast in one run; what fails `check` or has no finite forecast gets its error in place."""
        refused = [attempt(self.check, request) for request in requests]
        accepted = [request for request, error in zip(requests, refused, strict=True) if error is None]
        answers = iter(self._answers(accepted)) if accepted else iter(())
        return [next(answers) if error is None else error for error in refused]

    def _answers(self, requests: Sequence[TimeSeriesRequest]) -> list[TimeSeriesResponse | Exception]:
        run = self.run(requests)
        while True:
            try:
                next(run)
            except StopIteration as end:
                forecasts: list[Forecast] = end.value
                break
        return [
            attempt(answer, request, forecast) for request, forecast in zip(requests, forecasts, strict=True)
        ]

    def stream(self, request: TimeSeriesRequest) -> Iterator[ProgressEvent | TimeSeriesResponse]:
        """Yield one event per block of steps, then the response."""
        self.check(request)
        run = self.run([request])
        total = self.blocks(request)
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

    def length_warnings(self, request: TimeSeriesRequest) -> tuple[str, ...]:
        """What to tell the caller about a horizon beyond one block."""
        if request.horizon <= self.block_length:
            return ()
        return (
            f"The model forecasts {self.block_length} steps at once; later ones build on its own forecasts.",
        )


class QuantileVariant(Variant):
    """A model whose output is quantiles at trained levels; its point forecast is the median."""

    def __init__(self, pipeline: Any, context_length: int | None) -> None:
        super().__init__(pipeline, context_length)
        self.levels: list[float] = list(pipeline.quantiles)
        self.median = self.levels.index(0.5)

    @abstractmethod
    def interpolate(self, trained: torch.Tensor, levels: list[float]) -> torch.Tensor:
        """Quantiles at `levels`, shape (levels, horizon), from those trained, as the library does it."""

    def check(self, request: TimeSeriesRequest) -> None:
        super().check(request)
        if wants_samples(request):
            raise refuse("/output_mode", "This model forecasts quantiles; it has no sample paths.")
        if wants_quantiles(request):
            low, high = min(self.levels), max(self.levels)
            for i, level in enumerate(request.quantile_levels):
                if not low <= level <= high:
                    message = f"The model was trained for levels from {low} to {high}."
                    raise refuse(f"/quantile_levels/{i}", message)

    def forecast(
        self, request: TimeSeriesRequest, trained: torch.Tensor, warnings: tuple[str, ...] = ()
    ) -> Forecast:
        """The forecast from `trained`, float32 of shape (trained levels, horizon)."""
        quantiles = None
        if wants_quantiles(request):
            levels = list(request.quantile_levels)
            if set(levels) <= set(self.levels):
                quantiles = trained[[self.levels.index(level) for level in levels]].numpy()
            else:
                quantiles = self.interpolate(trained, levels).numpy()
        warnings = (*self.length_warnings(request), *warnings)
        return Forecast(trained[self.median].numpy(), "median", quantiles, warnings=warnings)


def check_size(path: str, values: Any) -> None:
    """Refuse series of sizes with which the models silently forecast nonsense; one of zeros alone is none.

    Args:
        values: shape (time,) or (time, variates), NaN or None where one is missing.
    """
    sizes = np.abs(np.asarray(values, dtype=np.float64))
    # Of each variate, which the models scale by itself.
    largest = np.nanmax(sizes, axis=0, initial=0)
    if (largest > MAX_VALUE).any():
        raise refuse(path, f"The model's scaling overflows on values beyond {MAX_VALUE:g}.", "out_of_range")
    if ((largest > 0) & (largest < MIN_VALUE)).any():
        message = f"The model's scaling loses series of values that are all within {MIN_VALUE:g} of 0."
        raise refuse(path, message, "out_of_range")


def context_of(request: TimeSeriesRequest, context_length: int) -> torch.Tensor:
    """The target as the models read it: float32, NaN where missing, the last `context_length` steps."""
    return torch.as_tensor(target_of(request)[-context_length:].astype(np.float32))


def pad_left(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """Tensors of shape (rows, time) below one another, the shorter ones after NaN, which models skip."""
    width = max(row.shape[-1] for row in rows)
    pad = torch.nn.functional.pad
    return torch.cat([pad(row, (width - row.shape[-1], 0), value=torch.nan) for row in rows])
