"""What was used last, within a bound in bytes and in number."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sheaf.lru import SizedLRU


def test_the_least_recently_used_make_room() -> None:
    kept: SizedLRU[str, str] = SizedLRU(max_bytes=10)
    for key in "abc":
        kept.put(key, key.upper(), 3)
    assert kept.get("a") == "A"
    assert kept.peek("b") == kept["b"] == "B"  # neither is a use of it
    kept.put("d", "D", 4)
    assert list(kept) == ["c", "a", "d"]
    assert (kept.size, kept.get("b"), kept.hits, kept.misses) == (10, None, 1, 1)
    with pytest.raises(KeyError):
        _ = kept["b"]


def test_one_of_a_key_takes_the_place_of_the_other() -> None:
    kept: SizedLRU[str, int] = SizedLRU(max_bytes=10)
    kept.put("a", 1, 9)
    kept.put("a", 2, 4)
    assert (kept.size, kept["a"], len(kept)) == (4, 2, 1)
    kept.put("a", 3, 11)  # larger than all that there is room for
    assert (kept.size, "a" in kept) == (0, False)


def test_what_is_held_stays_and_the_rest_goes() -> None:
    kept: SizedLRU[str, str] = SizedLRU(max_bytes=9)
    for key in "abc":
        kept.put(key, key, 3)
    assert kept.make_room(3, held="ab".__contains__) == ["c"]
    assert kept.fits(3)
    assert not kept.fits(4)
    assert kept.make_room(4, held="ab".__contains__) == []
    assert list(kept) == ["a", "b"]
    kept.clear()
    assert (kept.size, len(kept), kept.fits(9)) == (0, 0, True)


def test_the_bound_may_be_in_number_too() -> None:
    kept: SizedLRU[int, int] = SizedLRU(max_count=2)
    for key in range(4):
        kept.put(key, key, 10**9)
    assert list(kept) == [2, 3]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine it is
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 12))), st.integers(1, 20))
def test_its_size_is_that_of_what_it_keeps_and_within_the_bound(
    puts: list[tuple[int, int]], bound: int
) -> None:
    kept: SizedLRU[int, int] = SizedLRU(max_bytes=bound)
    for key, size in puts:
        kept.put(key, size, size)
        assert kept.size == sum(kept[key] for key in kept) <= bound
