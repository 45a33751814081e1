"""How long a batch will take: seconds = a·cost + b, fitted to the batches that ran, the latest most."""

from __future__ import annotations

import math

#: Weight that a batch keeps with each batch after it: the fit follows what the last fifty or so took.
_MEMORY = 0.98


class LatencyModel:
    """An exponentially weighted least-squares line through (cost, seconds) of past batches."""

    def __init__(self) -> None:
        self._weight = self._cost = self._seconds = self._cost2 = self._product = 0.0
        self._largest = 0.0

    def observe(self, cost: float, seconds: float) -> None:
        """Take in one batch: its cost and the seconds it took."""
        self._weight = _MEMORY * self._weight + 1
        self._cost = _MEMORY * self._cost + cost
        self._seconds = _MEMORY * self._seconds + seconds
        self._cost2 = _MEMORY * self._cost2 + cost * cost
        self._product = _MEMORY * self._product + cost * seconds
        self._largest = max(self._largest, cost)

    @property
    def line(self) -> tuple[float, float]:
        """(a, b) of seconds = a·cost + b, both at least 0. Costs all alike give a line through the origin."""
        if not self._weight:
            return 0.0, 0.0
        mean_cost, mean_seconds = self._cost / self._weight, self._seconds / self._weight
        spread = self._cost2 / self._weight - mean_cost**2
        if spread <= 1e-9 * max(mean_cost**2, 1e-12):
            return (mean_seconds / mean_cost if mean_cost else 0.0), 0.0
        slope = max(0.0, (self._product / self._weight - mean_cost * mean_seconds) / spread)
        offset = mean_seconds - slope * mean_cost
        if offset < 0:  # a line through the origin fits better than a negative time for nothing
            return mean_seconds / mean_cost, 0.0
        return slope, offset

    def predict(self, cost: float) -> float:
        """Seconds that a batch of this cost will take; 0 before the first batch was seen."""
        slope, offset = self.line
        return slope * cost + offset

    def cost_within(self, seconds: float) -> float:
        """The largest cost that is expected to take at most so long.

        At most twice the largest cost seen so far, so that batches grow in steps that are each looked at;
        0 where even the smallest batch is expected to take longer (one entry runs all the same).
        """
        if not self._weight:
            return 0.0
        slope, offset = self.line
        if offset >= seconds:
            return 0.0
        return min((seconds - offset) / slope if slope else math.inf, 2 * self._largest)
