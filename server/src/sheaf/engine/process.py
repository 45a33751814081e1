"""Lanes and their process: a fork leaves their threads behind, and the end must not come under one at work.

A thread that is in C++ when the interpreter is finalised is unwound as soon as it asks for Python's lock.
C++ answers that with `std::terminate`: the process would end by SIGABRT, whatever its status was to be. So
what runs at the end is stopped at its next step in Python, and for what does not come back in time the
process ends without tearing down what that thread stands on.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import time
from typing import Protocol
from weakref import WeakSet

from sheaf.interrupts import ProcessEnds

#: Seconds that the end, of the process or of a lane, waits for work that nobody waits for.
PATIENCE = 1.0


class Inherited(Protocol):
    """Something with threads, which are not there in a fork."""

    def orphan(self) -> None:
        """This process is a fork: answer nothing, wait for nobody, take no lock; its holder is gone."""
        ...


class AtWork(Inherited, Protocol):
    """Something whose thread may be in a model when the process ends."""

    def abort(self) -> None:
        """The process ends: begin nothing more, and break off what runs at its next step in Python."""
        ...

    @property
    def at_work(self) -> bool:
        """Whether a thread may still be in the model."""
        ...


_inherited: WeakSet[Inherited] = WeakSet()
_at_work: WeakSet[AtWork] = WeakSet()


def orphan_in_forks(thing: Inherited) -> None:
    """Have it told in every fork of this process."""
    _inherited.add(thing)


def stop_at_the_end(thing: AtWork) -> None:
    """Have it stopped before the interpreter is finalised, and told in forks."""
    _inherited.add(thing)
    _at_work.add(thing)


def _orphan_all() -> None:
    things = list(_inherited)
    _inherited.clear()
    _at_work.clear()
    for thing in things:
        thing.orphan()


def _end() -> None:
    things = list(_at_work)
    for thing in things:
        thing.abort()
    end = time.monotonic() + PATIENCE
    while any(thing.at_work for thing in things):
        if time.monotonic() > end:
            _end_around_threads()
            return
        time.sleep(0.005)


def _end_around_threads() -> None:
    """Let the process end, by the status that it would have, under threads that are in native code.

    A thread that C++ would end the process for sleeps instead, and once the interpreter is finalised and its
    output written, the process is gone at once: no destructor runs under what is still at work.
    """
    if sys.platform != "linux":
        return  # elsewhere threads are not unwound
    import ctypes

    libc = ctypes.CDLL(None)
    with contextlib.suppress(OSError, AttributeError):  # where no C++ is loaded, none is unwound
        cpp = ctypes.CDLL("libstdc++.so.6", mode=os.RTLD_NOLOAD)
        cpp._ZSt13set_terminatePFvvE(ctypes.cast(libc.pause, ctypes.c_void_p))  # noqa: SLF001 - C++'s own name
    with contextlib.suppress(AttributeError):  # not every C library has it
        libc.fflush(None)
        libc.on_exit(libc._exit, None)  # noqa: SLF001 - C's own name; it is called with the status


def break_off(thread: int | None) -> None:
    """Raise `ProcessEnds` in a thread, as soon as it runs Python again."""
    import ctypes

    if thread is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(ProcessEnds))


if hasattr(os, "register_at_fork"):  # where there are forks
    os.register_at_fork(after_in_child=_orphan_all)
atexit.register(_end)
