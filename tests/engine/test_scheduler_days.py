"""Whatever the day brings, the scheduler loses nothing, idles never and lets nobody wait for ever."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sheaf.scheduling.batch import BatchPolicy
from sheaf.scheduling.latency import LatencyModel
from sheaf.scheduling.memory import MemoryBound
from tests.engine.simulation import Ask, Day

seconds = st.floats(0, 3, allow_nan=False).map(lambda s: round(s, 3))
asks = st.lists(
    st.builds(
        Ask,
        at=seconds,
        key=st.sampled_from(["x", "y", None]),
        cost=st.sampled_from([0.0, 1.0, 2.0, 5.0, 7.5, 40.0, 300.0]),
        tenant=st.sampled_from(["", "a", "b", "c"]),
        priority=st.integers(-2, 5),
        patience=st.none() | st.none() | seconds,
        leaves_after=st.none() | st.none() | st.none() | seconds,
        steps=st.sampled_from([0, 0, 1, 2, 5]),
    ),
    max_size=80,
)
policies = st.builds(
    BatchPolicy,
    max_batch_size=st.integers(1, 8),
    max_batch_cost=st.none() | st.sampled_from([1.0, 8.0, 50.0]),
    max_overtakes=st.integers(0, 4),
    wait=st.sampled_from(["busy", "always"]),
    timeout_ms=st.sampled_from([0.0, 5.0, 200.0]),
    priority_seconds=st.sampled_from([0.0, 0.1, 1.0]),
    tenant_weights=st.dictionaries(st.sampled_from(["a", "b"]), st.floats(0.1, 10)),
    shortest_first=st.booleans(),
    target_ms=st.none() | st.sampled_from([5.0, 30.0, 500.0]),
)
many = settings(max_examples=100, deadline=None)


def learning(policy: BatchPolicy, *, padded: bool, memory: float = math.inf) -> Day:
    """A day whose batches are bounded as the engine bounds them: by memory, and by the target."""
    latency, bound = LatencyModel(), MemoryBound()

    def observe(cost: float, took: float) -> None:
        if cost > memory:
            bound.shrink(cost / 2)
        else:
            bound.fitted(cost)
            latency.observe(cost, took)

    def max_cost() -> float:
        target = math.inf if policy.target_ms is None else latency.cost_within(policy.target_ms / 1000)
        return min(bound.cost, target)

    return Day(policy, padded=padded, max_cost=max_cost, observe=observe)


@many
@given(day=asks, policy=policies, padded=st.booleans(), memory=st.sampled_from([math.inf, 20.0]))
def test_everyone_who_comes_has_one_outcome(
    day: list[Ask], policy: BatchPolicy, *, padded: bool, memory: float
) -> None:
    """Keys, sizes, costs, overtakes and idleness are judged at each batch, in the simulation."""
    done = learning(policy, padded=padded, memory=memory).serve(day)
    assert done.asked == len(day) == len(done.outcomes)
    assert set(done.outcomes.values()) <= {1}
    assert len(done.answered) + len(done.expired) + done.left == len(day)
    assert len(done.line) == 0
    assert list(done.line) == []


@many
@given(day=asks, policy=policies, padded=st.booleans())
def test_who_did_not_wait_too_long_is_served(day: list[Ask], policy: BatchPolicy, *, padded: bool) -> None:
    done = learning(policy, padded=padded).serve(day)
    for ran in done.ran:
        for entry in ran.entries:
            assert entry.deadline is None or ran.began < entry.deadline
    for ask, when in done.expired:
        assert ask.patience is not None
        assert when >= ask.at + ask.patience


@many
@given(day=asks, policy=policies, padded=st.booleans())
def test_only_the_more_urgent_lead_before_one_who_waits(
    day: list[Ask], policy: BatchPolicy, *, padded: bool
) -> None:
    """The bound on waiting among one tenant's requests.

    Every batch that begins while one waits is led by one more urgent; those came at most
    `priority_seconds` times the difference of their priorities later.
    """
    alone = [Ask(a.at, a.key, a.cost, "", a.priority, a.patience, a.leaves_after) for a in day]
    done = learning(policy.model_copy(update={"wait": "busy"}), padded=padded).serve(alone)
    for ran in done.ran:
        leader = ran.entries[0]
        for other in done.ran:
            for entry in other.entries:
                if entry.arrived <= ran.began < other.began:
                    head = (leader.priority - entry.priority) * policy.priority_seconds
                    assert leader.arrived <= entry.arrived + head + 1e-9


@many
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 6)), min_size=1, max_size=30))
def test_every_shape_steps_in_its_turn(work: list[tuple[str, int]]) -> None:
    """Between two steps of one, each other that waits takes one at most."""
    done = Day(BatchPolicy(max_batch_size=4)).serve([Ask(0.0, key=key, steps=n) for key, n in work])
    turns = [str(ran.asks[0].key) for ran in done.ran]
    assert len(done.answered) == len(work)
    for key in "abc":
        own = [turn for turn, other in enumerate(turns) if other == key]
        for earlier, later in itertools.pairwise(own):
            assert later - earlier <= 3
    assert len(turns) >= max(sum(n for _, n in work) / 4, *(n for _, n in work))


@many
@given(st.lists(st.integers(1, 40), min_size=2, max_size=40))
def test_shortest_first_answers_sooner_and_lets_nobody_starve(lengths: list[int]) -> None:
    def mean_wait(*, shortest: bool) -> float:
        policy = BatchPolicy(max_batch_size=1, shortest_first=shortest)
        day = Day(policy, seconds=lambda _: 0.05).serve([Ask(0.0, steps=n) for n in lengths])
        assert len(day.answered) == len(lengths)
        return sum(when for _, when in day.answered) / len(lengths)

    assert mean_wait(shortest=True) <= mean_wait(shortest=False) + 1e-9


def test_what_is_long_goes_before_shorter_work_that_came_much_later() -> None:
    """Short requests come without end and would fill the model; the long one is served all the same."""
    policy = BatchPolicy(max_batch_size=1, shortest_first=True)
    short = [Ask(0.1 * i, steps=2) for i in range(2000)]
    long = Ask(0.05, steps=20)
    day = Day(policy, seconds=lambda _: 0.05).serve([*short, long], until=150.0)
    ended = {id(ask): when for ask, when in day.answered}
    assert ended[id(long)] < 8 * 20 * 0.05 * 3


@many
@given(st.lists(st.sampled_from([1.0, 2.0, 3.0, 20.0]), min_size=1, max_size=60), st.integers(0, 3))
def test_the_worst_request_waits_for_a_bounded_number_of_batches(costs: list[float], overtakes: int) -> None:
    """One whose length fits nobody's is overtaken `max_overtakes` times at most, and leads in its turn."""
    policy = BatchPolicy(max_batch_size=4, max_overtakes=overtakes, max_batch_cost=24.0)
    odd = Ask(0.0, cost=9.0)
    day = [Ask(0.0, cost=c) for c in costs]
    done = Day(policy, padded=True).serve([*day[: len(day) // 2], odd, *day[len(day) // 2 :]])
    turns = next(i for i, ran in enumerate(done.ran) if odd in ran.asks)
    earlier = len(day) // 2
    assert turns <= earlier
    late = sum(any(entry.number > earlier + 1 for entry in ran.entries[1:]) for ran in done.ran[:turns])
    assert late <= overtakes


@pytest.mark.parametrize("seed", range(5))
def test_near_lengths_together_compute_less_for_nothing(seed: int) -> None:
    lengths = random.Random(seed).choices([10, 11, 12, 100, 105, 500], k=200)
    day = [Ask(0.0, cost=float(length)) for length in lengths]
    policy = BatchPolicy(max_batch_size=8)

    def waste(groups: list[list[float]]) -> float:
        return sum(max(group) * len(group) - sum(group) for group in groups)

    packed = [[a.cost for a in ran.asks] for ran in Day(policy, padded=True).serve(day).ran]
    plain = [[a.cost for a in ran.asks] for ran in Day(policy, padded=False).serve(day).ran]
    assert sorted(cost for batch in packed for cost in batch) == sorted(map(float, lengths))
    assert waste(packed) < 0.5 * waste(plain)


@settings(max_examples=50, deadline=None)
@given(asks, policies)
def test_the_window_ends_for_everyone(day: list[Ask], policy: BatchPolicy) -> None:
    """With `always`, a model that has nothing else to do begins a batch at the end of the first window."""
    waiting = policy.model_copy(update={"wait": "always", "timeout_ms": 100.0})
    done = learning(waiting, padded=False).serve(day)
    busy_until = 0.0
    for ran in done.ran:
        first = min(entry.arrived for entry in ran.entries)
        assert ran.began <= max(busy_until, first + 0.1) + 1e-6
        busy_until = max(busy_until, ran.began + ran.seconds)
