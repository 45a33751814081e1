"""Keeps the garbage collector's full passes short in a process that serves.

A full pass looks at every object there is, and nothing else runs meanwhile: with a model's libraries loaded,
tens to hundreds of milliseconds, which come most often when many requests wait and are refused. Modules and
loaded models stay for good, so they are left out of it.
"""

from __future__ import annotations

import gc


class _Process:
    settled = False


def settle_heap() -> None:
    """Leave what is there now out of the passes to come. For hosts whose process does nothing but serve."""
    _Process.settled = True
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def resettle_heap() -> None:
    """The same again after a model came or went, or what is left of it would stay; elsewhere nothing."""
    if _Process.settled:
        settle_heap()


def unsettle_heap() -> None:
    """Have the passes look at everything again."""
    _Process.settled = False
    gc.unfreeze()
