"""Waits of a thread that Ctrl-C ends, whichever thread the system tells of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic

#: Seconds after which a thread that waits looks up. A signal need not wake it: the system may tell another
#: thread, a library's perhaps, or tell this one a moment before it falls asleep.
_LOOK = 0.5


def wait_awake(wait: Callable[[float], bool], timeout: float | None) -> bool:
    """Wait as `wait` does, for so many seconds at most; None for no limit.

    Args:
        wait: Waits for as many seconds as it is given, and returns whether what it waits for has come.
        timeout: Seconds.
    """
    end = math.inf if timeout is None else monotonic() + timeout
    left = _LOOK if timeout is None else timeout
    while not wait(max(0.0, min(left, _LOOK))):
        left = end - monotonic()
        if left <= 0:
            return False
    return True
