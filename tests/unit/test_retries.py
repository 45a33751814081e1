"""When clients try again: the cases that the TypeScript client passes too, and that callers spread out."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import httpx
import pytest

from sheaf_client import ConnectionFailedError
from sheaf_client._errors import SheafError
from sheaf_client._refusals import raise_for_problem
from sheaf_client._retry import RetryPolicy
from sheaf_client.errors import BY_CODE, OverloadedError

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "schema/cases/retries.json").read_text(encoding="utf-8")
)


def failure_of(told: dict[str, Any], asked: float | None) -> SheafError:
    if "code" in told:
        return BY_CODE[told["code"]]("No.", retry_after=asked)
    if "connection" in told:
        return ConnectionFailedError(
            unsent=told["connection"] == "unsent", unanswered=told["connection"] == "unanswered"
        )
    with pytest.raises(SheafError) as caught:
        raise_for_problem(httpx.Response(told["status"], text="<html>No."))
    return caught.value


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["title"])
def test_what_is_tried_again_and_when(case: dict[str, Any]) -> None:
    policy = RetryPolicy(max_retries=10_000, deadline=None, draw=lambda: case["draw"])
    failure = failure_of(case["failure"], case.get("asked"))
    wait = policy.delay(failure, case["attempt"], 0.0, repeated=case.get("repeated", False))
    assert wait == case["wait"]


def test_every_code_has_a_case() -> None:
    assert {case["failure"].get("code") for case in CASES} >= BY_CODE.keys()


def test_callers_that_were_refused_together_come_back_apart_and_none_before_it_was_asked() -> None:
    draw = random.Random(7).random
    policy = RetryPolicy(max_retries=2, deadline=None, draw=draw)
    refused = OverloadedError("Busy.", retry_after=2.0)
    waits = [policy.delay(refused, 0, 0.0, repeated=False) for _ in range(100)]
    assert len(set(waits)) == 100
    assert all(wait is not None and 2 <= wait < 2.5 for wait in waits)


def test_a_wait_that_does_not_end_before_the_deadline_is_not_begun() -> None:
    policy = RetryPolicy(max_retries=2, deadline=10.0, draw=lambda: 0.5)
    assert policy.delay(OverloadedError(retry_after=1.0), 0, 8.5, repeated=False) == 1.25
    assert policy.delay(OverloadedError(retry_after=1.0), 0, 8.75, repeated=False) is None
    assert policy.delay(OverloadedError(), 2, 0.0, repeated=False) is None
