"""The waiting line of one model: which entries run next, and when. No threads, no clock of its own.

Tenants take turns by the device time they used, and so do the calls of a tenant; the most urgent entry of the
one whose turn it is leads the batch, others of its key join it, first of those that have a turn too, then
whoever there is room for. Urgency is the time of arrival, moved forward by priority, so an entry waits for
those before it and for a bounded number of those after it. What works in steps comes back after each: within
a key it keeps its place, and the keys take turns.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from sheaf.scheduling.batch import BatchPolicy
from sheaf.scheduling.fairness import Flow, Turns
from sheaf.scheduling.packing import cost_of, join

T = TypeVar("T")
#: Takes seconds of a model that somebody pays for.
Bill: TypeAlias = Callable[[float], None]

#: A batch is chosen among so many times its size of the most urgent entries.
_LOOK_AHEAD = 4

#: Where the shortest go first: seconds of head start that a second less of remaining work gives. What is long
#: waits for ever shorter work only until it has waited so many times as long as it takes.
_SHORTEST_FIRST = 8.0


@dataclass(eq=False, slots=True)
class Entry(Generic[T]):
    """One thing that waits. `key` says with whom it may run; the times are on the caller's clock.

    Attributes:
        remaining: Steps that are left, of what works in steps; 0 for all else.
        call: The call of many that it came in; None for one that came by itself.
        last_step_at: When it last took a step.
        bill: Takes the seconds of the model that it used, on the model's thread; None where nobody counts.
    """

    item: T
    key: Hashable
    cost: float
    arrived: float
    deadline: float | None = None
    priority: int = 0
    tenant: str = ""
    remaining: int = 0
    call: Hashable = None
    last_step_at: float = -math.inf
    bill: Bill | None = None
    overtaken: int = 0
    urgency: float = field(default=0.0)
    number: int = field(default=0)
    waiting: bool = field(default=False)
    #: With whom it shares turns; made once, as each step of its way asks.
    flow: Flow = field(init=False)

    def __post_init__(self) -> None:
        self.flow = self.tenant, self.call

    def __lt__(self, other: Entry[T]) -> bool:
        if self.urgency != other.urgency:
            return self.urgency < other.urgency
        return self.number < other.number

    @property
    def since(self) -> float:
        """Since when it has waited for its next turn."""
        return max(self.arrived, self.last_step_at)

    @property
    def alone(self) -> bool:
        """Whether nothing can share its batch: its key is itself."""
        return self.key is self.item


def book(batch: Sequence[Entry[Any]], seconds: float) -> None:
    """Bill a batch's time to whoever asked, by their shares of its cost, whether they are answered or not."""
    for entry in batch:
        if entry.bill is not None:
            break
    else:
        return  # most batches: no shares are worked out
    for entry, share in _shares(batch, seconds):
        if entry.bill is not None:
            entry.bill(share)


def _shares(batch: Sequence[Entry[T]], seconds: float) -> Iterator[tuple[Entry[T], float]]:
    total = sum(entry.cost for entry in batch)
    for entry in batch:
        yield entry, seconds * (entry.cost / total if total else 1 / len(batch))


def _endless(_: Any) -> float:
    return math.inf


class _Heap(Generic[T]):
    """Entries of one flow and key by urgency. Those that left are skipped when they come up."""

    __slots__ = ("entries", "gone", "last_step_at")

    def __init__(self) -> None:
        self.entries: list[Entry[T]] = []
        self.gone = 0
        #: When entries of it last took a step.
        self.last_step_at = -math.inf

    def first(self) -> Entry[T] | None:
        """The most urgent entry that waits; it stays."""
        entries = self.entries
        while entries and not entries[0].waiting:
            heapq.heappop(entries)
            self.gone -= 1
        return entries[0] if entries else None

    def compact(self) -> None:
        """Let go of entries that left, once they are the most of what is held."""
        if self.gone > 32 and 2 * self.gone > len(self.entries):
            self.entries = [entry for entry in self.entries if entry.waiting]
            heapq.heapify(self.entries)
            self.gone = 0


