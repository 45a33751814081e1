"""The four Theta models, from the state at the end of the history.

Model: Fiorucci et al. 2016, "Models for optimising the theta method and their relationship to state space
models". They are linear, so their intervals are exact. The library's are those of 200 paths, in which the
line moves even where the model keeps it, the mean is taken a step late, and an additive season is noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sheaf.backends._families.time_series import Array
from sheaf.backends._models.statsforecast.predictive import NormalPredictive, Predictive, Seasoned

#: The first residuals tell more of how the state was begun than of the errors.
_BURN_IN = 3


@dataclass(frozen=True)
class _Theta(NormalPredictive):
    """A fitted model.

    Attributes:
        alpha, theta: its parameters.
        moves: whether the line is fitted anew at each step (the dynamic models) or kept.
        sigma: standard deviation of the errors.
        length: observations of the history.
        state: shape (4,): smoothed level, mean of all observations, intercept and slope of the line.
    """

    alpha: float
    theta: float
    moves: bool
    sigma: float
    length: int
    state: Array

    def point(self, horizon: int) -> Array:
        state = self.state
        points = np.empty(horizon)
        for step, (reads, moves, takes) in enumerate(self._steps(horizon)):
            points[step] = reads @ state
            state = moves @ state + takes * points[step]
        return points

    def deviation(self, horizon: int) -> Array:
        covariance = np.zeros((4, 4))
        variances = np.empty(horizon)
        for step, (reads, moves, takes) in enumerate(self._steps(horizon)):
            variances[step] = self.sigma**2 + reads @ covariance @ reads
            whole = moves + np.outer(takes, reads)
            covariance = whole @ covariance @ whole.T + self.sigma**2 * np.outer(takes, takes)
        return np.sqrt(variances)

    def paths(self, count: int, horizon: int, generator: np.random.Generator) -> Array:
        errors = generator.normal(0.0, self.sigma, (horizon, count))
        states = np.repeat(self.state[:, None], count, axis=1)
        values = np.empty((count, horizon))
        for step, (reads, moves, takes) in enumerate(self._steps(horizon)):
            values[:, step] = reads @ states + errors[step]
            states = moves @ states + np.outer(takes, values[:, step])
        return values

    def _steps(self, horizon: int) -> Iterator[tuple[Array, Array, Array]]:
        """For each step: what its value reads of the state, and how state and value make the next state."""
        alpha, share = self.alpha, 1 - 1 / self.theta
        kept = np.diag([1 - alpha, 0.0, 1.0, 1.0])
        for seen in range(self.length, self.length + horizon):
            left = (1 - alpha) ** seen
            reads = np.array([1.0, 0.0, share * left, share * (1 - left * (1 - alpha)) / alpha])
            moves, takes = kept.copy(), np.array([alpha, 1 / (seen + 1), 0.0, 0.0])
            moves[1, 1] = seen / (seen + 1)
            if self.moves:
                pull = 6 / ((seen + 1) * (seen + 2))
                moves[3] = [0.0, -pull, 0.0, (seen - 1) / (seen + 2)]
                takes[3] = pull
                moves[2] = moves[1] - moves[3] * (seen + 2) / 2
                takes[2] = takes[1] - takes[3] * (seen + 2) / 2
            yield reads, moves, takes


def theta(fitted: Mapping[str, Any]) -> Predictive:
    """The future by one of the library's fitted models (`AutoTheta(...).fit(...).model_`)."""
    residuals = np.asarray(fitted["residuals"], dtype=np.float64)
    season, multiplies = None, fitted.get("decomposition_type") == "multiplicative"
    if fitted.get("decompose"):
        # The library keeps one season, that of the step after the history first, and puts it into the
        # residuals, which are those of the model without.
        season = np.asarray(fitted["seas_forecast"]["mean"], dtype=np.float64)
        past = season[np.arange(-len(residuals), 0) % len(season)]
        residuals = residuals / past if multiplies else residuals - past
    settled = residuals[_BURN_IN:]
    model = _Theta(
        alpha=float(fitted["par"]["alpha"]),
        theta=float(fitted["par"]["theta"]),
        moves=fitted["modeltype"].startswith("D"),
        sigma=float(np.std(settled if len(settled) > 1 else residuals, ddof=1)),
        length=fitted["n"],
        state=np.asarray(fitted["states"][-1][:4], dtype=np.float64),
    )
    return model if season is None else Seasoned(model, season, multiplies)
