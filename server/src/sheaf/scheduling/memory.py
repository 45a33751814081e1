"""What fits into a model's memory, learned from the batches that did not."""

from __future__ import annotations

import math

#: Calls near the bound that must succeed before more is tried, and how much more.
_PATIENCE = 100
_GROWTH = 1.25


class MemoryBound:
    """The largest cost of a batch that is known to fit; endless until memory first ran out."""

    def __init__(self) -> None:
        self.cost = math.inf
        self._successes = 0

    def shrink(self, cost: float) -> None:
        """Memory ran out above this cost."""
        self.cost = min(self.cost, cost)
        self._successes = 0

    def fitted(self, cost: float) -> None:
        """A batch of this cost fitted; after many near the bound, a little more is tried."""
        if cost >= 0.8 * self.cost:
            self._successes += 1
            if self._successes >= _PATIENCE:
                self.cost *= _GROWTH
                self._successes = 0
