"""State between requests: known by its content, bounded in bytes, the least recently used go first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sheaf.backends.contexts import ContextCache, content_key
from sheaf.spec import ModelSpec
from tests.echoes import Echo

EQUAL = [
    ({"a": 1, "b": [2.0, None]}, {"b": [2.0, None], "a": 1}),
    ([1, 2], (1, 2)),
    (np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3))),
    (np.array([1.0, np.nan]), np.array([1.0, np.nan])),
    (float("nan"), float("nan")),
    ({"x": {"q": 1, "p": np.zeros(2)}}, {"x": {"p": np.zeros(2), "q": 1}}),
    (np.arange(10)[::2], np.array([0, 2, 4, 6, 8])),
]
DIFFERENT = [
    (np.zeros(6), np.zeros((2, 3))),
    (np.zeros(2, np.float32), np.zeros(2, np.float64)),
    (np.zeros(1, np.float64), np.zeros(2, np.float32)),
    (np.array([1], ">i4"), np.array([1], "<i4")),
    (b"a", "a"),
    (1, 1.0),
    (1, True),
    ("", None),
    ([["a"], "b"], [["a", "b"]]),
    (["ab", "c"], ["a", "bc"]),
    ({"a": 1}, {"a": 2}),
    (np.array([0.0]), np.array([np.nan])),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal_content_has_one_key(one: Any, other: Any) -> None:
    assert content_key(one) == content_key(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_other_content_has_another_key(one: Any, other: Any) -> None:
    assert content_key(one) != content_key(other)


def test_parts_do_not_run_into_each_other() -> None:
    keys = {content_key("ab", "c"), content_key("a", "bc"), content_key("abc"), content_key(["ab", "c"])}
    assert len(keys) == 4


def test_a_key_is_the_same_in_every_process() -> None:
    assert (
        content_key("a", {"b": [1, 2.5, None]}, np.arange(3, dtype=np.int64))
        == "353ae6b3929a598d95fcb42cc7ede055"
    )


@pytest.mark.parametrize(
    "part", [np.array([object()]), np.array(["a", None], dtype=object), object(), {1, "a"}]
)
def test_what_has_no_content_is_refused(part: Any) -> None:
    with pytest.raises(TypeError):
        content_key(part)


def test_the_bound_holds_and_the_least_recently_used_go() -> None:
    cache = ContextCache(max_bytes=100)
    for name in "abcde":
        cache.put(name, name.upper(), 20)
    assert cache.get("a") == "A"
    cache.put("f", "F", 30)
    assert [name for name in "abcdef" if name in cache] == ["a", "d", "e", "f"]
    assert cache.size == 90


def test_one_over_the_bound_is_not_kept_and_drives_nobody_out() -> None:
    cache = ContextCache(max_bytes=100)
    cache.put("a", 1, 60)
    cache.put("big", 2, 101)
    assert "a" in cache
    assert "big" not in cache
    cache.put("whole", 3, 100)
    assert (len(cache), cache.size) == (1, 100)


def test_what_is_put_again_counts_once_and_anew() -> None:
    cache = ContextCache(max_bytes=100)
    cache.put("a", 1, 60)
    cache.put("a", 2, 40)
    assert (cache.get("a"), cache.size, len(cache)) == (2, 40, 1)
    cache.put("a", 3, 101)  # what replaces it cannot be kept, and the old is no longer true
    assert cache.get("a") is None
    assert cache.size == 0


@pytest.mark.parametrize("value", [None, 0, "", [], False, np.zeros(0)])
def test_whatever_is_made_is_made_once(value: Any) -> None:
    cache = ContextCache()
    made: list[int] = []

    def make() -> Any:
        made.append(1)
        return value

    for _ in range(3):
        assert cache.get_or_make("k", make, lambda _: 1) is value
    assert len(made) == 1
    assert (cache.hits, cache.misses) == (2, 1)


def test_what_cannot_be_made_is_tried_again() -> None:
    cache = ContextCache()

    def fail() -> Any:
        raise RuntimeError("no fit")

    for _ in range(2):
        with pytest.raises(RuntimeError):
            cache.get_or_make("k", fail, lambda _: 1)
    assert cache.get_or_make("k", lambda: 7, lambda _: 1) == 7


def test_clearing_lets_go_of_everything() -> None:
    cache = ContextCache()
    cache.put("a", 1, 10)
    cache.clear()
    assert (len(cache), cache.size, cache.get("a")) == (0, 0, None)


def test_each_model_has_contexts_of_its_own_within_its_specs_bound() -> None:
    spec = ModelSpec(name="echo", backend_cls=Echo, context_bytes=50)
    one, other = spec.make_backend(), spec.make_backend()
    one.contexts.put("a", 1, 50)
    one.contexts.put("b", 1, 51)
    assert len(one.contexts) == 1
    assert len(other.contexts) == 0
