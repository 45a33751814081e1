"""What a fitted model says of the future, as point, quantiles and paths that belong together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from sheaf.backends._families.time_series import Array

_NORMAL = NormalDist()


class Predictive(ABC):
    """The distribution of the steps that follow a history."""

    @abstractmethod
    def point(self, horizon: int) -> Array:
        """The forecast, shape (horizon,): the model's recursion without errors."""

    @abstractmethod
    def quantiles(self, levels: Sequence[float], horizon: int) -> Array:
        """Quantiles at `levels`, each between 0 and 1, shape (levels, horizon); the same at each call."""

    @abstractmethod
    def paths(self, count: int, horizon: int, generator: np.random.Generator) -> Array:
        """Draws of the whole future, shape (count, horizon)."""


class NormalPredictive(Predictive):
    """A model that is linear in normal errors: each step is normal around the point."""

    @abstractmethod
    def deviation(self, horizon: int) -> Array:
        """The standard deviation of each step, shape (horizon,)."""

    def quantiles(self, levels: Sequence[float], horizon: int) -> Array:
        scores = np.array([_NORMAL.inv_cdf(level) for level in levels])
        return self.point(horizon) + np.outer(scores, self.deviation(horizon))


@dataclass(frozen=True)
class Seasoned(Predictive):
    """A model of what is left without the season, and a season that repeats as it is.

    Attributes:
        rest: the model without the season.
        season: shape (season_length,), that of the next step first.
        multiplies: whether the season multiplies the rest, or is added to it.
    """

    rest: Predictive
    season: Array
    multiplies: bool = False

    def point(self, horizon: int) -> Array:
        return self._seasoned(self.rest.point(horizon))

    def quantiles(self, levels: Sequence[float], horizon: int) -> Array:
        return self._seasoned(self.rest.quantiles(levels, horizon))

    def paths(self, count: int, horizon: int, generator: np.random.Generator) -> Array:
        return self._seasoned(self.rest.paths(count, horizon, generator))

    def _seasoned(self, values: Array) -> Array:
        season = np.resize(self.season, values.shape[-1])
        return values * season if self.multiplies else values + season
