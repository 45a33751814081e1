"""The scheduling policy: pure, on a clock that the tests turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from sheaf.scheduling.batch import BatchPolicy, bucket_requests
from sheaf.scheduling.queue import Entry, WaitingLine


def entry(
    name: str, key: object = None, cost: float = 1.0, arrived: float = 0.0, deadline: float | None = None
) -> Entry[str]:
    return Entry(name, key, cost, arrived, deadline)  # type: ignore[arg-type]


def names(batch: list[Entry[str]]) -> list[str]:
    return [e.item for e in batch]


def test_a_free_model_runs_what_waits_at_once() -> None:
    line: WaitingLine[str] = WaitingLine(BatchPolicy(timeout_ms=1000, wait="busy"))
    assert line.wait_for(now=0.0) is None
    line.add(entry("a"))
    assert line.wait_for(now=0.0) == 0.0


def test_the_classic_window_waits_until_it_is_over_or_full() -> None:
    line: WaitingLine[str] = WaitingLine(BatchPolicy(timeout_ms=100, max_batch_size=2, wait="always"))
    line.add(entry("a", arrived=5.0))
    assert line.wait_for(now=5.04) == 5.0 + 0.1 - 5.04
    assert line.wait_for(now=6.0) == 0.0
    line.add(entry("b", arrived=5.05))
    assert line.wait_for(now=5.05) == 0.0


def test_a_model_that_lingers_waits_a_share_of_its_call_for_as_many_as_it_answered() -> None:
    line: WaitingLine[str] = WaitingLine(BatchPolicy(linger=0.1))
    line.expect(2, now=10.0, seconds=5.0)
    assert line.wait_for(now=10.0) is None
    line.add(entry("a", arrived=10.1))
    assert line.wait_for(now=10.1) == pytest.approx(0.4)
    assert line.wait_for(now=10.5) == 0.0
    line.add(entry("b", arrived=10.2))
    assert line.wait_for(now=10.2) == 0.0


def test_a_model_lingers_for_who_it_answered_beside_those_who_waited_meanwhile() -> None:
    line: WaitingLine[str] = WaitingLine(BatchPolicy(linger=0.1, max_batch_size=4))
    line.add(entry("a", arrived=9.0))
    line.add(entry("b", arrived=9.0))
    line.expect(1, now=10.0, seconds=5.0)
    assert line.wait_for(now=10.0) == pytest.approx(0.5)
    line.add(entry("c", arrived=10.1))
    assert line.wait_for(now=10.1) == 0.0
    line.expect(3, now=15.0, seconds=5.0)
    assert line.wait_for(now=15.0) == pytest.approx(0.5)
    line.add(entry("d", arrived=15.1))  # the batch is full
    assert line.wait_for(now=15.1) == 0.0


def test_a_model_does_not_linger_unless_it_is_asked_to() -> None:
    line: WaitingLine[str] = WaitingLine(BatchPolicy())
    line.expect(2, now=10.0, seconds=5.0)
    line.add(entry("a", arrived=10.0))
    assert line.wait_for(now=10.0) == 0.0


def test_the_oldest_leads_and_only_its_key_joins() -> None:
    line: WaitingLine[str] = WaitingLine(BatchPolicy(max_batch_size=3))
    for name, key in [("a", 1), ("b", 2), ("c", 1), ("d", 2), ("e", 1), ("f", 1)]:
        line.add(entry(name, key))
    assert [names(line.take(now=0.0)) for _ in range(4)] == [["a", "c", "e"], ["b", "d"], ["f"], []]


def test_cost_bounds_a_batch_and_a_single_entry_over_it_runs_alone() -> None:
    line: WaitingLine[str] = WaitingLine(BatchPolicy(max_batch_cost=10))
    for name, cost in [("a", 4), ("b", 6), ("c", 50), ("d", 1)]:
        line.add(entry(name, cost=cost))
    assert [names(line.take(now=0.0)) for _ in range(3)] == [["a", "b"], ["c"], ["d"]]


def test_discarded_entries_free_their_place_and_never_run() -> None:
    line: WaitingLine[str] = WaitingLine(BatchPolicy())
    first, second, third = entry("a"), entry("b"), entry("c")
    for e in (first, second, third):
        line.add(e)
    assert line.discard(first)
    assert not line.discard(first)
    assert line.discard(second)
    assert len(line) == 1
    assert names(line.take(now=0.0)) == ["c"]
    assert not line.discard(third)
    assert len(line) == 0


def test_expired_entries_come_out_once() -> None:
    line: WaitingLine[str] = WaitingLine(BatchPolicy())
    line.add(entry("late", deadline=1.0))
    line.add(entry("fine", deadline=3.0))
    assert names(line.expire(now=2.0)) == ["late"]
    assert line.expire(now=2.0) == []
    assert names(line.take(now=0.0)) == ["fine"]


@dataclass
class Bucket:
    value: object


@pytest.mark.parametrize(
    ("value", "same", "other"),
    [([1, 2], [1, 2], [2, 1]), ({"a": 1}, {"a": 1}, {}), (Bucket(1), Bucket(1), Bucket(2))],
)
def test_what_cannot_be_hashed_decides_a_bucket_too(value: object, same: object, other: object) -> None:
    items = [Bucket(value), Bucket(other), Bucket(same)]
    assert [indices for indices, _ in bucket_requests(items, "value")] == [[0, 2], [1]]


def test_bucket_requests_keeps_order_and_indices() -> None:
    items = [Bucket(1), Bucket(2), Bucket(1), Bucket([3])]
    assert [indices for indices, _ in bucket_requests(items, "value")] == [[0, 2], [1], [3]]
    assert [indices for indices, _ in bucket_requests(items, None)] == [[0, 1, 2, 3]]
    assert bucket_requests([], "value") == []
    assert bucket_requests([], None) == [([], [])]


@pytest.mark.parametrize(
    ("given", "wait"),
    [
        ({}, "busy"),
        ({"timeout_ms": 20}, "always"),
        ({"timeout_ms": 10}, "always"),  # the default, and still given
        ({"timeout_ms": 20, "wait": "busy"}, "busy"),
        ({"wait": "always"}, "always"),
    ],
)
def test_a_window_that_is_given_is_wanted(given: dict[str, Any], wait: str) -> None:
    policy = BatchPolicy(**given)
    assert policy.wait == wait
    assert BatchPolicy.model_validate(policy.model_dump()) == policy
    assert BatchPolicy.model_validate_json(policy.model_dump_json(exclude_unset=True)) == policy
