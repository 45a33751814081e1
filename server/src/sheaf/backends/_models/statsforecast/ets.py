"""Exponential smoothing of every kind, from the state at the end of the history.

Model: Hyndman, Koehler, Ord and Snyder 2008, "Forecasting with Exponential Smoothing". Of the library's own
forecasts this module takes none: a damped trend adds its first step twice, the variances of multiplicative
seasons stay at the first season, alpha times beta stands for alpha plus beta in ETS(M,A,A), small relative
errors cancel to none, and the paths of a trend that is not damped lose it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from sheaf.backends._families.time_series import Array
from sheaf.backends._models.statsforecast.predictive import NormalPredictive, Predictive

Kind = Literal["additive", "multiplicative"]

#: Paths behind the quantiles of models that are not linear: enough for 1 % of an interval's width.
_PATHS = 10_000


@dataclass(frozen=True)
class _Smoothing(Predictive):
    """A fitted model. What it lacks is additive and zero: no trend grows by 0, no season adds 0.

    Attributes:
        error, trend, seasonal: how each enters.
        sigma: standard deviation of the errors; relative ones where the error is multiplicative.
        alpha, beta, gamma: what an error moves level, growth and season by.
        phi: what is left of the growth after a step, 1 where it is not damped.
        level, growth: the state; the growth per step is a factor in a multiplicative trend.
        season: shape (season_length,), that of the next step first.
    """

    error: Kind
    trend: Kind
    seasonal: Kind
    sigma: float
    alpha: float
    beta: float
    gamma: float
    phi: float
    level: float
    growth: float
    season: tuple[float, ...]

    def point(self, horizon: int) -> Array:
        # Without errors each step is known beforehand; to walk a long horizon would take tenths of a second.
        season = np.resize(np.array(self.season), horizon)
        with np.errstate(all="ignore"):
            grown = np.cumsum(self.phi ** np.arange(1, horizon + 1))
            additive = self.trend == "additive"
            base = self.level + self.growth * grown if additive else self.level * self.growth**grown
            return base * season if self.seasonal == "multiplicative" else base + season

    def quantiles(self, levels: Sequence[float], horizon: int) -> Array:
        generator = np.random.default_rng(0)
        # The same scores in another order at each step: nearer to the distribution than independent draws.
        errors = (generator.permutation(_scores()) * self.sigma for _ in range(horizon))
        with np.errstate(all="ignore"):
            steps: list[Array] = [np.quantile(step, levels) for step in self._walk(errors)]
        return np.stack(steps, axis=1)

    def paths(self, count: int, horizon: int, generator: np.random.Generator) -> Array:
        errors = generator.normal(0.0, self.sigma, (horizon, count))
        with np.errstate(all="ignore"):
            return np.stack(list(self._walk(errors)), axis=1)

    def _walk(self, errors: Iterable[Any]) -> Iterator[Any]:
        """The values of the next steps, given their errors; each error may be an array over paths."""
        level: Any = np.float64(self.level)
        growth: Any = np.float64(self.growth)
        seasons: deque[Any] = deque(np.array(self.season))
        for error in errors:
            if self.trend == "additive":
                grown = self.phi * growth
                base = level + grown
            else:
                grown = growth**self.phi
                base = level * grown
            season = seasons.popleft()
            multiplies = self.seasonal == "multiplicative"
            centre = base * season if multiplies else base + season
            departure = centre * error if self.error == "multiplicative" else error
            yield centre + departure
            of_base = departure / season if multiplies else departure
            of_season = departure / base if multiplies else departure
            of_growth = of_base if self.trend == "additive" else of_base / level
            level = base + self.alpha * of_base
            growth = grown + self.beta * of_growth
            seasons.append(season + self.gamma * of_season)


class _Linear(NormalPredictive, _Smoothing):
    """A model in which nothing multiplies: every step is a sum of errors, so it is normal."""

    def deviation(self, horizon: int) -> Array:
        lags = np.arange(1, horizon)
        grown = np.cumsum(self.phi**lags)
        moved = self.alpha + self.beta * grown + self.gamma * (lags % len(self.season) == 0)
        variances: Array = 1 + np.concatenate([[0.0], np.cumsum(moved**2)])
        return self.sigma * np.sqrt(variances)


def smoothing(fitted: Mapping[str, Any]) -> Predictive:
    """The future by one of the library's fitted models (`AutoETS(...).fit(...).model_`)."""
    error, trend, seasonal, damped = fitted["components"]
    alpha, beta, gamma, phi = (float(value) for value in fitted["par"][:4])
    state = [float(value) for value in fitted["states"][-1]]
    grows, repeats = trend != "N", seasonal != "N"
    made = _Smoothing if "M" in (error, trend, seasonal) else _Linear
    return made(
        error=_kind(error),
        trend=_kind(trend),
        seasonal=_kind(seasonal),
        sigma=float(np.sqrt(fitted["sigma2"])),
        alpha=alpha,
        beta=beta if grows else 0.0,
        gamma=gamma if repeats else 0.0,
        phi=phi if damped == "D" else 1.0,
        level=state[0],
        growth=state[1] if grows else 0.0,
        # The library keeps the season of the last step first.
        season=tuple(reversed(state[1 + grows :])) if repeats else (0.0,),
    )


def _kind(letter: str) -> Kind:
    return "multiplicative" if letter == "M" else "additive"


@cache
def _scores() -> Array:
    """Normal scores that cut the distribution into equal parts, shape (_PATHS,)."""
    normal = NormalDist()
    return np.array([normal.inv_cdf((k + 0.5) / _PATHS) for k in range(_PATHS)])
