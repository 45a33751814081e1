"""Small requests cannot make a server hold much: what becomes of a body counts, until it is answered."""

from __future__ import annotations

import random
from collections.abc import Iterator

import msgspec
import pytest

from tests.attack.bounds import attacks
from tests.attack.process import MIB, MOST, Attack, Served, as_text, served, squeezed
from tests.http.conftest import GOOD

#: Answers and refusals. Anything else is a fault of the server.
EXPECTED = {200, 400, 413, 422, 503}
ECHO = "/echo/predict"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served("tests.attack.models:EVERY") as running:
        yield running


def still_serves(server: Served) -> bool:
    print(f"peak {server.peak // MIB} MiB")
    assert server.peak < MOST
    return server.alive and server.post(ECHO, as_text(GOOD).encode()).status_code == 200


def series(count: int) -> str:
    """A forecast of whole numbers, few of which are alike."""
    numbers = random.Random(0).choices(range(10, 100), k=5_000)
    values = (numbers * (count // len(numbers) + 1))[:count]
    return as_text({**GOOD, "history": values})


def rows(count: int, width: int) -> str:
    return as_text({**GOOD, "history": [[1] * width] * count})


def packed(content: object) -> Attack:
    body = msgspec.msgpack.encode({**GOOD, "history": content})
    return Attack(ECHO, body, {"content-type": "application/msgpack"})


FLOODS = {
    "a million numbers, compressed": squeezed(series(1_000_000), ECHO),
    "ten million numbers in rows, compressed": squeezed(rows(10_000, 1024), ECHO),
    "rows of one number, compressed": squeezed(rows(900_000, 1), ECHO),
    "numbers": Attack(ECHO, series(340_000).encode()),
    "rows of one number": Attack(ECHO, rows(250_000, 1).encode()),
    "numbers as MessagePack": packed([1] * 900_000),
    "no numbers as MessagePack": packed([1] + [None] * 900_000),
    "a batch of series": Attack(
        "/echo/batch", as_text({"requests": [{**GOOD, "history": [1] * 330}] * 1000}).encode()
    ),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_hundred_at_once_are_answered_or_refused(server: Served, name: str) -> None:
    statuses = server.flood([FLOODS[name]] * 100)
    assert set(statuses) <= EXPECTED, statuses
    assert still_serves(server)


def test_each_field_at_its_bounds_is_answered_or_refused(server: Served) -> None:
    found = [*attacks(MIB // 8), *list(attacks(2 * MIB))[::8]]
    assert len({attack.path for attack in found}) > 20
    for start in range(0, len(found), 25):
        statuses = server.flood(found[start : start + 25])
        assert set(statuses) <= EXPECTED, (statuses, {attack.path for attack in found[start : start + 25]})
    assert still_serves(server)


def test_a_server_with_little_memory_lives() -> None:
    # Stacks of threads count whole, whatever is used of them.
    with served("tests.attack.models:EVERY", limit=MOST + 512 * MIB) as confined:
        for attack in FLOODS.values():
            statuses = confined.flood([attack] * 100)
            assert set(statuses) <= EXPECTED, statuses
            assert still_serves(confined)
