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


def join(
    batch: list[P],
    others: Sequence[P],
    *,
    size: int,
    max_cost: float,
    padded: bool,
    max_overtakes: int,
) -> None:
    """Extend a batch, and count on each entry that stays when a less urgent one of `others` went before it.

    Args:
        batch: Who runs in any case: its leader, even alone over `max_cost`, and who has joined it.
        others: Entries that may join, the most urgent first.
        size: Most entries in the batch.
        max_cost: Most cost of the batch: the sum of its members' costs, or where the model pads them to a
            common length (`padded`) the longest member's cost times their number.
        padded: Prefer members whose cost is near to the leader's, since the rest is computed for nothing.
        max_overtakes: An entry overtaken so often is taken next; until it fits, nobody less urgent goes.
    """
    if not others:
        return
    before = len(batch)
    near = batch[0].cost
    total, longest = sum(entry.cost for entry in batch), max(entry.cost for entry in batch)
    barrier: P | None = None
    order = others
    if padded:
        everyone = [longest] * before + [entry.cost for entry in others]
        if len(everyone) > size or cost_of(everyone, padded=True) > max_cost:
            # Stable: equally near ones stay in order of urgency; those overtaken too often come first.
            order = sorted(others, key=lambda e: -1.0 if e.overtaken >= max_overtakes else abs(e.cost - near))
    for entry in order:
        if len(batch) >= size:
            break
        if barrier is not None and barrier < entry:
            continue
        if padded:
            fits = max(longest, entry.cost) * (len(batch) + 1) <= max_cost
        else:
            fits = total + entry.cost <= max_cost
        if fits:
            batch.append(entry)
            total, longest = total + entry.cost, max(longest, entry.cost)
        elif entry.overtaken >= max_overtakes and (barrier is None or entry < barrier):
            barrier = entry
    joined = batch[before:]
    if joined and len(joined) < len(others):
        latest = max(joined)
        chosen = set(map(id, joined))
        for entry in others:
            if entry < latest and id(entry) not in chosen:
                entry.overtaken += 1


def cost_of(costs: Sequence[float], *, padded: bool) -> float:
    """What a batch of such members costs."""
    return max(costs) * len(costs) if padded else sum(costs)
