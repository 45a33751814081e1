"""Keeps the garbage collector's full passes short in a process that serves.

A full pass looks at every object there is, and nothing else runs meanwhile: with a model's libraries loaded,
tens to hundreds of milliseconds, which come most often when many requests wait and are refused. Modules and
loaded models stay for good, so they are left out of it.

Its young passes begin less often, too. What waits for an answer is many objects, which a pass would find all
alive; they are freed without it, by their last reference.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

#: So many objects more than were freed since begin the next young pass; Python's own is 700 or 2000.
_YOUNG = 20_000

T = TypeVar("T")


class _Process:
    settled = False
    threshold = gc.get_threshold()


def freeze_heap() -> None:
    """Leave what is there now out of the passes to come. For hosts whose process does nothing but serve."""
    if not _Process.settled:
        _Process.settled, _Process.threshold = True, gc.get_threshold()
        first, *others = _Process.threshold
        # Where a program has set it higher, or to 0, which is never, that stays.
        gc.set_threshold(max(first, _YOUNG) if first else 0, *others)
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def refreeze_heap() -> None:
    """The same again after a model came or went, or what is left of it would stay; elsewhere nothing."""
    if _Process.settled:
        freeze_heap()


def unfreeze_heap() -> None:
    """Have the passes look at everything again."""
    if _Process.settled:
        gc.set_threshold(*_Process.threshold)
    _Process.settled = False
    gc.unfreeze()


def without_passes(work: Callable[[], T]) -> T:
    """What work gives that makes many objects and keeps them all, such as a parser, done without passes.

    Each pass would find all of it alive, at three times the cost of the work itself; the next one begins
    after it. Where several do such work at once, passes may begin as the first ends.
    """
    if not gc.isenabled():
        return work()
    gc.disable()
    try:
        return work()
    finally:
        gc.enable()
