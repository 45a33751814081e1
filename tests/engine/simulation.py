"""A day of one model, event by event on a clock of its own: who arrives, who leaves, and what runs when.

It does what the engine's lane does with the same policies, without threads: whatever holds here for any day
holds for the order in which the engine serves.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field

from sheaf.scheduling.batch import BatchPolicy
from sheaf.scheduling.packing import cost_of
from sheaf.scheduling.queue import Entry, WaitingLine


@dataclass(frozen=True)
class Ask:
    """One request: when it comes, what it is, and how long its caller waits."""

    at: float
    key: Hashable = None
    cost: float = 1.0
    tenant: str = ""
    priority: int = 0
    patience: float | None = None
    leaves_after: float | None = None
    steps: int = 0
    call: Hashable = None


@dataclass(frozen=True)
class Ran:
    """One batch: its members, the leader first, when it began and how long it took."""

    entries: Sequence[Entry[Ask]]
    began: float
    seconds: float

    @property
    def asks(self) -> list[Ask]:
        return [entry.item for entry in self.entries]


@dataclass
class Day:
    """Serves until nothing is left.

    Attributes:
        policy: How batches form.
        padded: Whether the model pads to the longest member.
        seconds: How long the model works for a batch of that cost.
        max_cost: A bound besides the policy's, asked before each batch; learned from `observe`.
        observe: Told of each batch that ran.
        follow: What a caller asks next once it was answered, for closed loops.
    """

    policy: BatchPolicy = field(default_factory=BatchPolicy)
    padded: bool = False
    seconds: Callable[[float], float] = lambda cost: 0.01 + 0.001 * cost
    max_cost: Callable[[], float] = lambda: math.inf
    observe: Callable[[float, float], None] = lambda *_: None
    follow: Callable[[Ask, float], Ask | None] = lambda *_: None

    now: float = 0.0
    ran: list[Ran] = field(default_factory=list)
    outcomes: Counter[Entry[Ask]] = field(default_factory=Counter)
    answered: list[tuple[Ask, float]] = field(default_factory=list)
    expired: list[tuple[Ask, float]] = field(default_factory=list)
    left: int = 0
    asked: int = 0
    #: Batches of its flow and key that took a less urgent entry and left this one, by entry.
    passed_over: Counter[Entry[Ask]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.line: WaitingLine[Ask] = WaitingLine(self.policy, padded=self.padded)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._busy = False

    def serve(self, asks: Iterable[Ask], *, until: float = math.inf) -> Day:
        """Let the asks come, and run until all is served or the clock passes `until`."""
        for ask in asks:
            self._at(ask.at, lambda ask=ask: self._arrive(ask))
        while self._events and self._events[0][0] <= until:
            self.now, _, happen = heapq.heappop(self._events)
            happen()
            if not self._events or self._events[0][0] > self.now:  # all that happens now has happened
                self._dispatch()
        return self

    def _at(self, when: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), happen))

    def _arrive(self, ask: Ask) -> None:
        self.asked += 1
        deadline = None if ask.patience is None else self.now + ask.patience
        key = ("steps", ask.key) if ask.steps else ask.key
        entry = Entry(ask, key, ask.cost, self.now, deadline, ask.priority, ask.tenant, ask.steps, ask.call)
        self.line.add(entry)
        if ask.leaves_after is not None:
            self._at(self.now + ask.leaves_after, lambda: self._leave(entry))

    def _leave(self, entry: Entry[Ask]) -> None:
        if self.line.discard(entry):
            self.left += 1
            self.outcomes[entry] += 1

    def _dispatch(self) -> None:
        if self._busy:
            return
        for entry in self.line.expire(self.now):
            self.expired.append((entry.item, self.now))
            self.outcomes[entry] += 1
        seconds = self.line.wait_for(self.now)
        if seconds is None:
            assert not list(self.line), "work waits, and the line says that none does"
        elif seconds > 0:
            assert self.policy.wait == "always", "the model is free, and work waits"
            assert seconds <= self.policy.timeout_ms / 1000 + 1e-9, "the model is idle beyond the window"
            # Real clocks never stand still: a rounding error must not leave the window a hair ahead.
            self._at(math.nextafter(self.now + seconds, math.inf), lambda: None)
        else:
            self._run()

    def _run(self) -> None:
        waiting = list(self.line)
        batch = self.line.take(self.now, lambda _: self.max_cost())
        assert batch, "a batch may run, and the line gives none"
        self._judge(waiting, batch)
        cost = cost_of([entry.cost for entry in batch], padded=self.padded)
        seconds = self.seconds(cost)
        self.ran.append(Ran(batch, self.now, seconds))
        self._busy = True
        self._at(self.now + seconds, lambda: self._finish(batch, cost, seconds))

    def _finish(self, batch: list[Entry[Ask]], cost: float, seconds: float) -> None:
        self._busy = False
        self.observe(cost, seconds)
        done = [entry for entry in batch if entry.remaining <= 1]
        for entry in done:
            self.outcomes[entry] += 1
            self.answered.append((entry.item, self.now))
            following = self.follow(entry.item, self.now)
            if following is not None:  # before the charge, as a quick caller's
                if following.at <= self.now:
                    self._arrive(following)
                else:
                    self._at(following.at, lambda ask=following: self._arrive(ask))
        self.line.charge(batch, seconds)
        for entry in batch:
            if entry.remaining > 1:
                entry.remaining -= 1
                self.line.come_back(entry, self.now)

    def _judge(self, waiting: list[Entry[Ask]], batch: list[Entry[Ask]]) -> None:
        """What holds for each batch, whatever the day."""
        leader, size = batch[0], len(batch)
        assert len(set(map(id, batch))) == size
        assert {entry.key for entry in batch} == {leader.key}, "a batch holds one key"
        assert size <= self.policy.max_batch_size
        cost = cost_of([entry.cost for entry in batch], padded=self.padded)
        bound = min(self.max_cost(), self.policy.max_batch_cost or math.inf)
        assert size == 1 or cost <= bound * (1 + 1e-9), "only one entry alone may cost more"
        taken = set(map(id, batch))
        for entry in waiting:
            if id(entry) in taken or entry.flow != leader.flow:
                continue
            stepwise = entry.item.steps or leader.item.steps  # their keys take turns
            if self.policy.wait == "busy" and (entry.key == leader.key or not stepwise):
                assert leader < entry, "the most urgent entry of a flow leads"
        for entry in batch:
            self.passed_over[entry] = 0  # counted anew before each step
        for entry in waiting:
            if id(entry) not in taken and entry.key == leader.key:
                ahead = [b for b in batch[1:] if b.flow == entry.flow and entry < b]
                self.passed_over[entry] += bool(ahead)
                assert self.passed_over[entry] <= self.policy.max_overtakes, "overtaken too often"
                assert entry.overtaken <= self.policy.max_overtakes
