"""Keeps the memory of large arrays between calls of a model, on Linux with glibc.

glibc maps each large array anew and gives it back when it is free; off the main thread it does so for good,
while the main thread's thresholds grow. A model on a lane then pays page faults for every activation, a third
of the time of a small model's batch. With thresholds of its own it is as fast as in the main thread
(`benchmarks/forecast.py`); the price is that up to 256 MiB stay with the process when it is idle.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

#: `M_TRIM_THRESHOLD` and `M_MMAP_THRESHOLD` of malloc.h, and their values; glibc takes no more than 32 MiB.
_SETTINGS = ((-1, 256 * 2**20), (-3, 32 * 2**20))
#: Where one of these is set, the user has decided.
_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Set the thresholds for the whole process; whether they hold.

    Nothing is done where the environment has settings of its own, or the allocator is another.
    """
    if sys.platform != "linux" or any(name in os.environ for name in _OWN):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl has none
        return False
    return all(mallopt(setting, value) for setting, value in _SETTINGS)


def give_back() -> None:
    """Give memory that is free back to the system, which glibc keeps else: after what was unusually large."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):  # musl has none
            ctypes.CDLL(None).malloc_trim(0)
