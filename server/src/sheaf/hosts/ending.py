"""How a process that serves ends: by a signal, in its time, whatever hangs; by a second signal at once."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from sheaf.observability.tracing import flush_traces

log = logging.getLogger("sheaf.server")

#: Seconds after the drain in which models are let go of; after them the process ends as it is.
MARGIN = 5.0
#: Seconds for what was logged and traced to be written in that case.
_FLUSHING = 1.0
_NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Ending:
    """Hears signals while it is entered, in the main thread; elsewhere it does nothing.

    The first has `stop` called, and is raised on leaving: SIGTERM as `SystemExit(0)`, SIGINT as
    `KeyboardInterrupt`. The second ends the process at once. Where it is not left `seconds` and `MARGIN`
    after the first, the process ends by status 1.

    Args:
        seconds: How long the drain may take.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._stop: Callable[[], None] | None = None
        self._first: int | None = None
        self._before: dict[int, Any] = {}
        self._told, self._left = threading.Event(), threading.Event()

    def by(self, stop: Callable[[], None]) -> None:
        """Have the first signal call that, instead of being raised where it comes."""
        self._stop = stop

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            # Made before it is needed: a handler of signals must not start a thread.
            threading.Thread(target=self._watch, name="sheaf-end", daemon=True).start()
            self._before = {number: signal.signal(number, self._hear) for number in _NUMBERS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._left.set()
        self._told.set()
        if kind is None and self._first is not None:
            raise _meaning(self._first)

    def _hear(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - what signals give
        if self._first is not None:
            _end_at_once(number)
        self._first = number
        self._told.set()
        if self._stop is None:
            raise _meaning(number)
        self._stop()

    def _watch(self) -> None:
        self._told.wait()
        if self._left.wait(self._seconds + MARGIN):
            return
        log.error("the server did not come to its end within %g s; ending it", self._seconds + MARGIN)
        flushing = threading.Thread(target=_flush, daemon=True)
        flushing.start()
        flushing.join(_FLUSHING)
        os._exit(1)


def _meaning(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(0)


def _end_at_once(number: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # it was being written to
            stream.flush()
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def _flush() -> None:
    flush_traces(_FLUSHING)
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
