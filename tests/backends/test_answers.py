"""What compares answers lets nothing pass that differs: in shape, beside an infinity, where one is NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.backends.answers import assert_alike

INF, NAN = float("inf"), float("nan")
TOLERANCE = 1e-3


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([1.0, 2.0], np.array([1.0, 2.0005])),
        (0.0005, 0.0),
        ([0.0005, 1.0], [0.0, 1.0]),
        (np.array([INF, -INF, 1.0]), [INF, -INF, 1.0]),
        ([NAN, 1.0], [NAN, 1.0]),
        ([NAN, 1.0005, 0.0005], [NAN, 1.0, 0.0]),
        ([INF, 1.0005, 0.0005], [INF, 1.0, 0.0]),
        (INF, INF),
        (NAN, NAN),
        ([], []),
        (np.zeros((0, 3)), np.zeros((0, 3))),
        ({"a": [1, None, "x"]}, {"a": [1, None, "x"]}),
    ],
)
def test_what_is_alike_passes(found: Any, expected: Any) -> None:
    assert_alike(found, expected, TOLERANCE, unit=1.0)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (1.0, np.ones(3)),
        (np.ones(3), 1.0),
        (np.ones((1, 3)), np.ones(3)),
        (np.ones((3, 1)), np.ones((3, 3))),
        (np.zeros((0, 3)), np.zeros((0, 2))),
        ([], [1.0]),
        ([5.0, INF], [1.0, INF]),
        ([1.0, INF], [INF, 1.0]),
        ([1.0, -INF], [1.0, INF]),
        ([1.0, 1e300], [1.0, INF]),
        ([1.0, INF], [1.0, 1e300]),
        ([NAN, 1.0], [1.0, 1.0]),
        ([1.0, 1.0], [NAN, 1.0]),
        ([NAN, 5.0], [NAN, 1.0]),
        ([INF, 1.0], [NAN, 1.0]),
        ([1.0, 2.01], [1.0, 2.0]),
        (True, 1.0),
        ("1.0", 1.0),
        (None, 0.0),
        ([1, None], [1, 0]),
        ({"a": 1, "b": 2}, {"a": 1}),
    ],
)
def test_what_differs_is_found(found: Any, expected: Any) -> None:
    with pytest.raises(AssertionError):
        assert_alike(found, expected, TOLERANCE)
