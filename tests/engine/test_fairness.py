"""Tenants share the model's time by their weights, whoever asks first, most or in the largest pieces."""

from __future__ import annotations

from collections import Counter

import pytest
from pydantic import ValidationError

from sheaf.scheduling.batch import BatchPolicy
from sheaf.scheduling.fairness import FairShare
from tests.engine.simulation import Ask, Day, Ran

#: Seconds of a turn; what a tenant is ahead by is bounded by a turn and the batches it was in.
QUANTUM = 0.02


def shares(ran: list[Ran], *, since: float = 0.0, until: float) -> dict[str, float]:
    """Seconds of the model by tenant, each batch divided by the costs in it."""
    used: Counter[str] = Counter()
    for batch in ran:
        if since <= batch.began < until:
            total = sum(ask.cost for ask in batch.asks)
            for ask in batch.asks:
                used[ask.tenant] += batch.seconds * ask.cost / total
    return used


def slow(cost: float) -> float:
    """A model that makes a few batches a second."""
    return 0.05 + 0.005 * cost


def flood(tenant: str, count: int, *, at: float = 0.0, key: object = None, cost: float = 1.0) -> list[Ask]:
    return [Ask(at, key, cost, tenant) for _ in range(count)]  # type: ignore[arg-type]


@pytest.mark.parametrize("keys", [("same", "same", "same"), ("x", "y", "z")])
@pytest.mark.parametrize(
    "weights", [{}, {"a": 2.0}, {"a": 0.5, "b": 3.0}], ids=["equal", "double", "half and threefold"]
)
def test_saturating_tenants_share_by_weight(keys: tuple[str, str, str], weights: dict[str, float]) -> None:
    """At every moment, by what each used for its weight, nobody is ahead by more than a few batches."""
    policy = BatchPolicy(max_batch_size=8, tenant_weights=weights)
    asks = [
        *flood("a", 900, key=keys[0]),
        *flood("b", 500, at=0.001, key=keys[1], cost=3.0),
        *flood("c", 900, at=0.5, key=keys[2]),
    ]
    done = Day(policy, seconds=slow).serve(asks, until=8.0)
    longest = max(ran.seconds for ran in done.ran)
    least = min(1.0, *weights.values()) if weights else 1.0
    most = max(1.0, *weights.values()) if weights else 1.0
    for now in [1.0 + i / 4 for i in range(24)]:
        used = shares(done.ran, since=0.6, until=now)
        per_weight = [used[t] / weights.get(t, 1.0) for t in "abc"]
        assert max(per_weight) - min(per_weight) <= QUANTUM * most / least + 3 * longest / least


def test_who_asks_rarely_waits_for_the_batch_at_work_and_no_flood() -> None:
    """A tenant with one request at a time is served next, though thousands wait that came before it."""
    policy = BatchPolicy(max_batch_size=8)

    def follow(ask: Ask, now: float) -> Ask | None:
        return Ask(now + 0.1, ask.key, ask.cost, "rare") if ask.tenant == "rare" else None

    done = Day(policy, seconds=slow, follow=follow).serve(
        [*flood("many", 1000), Ask(0.001, tenant="rare")], until=8.0
    )
    longest = max(ran.seconds for ran in done.ran)
    waits = [ran.began - e.arrived for ran in done.ran for e in ran.entries if e.tenant == "rare"]
    assert len(waits) > 20
    assert max(waits) <= 2 * longest


@pytest.mark.parametrize("keys", [("same", "same"), ("x", "y")])
def test_a_closed_loop_gets_what_a_flood_gets(keys: tuple[str, str]) -> None:
    """Callers that ask again only when answered, with enough at a time, hold their half."""
    policy = BatchPolicy(max_batch_size=8)

    def follow(ask: Ask, now: float) -> Ask | None:
        return Ask(now, ask.key, ask.cost, "loop") if ask.tenant == "loop" else None

    asks = [*flood("many", 1000, key=keys[0]), *flood("loop", 16, key=keys[1])]
    done = Day(policy, seconds=slow, follow=follow).serve(asks, until=10.0)
    used = shares(done.ran, until=10.0)
    assert abs(used["many"] - used["loop"]) <= QUANTUM + 4 * max(ran.seconds for ran in done.ran)


