"""The last season over and over, each step off the one a season before by an error of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sheaf.backends._families.time_series import Array
from sheaf.backends._models.statsforecast.predictive import NormalPredictive, Predictive


@dataclass(frozen=True)
class _SeasonalNaive(NormalPredictive):
    """A fitted model.

    Attributes:
        season: the last values, shape (season_length,), that of the next step first.
        sigma: standard deviation of the errors.
    """

    season: Array
    sigma: float

    def point(self, horizon: int) -> Array:
        return np.resize(self.season, horizon)

    def deviation(self, horizon: int) -> Array:
        return self.sigma * np.sqrt(np.arange(horizon) // len(self.season) + 1)

    def paths(self, count: int, horizon: int, generator: np.random.Generator) -> Array:
        values = generator.normal(0.0, self.sigma, (count, horizon))
        before = self.season
        for first in range(0, horizon, len(self.season)):
            now = values[:, first : first + len(self.season)]
            now += before[..., : now.shape[1]]
            before = now
        return values


def seasonal_naive(fitted: Mapping[str, Any]) -> Predictive:
    """The future by one of the library's fitted models (`SeasonalNaive(...).fit(...).model_`)."""
    return _SeasonalNaive(np.asarray(fitted["mean"], dtype=np.float64), float(fitted["sigma"]))
