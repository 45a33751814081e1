"""What ends a program, among all that a model may raise; the rest is an error like any other.

Libraries raise `SystemExit`, `CancelledError` and others that are no `Exception`, such as the panics of Rust
under pyo3. To let them pass would cost neighbours in a batch their answers, and an event loop its life.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class ProcessEnds(SystemExit):
    """Raised in a lane's thread to break off what it does: the process ends."""


#: What is let through wherever a model is called.
INTERRUPTS: tuple[type[BaseException], ...] = (KeyboardInterrupt, ProcessEnds)


class BrokeOutError(RuntimeError):
    """A model raised what is no `Exception`, which is the cause of this one."""


def as_error(raised: BaseException) -> Exception:
    """What was raised, as an `Exception`."""
    if isinstance(raised, Exception):
        return raised
    kind = type(raised).__name__
    try:
        text = str(raised)
    except BaseException:  # noqa: BLE001 - it cannot even be printed
        text = ""
    error = BrokeOutError(f"{kind}: {text}" if text else kind)
    error.__cause__ = raised
    return error


_CONTAINED: tuple[type[BaseException], ...] = (Exception, *INTERRUPTS)


def contained(work: Callable[[], T]) -> Callable[[], T]:
    """The same work, which raises errors and interrupts alone."""

    def do() -> T:
        try:
            return work()
        except _CONTAINED:
            raise
        except BaseException as raised:
            raise as_error(raised) from raised

    return do
