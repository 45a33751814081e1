"""What is known of a loaded Chronos checkpoint, and what follows from it for a request; torch is not needed.

Each kind says which requests it serves, what they cost, and which of them may share a run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np

from sheaf.api.time_series import TimeSeriesRequest
from sheaf.backends._families.time_series import (
    check_history,
    check_level_count,
    check_no_covariates,
    check_sample_count,
    check_timestamps,
    history_of,
    wants_quantiles,
    wants_samples,
)
from sheaf.backends._shared.refusals import refuse
from sheaf_client.protocol import pointer

#: The models scale by sums of squares in float32, which must hold those of a whole context; below the least a
#: series vanishes beside the constants that are added to its scale.
MIN_VALUE, MAX_VALUE = 1e-17, 1e17
#: Targets and covariates of one request: attention between them takes memory by the square of their count.
MAX_SERIES = 512
#: Levels whose forecasts Chronos-2 appends to the context when a horizon takes more than one pass.
PATH_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class ChronosFacts(ABC):
    """What is known of one kind of checkpoint.

    Attributes:
        context_length: steps of history that are read.
        model_context: steps the model can read, its own forecasts included.
        block_length: steps the model forecasts in one go; longer horizons build on their own forecasts.
    """

    context_length: int
    model_context: int
    block_length: int

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

    def read_steps(self, request: TimeSeriesRequest) -> int:
        """Steps of the history that are read."""
        return min(len(request.history or ()), self.context_length)

    def length_warnings(self, request: TimeSeriesRequest) -> tuple[str, ...]:
        """What to tell the caller about a horizon beyond one block."""
        if request.horizon <= self.block_length:
            return ()
        return (
            f"The model forecasts {self.block_length} steps at once; later ones build on its own forecasts.",
        )


@dataclass(frozen=True)
class QuantileFacts(ChronosFacts):
    """Of a model whose output is quantiles at trained levels.

    Attributes:
        levels: those that it was trained for, in order.
        patch: steps of one token.
    """

    levels: tuple[float, ...]
    patch: int

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


@dataclass(frozen=True)
class BoltFacts(QuantileFacts):
    """Of a Chronos-Bolt."""

    def check(self, request: TimeSeriesRequest) -> None:
        super().check(request)
        check_no_covariates(request, "past_covariates", "future_covariates")

    def cost(self, request: TimeSeriesRequest) -> float:
        patches = ceil(self.read_steps(request) / self.patch) + 1
        return float(patches * (1 + len(self.levels) * (self.blocks(request) - 1)))


@dataclass(frozen=True)
class Chronos2Facts(QuantileFacts):
    """Of a Chronos-2, whose forecast depends on the number of its output patches."""

    def check(self, request: TimeSeriesRequest) -> None:
        super().check(request)
        past, future = request.past_covariates or {}, request.future_covariates or {}
        width = history_of(request).shape[1] + len(past)
        if width > MAX_SERIES:
            where = "/past_covariates" if past else "/history"
            message = f"At most {MAX_SERIES} variates and covariates together."
            raise refuse(where, message, "too_long")
        for field, covariates in (("past_covariates", past), ("future_covariates", future)):
            for name, values in covariates.items():
                path = pointer((field, name))
                if is_categorical(values) != is_categorical(past[name]):
                    raise refuse(path, "Must be of the same kind as in past_covariates.", "mismatch")
                if not is_categorical(values):
                    check_size(path, values)

    def batch_key(self, request: TimeSeriesRequest) -> Hashable:
        return self.patches(request)

    def cost(self, request: TimeSeriesRequest) -> float:
        history = request.history or [0.0]
        variates = len(history[0]) if isinstance(history[0], list) else 1
        series = variates + len(request.past_covariates or ())
        context = ceil(min(len(history), self.context_length) / self.patch) + 1
        unrolled = 1 + len(PATH_LEVELS) * (self.blocks(request) - 1)
        return float(series * unrolled * (context + self.patches(request)))

    def patches(self, request: TimeSeriesRequest) -> int:
        """Output patches that the horizon takes."""
        return ceil(request.horizon / self.patch)


@dataclass(frozen=True)
class T5Facts(ChronosFacts):
    """Of an original Chronos, which draws sample paths.

    Attributes:
        num_samples: paths for requests that do not say how many; that of the contract where None.
    """

    num_samples: int | None = None

    def check(self, request: TimeSeriesRequest) -> None:
        super().check(request)
        check_no_covariates(request, "past_covariates", "future_covariates")
        check_sample_count(request, self.paths(request))

    def batch_key(self, request: TimeSeriesRequest) -> Hashable:
        return self.blocks(request) if request.seed is None else request.request_id

    def deterministic(self, request: TimeSeriesRequest) -> bool:
        """Mean and quantiles too are those of the paths that are drawn."""
        return request.seed is not None

    def cost(self, request: TimeSeriesRequest) -> float:
        return float(self.read_steps(request) + self.paths(request) * request.horizon)

    def paths(self, request: TimeSeriesRequest) -> int:
        """Sample paths that are drawn for a request."""
        if self.num_samples is not None and "num_samples" not in request.model_fields_set:
            return self.num_samples
        return request.num_samples


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


def is_categorical(values: Sequence[float | str | None]) -> bool:
    """Whether a covariate is of categories, not of numbers."""
    return isinstance(values[0], str)
