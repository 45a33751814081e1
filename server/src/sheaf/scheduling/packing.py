"""Chooses who joins a batch: near-equal lengths together, within size and cost, nobody left for ever.

And cuts what a model pads into passes, since a batch, or one request, may hold rows of any lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self, TypeVar

import numpy as np


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
    before = len(batch)
    near = batch[0].cost
    total, longest = sum(entry.cost for entry in batch), max(entry.cost for entry in batch)
    barrier: P | None = None
    order = others
    everyone = [longest] * before + [entry.cost for entry in others]
    if padded and (len(everyone) > size or cost_of(everyone, padded=True) > max_cost):
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


def cut_into_passes(lengths: Sequence[int], *, max_cells: float, overhead: float = 0.0) -> list[list[int]]:
    """Group rows of a model that pads them into the passes that cost least together.

    A pass costs its cells, which are its rows times the longest of them, and `overhead`. So a row joins a
    pass of longer ones only where its padding costs less than a pass more: the smaller the overhead, the less
    is computed for nothing. What is found is the least of all cuts of the rows in order of length.

    Args:
        lengths: Length of each row, at least 1.
        max_cells: Most cells of a pass; a single longer row has a pass of its own.
        overhead: What a pass costs besides its cells, in cells: the time of an almost empty pass over the
            time that one more cell takes.

    Returns:
        Indices into `lengths` for each pass, the longest row first. The passes go from the longest rows to
        the shortest, so that the first needs the most memory.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    # The longest j rows cost least[j] at least; the last of their passes then starts at row starts[j].
    least = np.full(len(order) + 1, np.inf)
    least[0] = 0.0
    starts = np.zeros(len(order) + 1, dtype=np.intp)
    for start, index in enumerate(order):
        length, left = lengths[index], len(order) - start
        rows = left if left * length <= max_cells else max(1, int(max_cells // length))
        costs = least[start] + overhead + length * np.arange(1, rows + 1)
        ends = slice(start + 1, start + 1 + rows)
        better = costs < least[ends]
        least[ends][better] = costs[better]
        starts[ends][better] = start
    passes: list[list[int]] = []
    end = len(order)
    while end:
        start = int(starts[end])
        passes.append(order[start:end])
        end = start
    return passes[::-1]
