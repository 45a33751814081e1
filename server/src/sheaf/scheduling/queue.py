"""The waiting line of one model: which entries run next, and when. No threads, no clock of its own.

The oldest entry always leads the next batch and only entries of its key may join, so none is overtaken
by more than the batches that were led by entries older than itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sheaf.scheduling.batch import BatchPolicy

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Entry(Generic[T]):
    """One thing that waits. `key` says with whom it may run; the times are on the caller's clock."""

    item: T
    key: Hashable
    cost: float
    arrived: float
    deadline: float | None = None
    number: int = field(default=0)
    waiting: bool = field(default=False)


class WaitingLine(Generic[T]):
    """Entries by key, each key first come first served."""

    def __init__(self, policy: BatchPolicy) -> None:
        self.policy = policy
        self._lines: dict[Hashable, deque[Entry[T]]] = {}
        self._depth = 0
        self._numbers = 0

    def __len__(self) -> int:
        return self._depth

    def add(self, entry: Entry[T]) -> None:
        """Put an entry at the end."""
        self._numbers += 1
        entry.number, entry.waiting = self._numbers, True
        self._lines.setdefault(entry.key, deque()).append(entry)
        self._depth += 1

    def discard(self, entry: Entry[T]) -> bool:
        """Take an entry out of the line; False where it no longer waits. It frees its place at once."""
        if not entry.waiting:
            return False
        entry.waiting = False
        self._depth -= 1
        self._trim(entry.key)
        return True

    def expire(self, now: float) -> list[Entry[T]]:
        """Take out and return every entry whose deadline has passed."""
        late = [
            e
            for line in self._lines.values()
            for e in line
            if e.waiting and e.deadline is not None and e.deadline <= now
        ]
        for entry in late:
            self.discard(entry)
        return late

    def wait_for(self, now: float) -> float | None:
        """Seconds until a batch may run: 0 for at once, None where nothing waits."""
        leader = self._leader()
        if leader is None:
            return None
        if self.policy.wait == "busy" or self._is_full(leader.key):
            return 0.0
        return max(0.0, leader.arrived + self.policy.timeout_ms / 1000 - now)

    def take(self) -> list[Entry[T]]:
        """Take out the next batch: the oldest entry and those that may join it, in order of arrival."""
        leader = self._leader()
        if leader is None:
            return []
        line = self._lines[leader.key]
        batch: list[Entry[T]] = []
        cost = 0.0
        while line and len(batch) < self.policy.max_batch_size:
            entry = line[0]
            if entry.waiting:
                if (
                    batch
                    and self.policy.max_batch_cost is not None
                    and cost + entry.cost > self.policy.max_batch_cost
                ):
                    break
                entry.waiting = False
                self._depth -= 1
                cost += entry.cost
                batch.append(entry)
            line.popleft()
        self._trim(leader.key)
        return batch

    def clear(self) -> list[Entry[T]]:
        """Take out everything."""
        entries = [e for line in self._lines.values() for e in line if e.waiting]
        for entry in entries:
            entry.waiting = False
        self._lines.clear()
        self._depth = 0
        return entries

    def _leader(self) -> Entry[T] | None:
        return min((line[0] for line in self._lines.values()), key=lambda e: e.number, default=None)

    def _is_full(self, key: Hashable) -> bool:
        waiting = [e.cost for e in self._lines[key] if e.waiting]
        limit = self.policy.max_batch_cost
        return len(waiting) >= self.policy.max_batch_size or (limit is not None and sum(waiting) >= limit)

    def _trim(self, key: Hashable) -> None:
        """Keep a waiting entry at the head of each line, and no empty lines."""
        line = self._lines[key]
        while line and not line[0].waiting:
            line.popleft()
        if not line:
            del self._lines[key]
