"""What the scheduler learns and chooses by: packing, latency, memory, pace."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sheaf.scheduling.drain_rate import DrainRate
from sheaf.scheduling.latency import LatencyModel
from sheaf.scheduling.memory import MemoryBound
from sheaf.scheduling.packing import cost_of, join
from sheaf.scheduling.queue import Entry


def entries(*costs: float) -> list[Entry[int]]:
    made = [Entry(i, None, cost, 0.0) for i, cost in enumerate(costs)]
    for number, entry in enumerate(made):
        entry.number = number
    return made


def packed(
    costs: list[float],
    *,
    size: int = 4,
    max_cost: float = math.inf,
    padded: bool,
    overtaken: tuple[int, ...] = (),
) -> tuple[list[float], list[int]]:
    """The costs of the batch, and how often each of the others was overtaken."""
    leader, *others = entries(*costs)
    for index in overtaken:
        others[index - 1].overtaken = 2
    batch = [leader]
    join(batch, others, size=size, max_cost=max_cost, padded=padded, max_overtakes=2)
    return [entry.cost for entry in batch], [entry.overtaken for entry in others]


def test_without_padding_the_most_urgent_join_in_order() -> None:
    assert packed([1, 9, 1, 1, 1], padded=False) == ([1, 9, 1, 1], [0, 0, 0, 0])


def test_a_large_one_is_passed_over_and_counted() -> None:
    assert packed([1, 9, 1, 1], max_cost=5, padded=False) == ([1, 1, 1], [1, 0, 0])


def test_one_overtaken_too_often_holds_back_the_less_urgent() -> None:
    assert packed([1, 1, 9, 1], max_cost=5, padded=False, overtaken=(2,)) == ([1, 1], [0, 2, 0])


def test_padding_prefers_near_lengths() -> None:
    assert packed([10, 90, 11, 80, 9, 12], size=3, padded=True) == ([10, 11, 9], [1, 0, 1, 0, 0])


def test_padding_prefers_near_lengths_where_cost_is_what_bounds_a_batch() -> None:
    assert packed([10, 30, 11, 20, 9], max_cost=33, padded=True) == ([10, 11, 9], [1, 0, 1, 0])
    assert packed([10, 30, 11, 20, 9], size=5, max_cost=150, padded=True)[0] == [10, 30, 11, 20, 9]


def test_padding_takes_first_who_was_overtaken_too_often() -> None:
    assert packed([10, 90, 11, 80, 9], size=3, padded=True, overtaken=(1,))[0] == [10, 90, 11]


def test_padding_counts_the_longest_for_all() -> None:
    assert packed([10, 11, 30], max_cost=33, padded=True)[0] == [10, 11]
    assert cost_of([1, 2, 10], padded=True) == 30
    assert cost_of([1, 2, 10], padded=False) == 13


def test_a_second_round_keeps_to_what_the_first_has_filled() -> None:
    first, second, third = entries(4, 4, 3)
    batch = [first]
    join(batch, [second], size=3, max_cost=10, padded=False, max_overtakes=2)
    join(batch, [third], size=3, max_cost=10, padded=False, max_overtakes=2)
    assert batch == [first, second]


@given(
    st.floats(1e-5, 1e-2), st.floats(0, 1), st.lists(st.floats(1, 1000), min_size=2, max_size=60, unique=True)
)
def test_the_fit_recovers_a_line(a: float, b: float, costs: list[float]) -> None:
    model = LatencyModel()
    if max(costs) < 1.1 * min(costs):
        costs.append(2 * max(costs))
    for cost in costs:
        model.observe(cost, a * cost + b)
    assert model.predict(500) == pytest.approx(a * 500 + b, rel=0.02)
    if len(costs) > 5 and max(costs) > 10 * min(costs):
        assert model.line == pytest.approx((a, b), rel=0.05, abs=1e-3)


def test_the_fit_recovers_a_noisy_line_and_follows_a_change() -> None:
    noise = random.Random(1)
    model = LatencyModel()
    for scale in (1.0, 3.0):
        for _ in range(400):
            cost = noise.uniform(1, 100)
            model.observe(cost, scale * (0.001 * cost + 0.02) * noise.uniform(0.9, 1.1))
        slope, offset = model.line
        assert slope == pytest.approx(scale * 0.001, rel=0.25)
        assert offset == pytest.approx(scale * 0.02, rel=0.25)


def test_equal_costs_give_a_line_through_the_origin() -> None:
    model = LatencyModel()
    for _ in range(10):
        model.observe(8.0, 0.4)
    assert model.line == pytest.approx((0.05, 0.0))


def test_no_time_is_ever_negative() -> None:
    model = LatencyModel()
    for cost, seconds in [(1, 0.9), (2, 0.5), (3, 0.1)]:  # less time for more work: noise
        model.observe(cost, seconds)
    assert min(model.line) >= 0
    model = LatencyModel()
    for cost, seconds in [(10, 0.1), (20, 0.9)]:  # a line that meets zero late
        model.observe(cost, seconds)
    assert min(model.line) >= 0


def test_costs_of_nothing_are_taken_in() -> None:
    model = LatencyModel()
    for _ in range(3):
        model.observe(0.0, 0.1)
    assert model.predict(0.0) >= 0
    assert model.cost_within(1.0) == 0


def test_batches_grow_in_steps_to_the_target() -> None:
    """Each batch costs at most twice the largest so far, and in the end as much as the target allows."""
    model, seen = LatencyModel(), [1.0]
    for _ in range(20):
        model.observe(seen[-1], 0.001 * seen[-1] + 0.01)
        seen.append(max(1.0, model.cost_within(0.5)))
        assert seen[-1] <= 2 * max(seen[:-1])
    assert seen[:5] == pytest.approx([1, 2, 4, 8, 16])
    assert seen[-1] == pytest.approx(490, rel=0.01)


def test_a_target_below_the_smallest_batch_gives_no_company() -> None:
    model = LatencyModel()
    model.observe(1, 0.5)
    model.observe(2, 0.5)
    assert model.cost_within(0.1) == 0


def test_the_first_batch_is_a_small_one() -> None:
    assert LatencyModel().cost_within(100.0) == 0


def test_memory_bounds_nothing_until_it_runs_out() -> None:
    bound = MemoryBound()
    for _ in range(1000):
        bound.fitted(1e9)
    assert bound.cost == math.inf


def test_memory_shrinks_to_what_fitted_and_never_grows_by_shrinking() -> None:
    bound = MemoryBound()
    bound.shrink(64)
    bound.shrink(80)
    assert bound.cost == 64
    bound.shrink(32)
    assert bound.cost == 32


def test_memory_regrows_by_successes_near_the_bound_alone() -> None:
    bound = MemoryBound()
    bound.shrink(100)
    for _ in range(1000):
        bound.fitted(10)
    assert bound.cost == 100
    for _ in range(99):
        bound.fitted(90)
    assert bound.cost == 100
    bound.fitted(90)
    assert bound.cost == 125


def test_running_out_again_starts_the_patience_anew() -> None:
    bound = MemoryBound()
    bound.shrink(100)
    for _ in range(99):
        bound.fitted(100)
    bound.shrink(100)
    bound.fitted(100)
    assert bound.cost == 100


def test_pace_says_how_long_a_line_takes() -> None:
    pace = DrainRate()
    assert pace.seconds_for(100) == 1.0
    pace.observe(10, 1.0)
    assert pace.seconds_for(100) == pytest.approx(10.0)
    assert pace.seconds_for(0) == 0.1
    for _ in range(60):
        pace.observe(10, 5.0)
    assert pace.seconds_for(100) == pytest.approx(50.0, rel=0.05)