def test_room_that_one_leaves_is_used_and_not_held_against_the_other() -> None:
    """Riding along costs at most one batch of debt: afterwards a tenant is not shut out."""
    policy = BatchPolicy(max_batch_size=8)

    def follow(ask: Ask, now: float) -> Ask | None:
        return Ask(now, ask.key, ask.cost, "few") if ask.tenant == "few" and now < 10 else None

    asks = [*flood("few", 2), *flood("rider", 1200), *flood("third", 200, at=10.0, key="other")]
    done = Day(policy, seconds=slow, follow=follow).serve(asks, until=11.0)
    assert all(len(ran.entries) == 8 for ran in done.ran if ran.began < 9)
    used = shares(done.ran, since=10.1, until=11.0)
    assert abs(used["rider"] - used["third"]) <= QUANTUM + 4 * max(ran.seconds for ran in done.ran)


def test_dear_and_cheap_requests_get_the_same_time() -> None:
    done = Day(BatchPolicy(max_batch_size=4), seconds=slow).serve(
        [*flood("dear", 200, key="d", cost=100.0), *flood("cheap", 800, key="c")], until=10.0
    )
    used = shares(done.ran, until=10.0)
    assert abs(used["dear"] - used["cheap"]) <= QUANTUM + 3 * max(ran.seconds for ran in done.ran)


def test_nobody_waits_for_a_turn_alone() -> None:
    share = FairShare()
    with pytest.raises(LookupError):
        share.next_tenant()
    share.enter("a")
    share.charge({"a": 1000.0})
    assert share.next_tenant() == "a"
    share.enter("b")
    share.charge({"a": 0.05})
    assert share.next_tenant() == "b"


def test_a_debt_survives_leaving_and_is_repaid_by_the_time_of_others() -> None:
    share = FairShare(quantum=0.02)
    for tenant in "abc":
        share.enter(tenant)
    share.charge({"a": 1.0})
    share.leave("a")
    share.enter("a")
    turns: Counter[str] = Counter()
    while (turn := share.next_tenant()) != "a":
        turns[turn] += 1
        share.charge({turn: 0.02})
        assert sum(turns.values()) < 200
    assert 40 <= turns["b"] <= 60
    assert 40 <= turns["c"] <= 60


def test_a_debt_is_forgiven_while_nobody_owed_anything_waits() -> None:
    share = FairShare()
    share.enter("a")
    share.enter("b")
    share.charge({"a": 1.0})
    share.leave("a")
    share.charge({"b": 2.0})  # b alone: what a owed is repaid
    share.enter("a")
    turns = 0
    while share.next_tenant() != "a":
        turns += 1
        share.charge({"b": 0.02})
    assert turns <= 1


def test_time_not_used_is_not_saved() -> None:
    share = FairShare(quantum=0.02, weights={"a": 100.0})
    share.enter("a")
    share.enter("b")
    assert share.next_tenant() == "a"
    share.leave("a")
    share.enter("a")
    assert share.next_tenant() == "b"


def test_no_tenant_falls_deeper_than_by_its_longest_batch() -> None:
    share = FairShare(quantum=0.02)
    share.enter("few")
    share.enter("rider")
    for _ in range(100):
        share.charge({"few": 0.001, "rider": 0.009})
    turns = 0
    while share.next_tenant() != "rider":
        turns += 1
        share.charge({"few": 0.02})
    assert turns <= 3


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan"), 1e-300])
def test_a_weight_that_divides_by_nothing_is_refused(weight: float) -> None:
    with pytest.raises(ValidationError):
        BatchPolicy(tenant_weights={"a": weight})


@pytest.mark.parametrize("name", ["priority_seconds", "timeout_ms", "max_batch_cost", "target_ms"])
def test_endless_settings_are_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        BatchPolicy.model_validate({name: float("inf")})
