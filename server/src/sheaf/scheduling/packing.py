"""Chooses who joins a batch: near-equal lengths together, within size and cost, nobody left for ever."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self, TypeVar


class Packable(Protocol):
    """What waits, as packing sees it; `<` means more urgent."""

    cost: float
    overtaken: int

    def __lt__(self, other: Self, /) -> bool: ...


P = TypeVar("P", bound=Packable)


def pack(
    leader: P,
    others: Sequence[P],
    *,
    size: int,
    max_cost: float,
    padded: bool,
    max_overtakes: int,
) -> list[P]:
    """The batch that `leader` leads, and a count on each entry that a less urgent one overtook.

    Args:
        leader: Runs in any case, even alone over `max_cost`.
        others: Entries that may join, the most urgent first.
        size: Most entries in the batch.
        max_cost: Most cost of the batch: the sum of its members' costs, or where the model pads them to a
            common length (`padded`) the longest member's cost times their number.
        padded: Prefer members whose cost is near to the leader's, since the rest is computed for nothing.
        max_overtakes: An entry overtaken so often is taken next; until it fits, nobody less urgent goes.
    """
    batch = [leader]
    total = longest = leader.cost
    barrier: P | None = None
    order = others
    if padded and len(others) >= size:
        # Stable: equally near ones stay in order of urgency; those overtaken too often come first.
        order = sorted(
            others, key=lambda e: -1.0 if e.overtaken >= max_overtakes else abs(e.cost - leader.cost)
        )
    for entry in order:
        if len(batch) >= size:
            break
        if barrier is not None and barrier < entry:
            continue
        if padded:
            longest_then = max(longest, entry.cost)
            fits = longest_then * (len(batch) + 1) <= max_cost
        else:
            longest_then = longest
            fits = total + entry.cost <= max_cost
        if fits:
            batch.append(entry)
            total, longest = total + entry.cost, longest_then
        elif entry.overtaken >= max_overtakes and (barrier is None or entry < barrier):
            barrier = entry
    if len(batch) > 1 and len(batch) <= len(others):
        latest = max(batch[1:])
        chosen = set(map(id, batch))
        for entry in others:
            if entry < latest and id(entry) not in chosen:
                entry.overtaken += 1
    return batch


def cost_of(costs: Sequence[float], *, padded: bool) -> float:
    """What a batch of such members costs."""
    return max(costs) * len(costs) if padded else sum(costs)
