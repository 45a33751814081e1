"""Hostile bodies, those that are known and thousands that follow from a seed, to a server and to a client.

SHEAF_FUZZ is how many are made, with half as many answers, and SHEAF_FUZZ_SEED what they follow from.
Longer, by hand: `python -m tests.attack.fuzzing --seconds 600 --seed 7`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import psutil
import pytest

from tests.attack.bodies import corpus, made
from tests.attack.fuzzed_answers import fuzz_client, scripted
from tests.attack.fuzzing import Target, check, fuzz, target, threads
from tests.contract.exchanges import TYPES

BODIES = int(os.environ.get("SHEAF_FUZZ", "8000"))
SEED = int(os.environ.get("SHEAF_FUZZ_SEED", "1"))
#: Bytes that this process, which holds the server and all that was sent, may grow by.
GROWTH = 400 * 2**20


@pytest.fixture(scope="module")
def attacked() -> Iterator[Target]:
    with target() as found:
        for _ in TYPES:
            found.be_good()
        yield found


@pytest.fixture
def fresh(attacked: Target) -> Target:
    attacked.found.clear()
    attacked.statuses.clear()
    return attacked


@pytest.mark.parametrize("name", corpus())
def test_what_was_found_once_is_answered(fresh: Target, name: str) -> None:
    fresh.send(corpus()[name])
    fresh.be_good()
    assert not fresh.found, fresh.found[0]


def test_whatever_is_sent_is_answered_as_documented(fresh: Target) -> None:
    print(f"seed {SEED}, {BODIES} bodies")
    before, size = threads(), psutil.Process().memory_info().rss
    fuzz(fresh, SEED, range(BODIES))
    fresh.be_good()
    fresh.settle()
    assert not fresh.found, f"seed {SEED}:\n" + "\n".join(map(str, fresh.found))
    assert threads() <= before
    assert psutil.Process().memory_info().rss - size < GROWTH
    # It could not fail on requests that are all refused at the door.
    assert {200, 400, 413, 415, 422} <= fresh.statuses.keys(), fresh.statuses
    assert fresh.statuses[200] > sum(fresh.statuses.values()) / 10, fresh.statuses


def test_whatever_is_answered_is_read_or_refused_by_the_client() -> None:
    print(f"seed {SEED}, {BODIES // 2} answers")
    size = psutil.Process().memory_info().rss
    wrong = fuzz_client(SEED, range(BODIES // 2))
    assert not wrong, f"seed {SEED}:\n" + "\n".join(wrong)
    assert psutil.Process().memory_info().rss - size < GROWTH


def test_bodies_follow_from_the_seed() -> None:
    assert [made(1, number) for number in range(20)] == [made(1, number) for number in range(20)]
    assert [str(scripted(1, number)) for number in range(20)] != [
        str(scripted(2, number)) for number in range(20)
    ]


def test_a_wrong_answer_is_told_with_its_body() -> None:
    from tests.attack.bodies import Sent
    from tests.attack.fuzzing import Answer, WrongError

    with pytest.raises(WrongError, match="no problem document"):
        check(Sent("/x/predict"), Answer(500, {"content-type": "text/plain"}, b"Internal Server Error"))
    cut = b"event: progress\r\ndata: {}\r\n\r\n"
    with pytest.raises(WrongError, match="a stream of"):
        check(Sent("/x/stream"), Answer(200, {"content-type": "text/event-stream"}, cut))