class WaitingLine(Generic[T]):
    """What waits, by flow and key.

    Args:
        policy: Sizes, costs and windows of batches.
        padded: Whether a batch costs as much as if all its members were as long as the longest.
    """

    def __init__(self, policy: BatchPolicy, *, padded: bool = False) -> None:
        self.policy = policy
        self._padded = padded
        self._lines: dict[Flow, dict[Hashable, _Heap[T]]] = {}
        self._turns = Turns(policy.tenant_weights, self._count)
        self._depth = 0
        self._numbers = 0
        #: No entry that waits has an earlier deadline.
        self.next_deadline = math.inf
        self._expected = 0
        self._expected_until = -math.inf
        #: How long a step takes, from the latest ones; a guess before there was one.
        self._step_seconds = 0.05

    def __len__(self) -> int:
        return self._depth

    def __iter__(self) -> Iterator[Entry[T]]:
        for lines in self._lines.values():
            for heap in lines.values():
                yield from (entry for entry in heap.entries if entry.waiting)

    def add(self, entry: Entry[T]) -> None:
        """Put an entry in line."""
        self._numbers += 1
        entry.number = self._numbers
        entry.urgency = entry.arrived - entry.priority * self.policy.priority_seconds
        if self.policy.shortest_first:
            entry.urgency += _SHORTEST_FIRST * entry.remaining * self._step_seconds
        self._put(entry)
        entry.waiting = True
        self._depth += 1
        if entry.deadline is not None and entry.deadline < self.next_deadline:
            self.next_deadline = entry.deadline

    def discard(self, entry: Entry[T]) -> bool:
        """Take an entry out of the line; False where it no longer waits. It frees its place at once."""
        if not entry.waiting:
            return False
        entry.waiting = False
        self._depth -= 1
        heap = self._lines[entry.flow][entry.key]
        heap.gone += 1
        heap.compact()
        self._trim(entry.flow, entry.key)
        return True

    def expire(self, now: float) -> list[Entry[T]]:
        """Take out and return every entry whose deadline has passed."""
        if now < self.next_deadline:
            return []
        timed = [(entry.deadline, entry) for entry in self if entry.deadline is not None]
        late = [entry for deadline, entry in timed if deadline <= now]
        for entry in late:
            self.discard(entry)
        self.next_deadline = min((d for d, _ in timed if d > now), default=math.inf)
        return late

    def wait_for(self, now: float) -> float | None:
        """Seconds until a batch may run: 0 for at once, None where nothing waits."""
        if not self._depth:
            return None
        if self.policy.wait == "busy":
            return 0.0 if self._depth >= self._expected else max(0.0, self._expected_until - now)
        return max(0.0, min(self._opens(lines, now) for lines in self._by_key().values()) - now)

    def come_back(self, entry: Entry[T], now: float) -> None:
        """Put an entry in line that has taken a step, for its next."""
        entry.last_step_at, entry.overtaken = now, 0
        self.add(entry)

    def take(self, now: float, max_cost: Callable[[Entry[T]], float] = _endless) -> list[Entry[T]]:
        """Take out the next batch, its leader first; empty where nothing may run yet.

        Args:
            now: Time on the clock of the entries' `arrived`.
            max_cost: A bound on the cost of a leader's batch besides the policy's.
        """
        leader = self._leader(now)
        if leader is None:
            return []
        heapq.heappop(self._lines[leader.flow][leader.key].entries)
        batch = [leader]
        passed = self._fill(batch, max_cost(leader)) if self._depth > 1 else ()
        for entry in batch:
            entry.waiting = False
        self._depth -= len(batch)
        if leader.remaining and now < math.inf:
            for lines in self._lines.values():
                if leader.key in lines:
                    lines[leader.key].last_step_at = math.nextafter(now, math.inf)  # after who came back now
        for entry in passed:
            if entry.waiting:
                self._put(entry)
        for flow in [flow for flow, lines in self._lines.items() if leader.key in lines]:
            self._trim(flow, leader.key)
        return batch

    def _fill(self, batch: list[Entry[T]], max_cost: float) -> list[Entry[T]]:
        """Have others join a batch of one; who was looked at, and is in no heap now."""
        leader, size = batch[0], self.policy.max_batch_size
        passed: list[Entry[T]] = []
        bound = min(max_cost, self.policy.max_batch_cost or math.inf)
        # Room that those whose turn it is leave is for the others.
        for in_turn in (True, False):
            if len(batch) < size:
                count = _LOOK_AHEAD * size if bound < math.inf or self._padded else size - len(batch)
                others = self._most_urgent(leader.key, count, in_turn=in_turn)
                join(
                    batch,
                    others,
                    size=size,
                    max_cost=bound,
                    padded=self._padded,
                    max_overtakes=self.policy.max_overtakes,
                )
                passed += others
        return passed

    def expect(self, entries: int, now: float, seconds: float) -> None:
        """A batch of so many took so long: with `linger`, its callers are given a moment to come back.

        Who waits already is no reason to begin: else callers in two groups would take turns for ever.
        """
        self._expected = min(entries + self._depth, self.policy.max_batch_size)
        self._expected_until = now + self.policy.linger * seconds

    def charge(self, batch: Sequence[Entry[T]], seconds: float) -> None:
        """Put down the device time of a batch to its tenants and calls, by their shares of its cost."""
        if batch and batch[0].remaining:
            self._step_seconds += 0.2 * (seconds - self._step_seconds)
        if self._lines:  # else nobody was kept waiting
            used: dict[Flow, float] = {}
            for entry, share in _shares(batch, seconds):
                used[entry.flow] = used.get(entry.flow, 0.0) + share
            self._turns.charge(used)

    def clear(self) -> list[Entry[T]]:
        """Take out everything."""
        entries = sorted(self)
        for entry in entries:
            entry.waiting = False
        for flow in self._lines:
            self._turns.leave(flow)
        self._lines.clear()
        self._depth = 0
        return entries

    def _put(self, entry: Entry[T]) -> None:
        flow = entry.flow
        lines = self._lines.get(flow)
        if lines is None:
            lines = self._lines[flow] = {}
            self._turns.enter(flow)
        heap = lines.get(entry.key)
        if heap is None:
            heap = lines[entry.key] = _Heap()
        heapq.heappush(heap.entries, entry)
        heap.last_step_at = max(heap.last_step_at, entry.last_step_at)

    def _leader(self, now: float) -> Entry[T] | None:
        """The entry that leads, of the flow whose turn it is: the most urgent where none works in steps."""
        if not self._depth:
            return None
        lines = self._lines[self._turns.next_flow()]
        heaps = list(lines.values())
        if self._depth == 1 and self.policy.wait == "busy":
            return next(first for heap in heaps if (first := heap.first()) is not None)
        if self.policy.wait == "always":
            # The window belongs to the key: whoever has filled it or waited it out may lead.
            ready = {key for key, heaps in self._by_key().items() if self._opens(heaps, now) <= now}
            heaps = [heap for key, heap in lines.items() if key in ready] or [
                heap for lines in self._lines.values() for key, heap in lines.items() if key in ready
            ]
        filled = [heap for heap in heaps if heap.first() is not None]
        return min(filled, key=self._standing).entries[0] if filled else None

    def _standing(self, heap: _Heap[T]) -> tuple[float, int]:
        """The place of a key: that of its most urgent entry, or for what works in steps, of its last turn."""
        first = heap.entries[0]
        boost = first.priority * self.policy.priority_seconds
        return max(first.urgency, heap.last_step_at - boost), first.number

    def _most_urgent(self, key: Hashable, count: int, *, in_turn: bool) -> list[Entry[T]]:
        """Take out the most urgent entries of a key, in order, of flows that have a turn or have none."""
        heaps = [
            lines[key]
            for flow, lines in self._lines.items()
            if key in lines and self._turns.has_turn(flow) == in_turn
        ]
        found: list[Entry[T]] = []
        while len(found) < count:
            filled = [heap for heap in heaps if heap.first() is not None]
            if not filled:
                break
            heap = filled[0] if len(filled) == 1 else min(filled, key=lambda h: h.entries[0])
            found.append(heapq.heappop(heap.entries))
        return found

    def _by_key(self) -> dict[Hashable, list[_Heap[T]]]:
        found: dict[Hashable, list[_Heap[T]]] = {}
        for lines in self._lines.values():
            for key, heap in lines.items():
                found.setdefault(key, []).append(heap)
        return found

    def _opens(self, heaps: Sequence[_Heap[T]], now: float) -> float:
        """When the window of a key ends: now where it is full, or nobody can join."""
        waiting = [entry for heap in heaps for entry in heap.entries if entry.waiting]
        if not waiting:
            return math.inf
        if waiting[0].alone or any(heap.last_step_at > -math.inf for heap in heaps):
            return now
        cost = cost_of([entry.cost for entry in waiting], padded=self._padded)
        limit = self.policy.max_batch_cost
        if len(waiting) >= self.policy.max_batch_size or (limit is not None and cost >= limit):
            return now
        return min(entry.arrived for entry in waiting) + self.policy.timeout_ms / 1000

    def _count(self, flow: Flow) -> int:
        """How many entries of a flow wait."""
        return sum(len(heap.entries) - heap.gone for heap in self._lines.get(flow, {}).values())

    def _trim(self, flow: Flow, key: Hashable) -> None:
        """Keep no empty heaps and no flow with nothing waiting."""
        lines = self._lines[flow]
        if key in lines and lines[key].first() is None:
            del lines[key]
        if not lines:
            del self._lines[flow]
            self._turns.leave(flow)
