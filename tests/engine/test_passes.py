"""Rows cut into passes: every row once, within the budget, and at the least cost of all cuts."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sheaf.backends._shared.passes import cut_by_rows, cut_into_passes, spread_rows

lengths_of_rows = st.lists(st.integers(1, 60), max_size=40)


def cells(passes: list[list[int]], lengths: list[int]) -> list[int]:
    return [len(members) * max(lengths[i] for i in members) for members in passes]


@given(lengths_of_rows, st.integers(1, 200), st.floats(0, 100))
def test_each_row_is_in_one_pass_within_the_budget(lengths: list[int], most: int, overhead: float) -> None:
    passes = cut_into_passes(lengths, max_cells=most, overhead=overhead)
    assert sorted(i for members in passes for i in members) == list(range(len(lengths)))
    for members, used in zip(passes, cells(passes, lengths), strict=True):
        assert used <= most or len(members) == 1
    in_order = [lengths[i] for members in passes for i in members]
    assert in_order == sorted(lengths, reverse=True)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(1, 100), st.floats(0, 40))
def test_no_other_cut_costs_less(lengths: list[int], most: int, overhead: float) -> None:
    def cost(groups: list[list[int]]) -> float:
        return sum(overhead + len(group) * group[0] for group in groups)

    rows = sorted(lengths, reverse=True)
    cuts = (places for count in range(len(rows)) for places in combinations(range(1, len(rows)), count))
    ways = [[rows[a:b] for a, b in zip((0, *at), (*at, len(rows)), strict=True)] for at in cuts]
    allowed = [way for way in ways if all(len(g) == 1 or len(g) * g[0] <= most for g in way)]
    passes = cut_into_passes(lengths, max_cells=most, overhead=overhead)
    found = [[lengths[i] for i in members] for members in passes]
    assert cost(found) == pytest.approx(min(map(cost, allowed)))


def test_overhead_decides_how_much_padding_a_pass_is_worth() -> None:
    lengths = [10, 100, 11, 90]
    assert cut_into_passes(lengths, max_cells=1000) == [[1], [3], [2], [0]]
    assert cut_into_passes(lengths, max_cells=1000, overhead=5) == [[1], [3], [2, 0]]
    assert cut_into_passes(lengths, max_cells=1000, overhead=30) == [[1, 3], [2, 0]]
    assert cut_into_passes(lengths, max_cells=1000, overhead=500) == [[1, 3, 2, 0]]
    assert cut_into_passes(lengths, max_cells=200, overhead=500) == [[1, 3], [2, 0]]


def test_equal_lengths_share_full_passes() -> None:
    passes = cut_into_passes([50] * 100, max_cells=1000, overhead=1)
    assert [len(members) for members in passes] == [20] * 5
    assert cut_into_passes([], max_cells=10) == []
    assert cut_into_passes([3, 3], max_cells=math.inf, overhead=1) == [[0, 1]]


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 60), st.integers(0, 2)), max_size=40))
def test_a_bound_on_rows_holds_each_item_once_beside_its_like(items: list[tuple[int, int, int]]) -> None:
    rows, lengths, kinds = ([item[i] for item in items] for i in range(3))
    passes = list(cut_by_rows(rows, lengths, most=32, full=8, kinds=kinds))
    assert sorted(i for members in passes for i in members) == list(range(len(items)))
    for members in passes:
        assert len({kinds[i] for i in members}) == 1
        assert len(members) == 1 or sum(rows[i] for i in members) <= 32
        assert [lengths[i] for i in members] == sorted((lengths[i] for i in members), reverse=True)
        # From a full pass on, none is padded to twice its length or more.
        held = [sum(rows[i] for i in members[:n]) for n in range(len(members))]
        beyond = [i for i, before in zip(members, held, strict=True) if before >= 8]
        assert all(2 * lengths[i] >= lengths[members[0]] for i in beyond)


def test_a_bound_on_rows_alone_fills_passes_from_the_largest() -> None:
    costs = [5.0, 1.0, 9.0, 3.0, 20.0, 2.0, 2.0]
    assert list(cut_by_rows(costs, costs, most=10)) == [[4], [2], [0, 3, 5], [6, 1]]
    assert list(cut_by_rows([], [], most=10)) == []
    assert list(cut_by_rows([20.0], [20.0], most=10)) == [[0]]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(1, 50))
def test_rows_that_may_part_are_spread_evenly(counts: list[int], most: int) -> None:
    passes = list(spread_rows(counts, most=most))
    held = [sum(len(rows) for _, rows in pieces) for pieces in passes]
    assert max(held) <= most
    assert len(held) == math.ceil(sum(counts) / most)
    assert set(held[:-1]) <= {max(held)}
    met = [(i, row) for pieces in passes for i, rows in pieces for row in rows]
    assert met == [(i, row) for i, count in enumerate(counts) for row in range(count)]
