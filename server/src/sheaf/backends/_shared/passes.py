"""Cuts the rows of a batch into passes through a model, since a batch, or one request, may hold any lengths.

By the least work where padding is what costs (`cut_into_passes`), by a bound where a pass is soon full
(`cut_by_rows`), and evenly where the rows of one request may part (`spread_rows`).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from math import ceil, inf
from typing import Any

import numpy as np


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


def cut_by_rows(
    rows: Sequence[float],
    lengths: Sequence[float],
    *,
    most: float,
    full: float = inf,
    kinds: Sequence[Hashable] | None = None,
) -> Iterator[list[int]]:
    """Group items, each of some rows, into passes of items of like length, the longest first.

    Args:
        rows: What each item takes of a pass.
        lengths: To what length each is padded, were it alone.
        most: The most that a pass takes; a single larger item has one of its own.
        full: Where a pass holds this much, it leaves items of less than half its length to the next one:
            padding to the longest can cost more than a pass of its own.
        kinds: Numbers or tuples; only items of one kind share a pass. All are of one by default.

    Yields:
        Indices into `rows` for each pass.
    """
    of: Sequence[Any] = [0] * len(rows) if kinds is None else kinds
    members: list[int] = []
    held = 0.0
    for i in sorted(range(len(rows)), key=lambda i: (of[i], -lengths[i])):
        if members and (
            of[i] != of[members[0]]
            or held + rows[i] > most
            or (held >= full and 2 * lengths[i] < lengths[members[0]])
        ):
            yield members
            members, held = [], 0.0
        members.append(i)
        held += rows[i]
    if members:
        yield members


def spread_rows(counts: Sequence[int], *, most: int) -> Iterator[list[tuple[int, range]]]:
    """Spread the rows of all items, at least one each, evenly over as few passes of `most` rows as hold them.

    Yields:
        For each pass the items in it, and which of their rows.
    """
    total = sum(counts)
    even = ceil(total / ceil(total / most))
    pieces: list[tuple[int, range]] = []
    room = even
    for i, count in enumerate(counts):
        start = 0
        while start < count:
            stop = min(count, start + room)
            pieces.append((i, range(start, stop)))
            room -= stop - start
            start = stop
            if not room:
                yield pieces
                pieces, room = [], even
    if pieces:
        yield pieces
