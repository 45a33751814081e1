"""How fast a line empties, for the hint that a refused caller gets."""

from __future__ import annotations


class DrainRate:
    """Seconds per entry over the last batches, the latest counting most."""

    def __init__(self) -> None:
        self._entries = 0.0
        self._seconds = 0.0
        self._pending = 0.0

    def observe(self, entries: int, seconds: float) -> None:
        """Take in one batch, and how many entries were done with after it."""
        self._pending += seconds
        if entries:
            self._entries = 0.9 * self._entries + entries
            self._seconds = 0.9 * self._seconds + self._pending
            self._pending = 0.0

    def seconds_for(self, entries: int) -> float:
        """How long so many entries take, at least a tenth of a second; one second where nothing ran yet."""
        if not self._entries:
            return 1.0
        return max(0.1, round(entries * self._seconds / self._entries, 2))
