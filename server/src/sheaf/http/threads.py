"""Work that may never come back, on a thread that holds up neither the others' pool nor the process's end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from sheaf.interrupts import as_error

T = TypeVar("T")


def in_thread(work: Callable[[], T], name: str) -> asyncio.Future[T]:
    """What work gives or raises, done on a daemon thread; who stops waiting leaves the thread to itself."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    done.add_done_callback(_look_at)

    def tell(result: T | None, error: Exception | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def do() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - handed to the one who asked
            failure = as_error(error)
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(tell, result, failure)

    threading.Thread(target=do, name=name, daemon=True).start()
    return done


def _look_at(done: asyncio.Future[T]) -> None:
    """What nobody waits for any more is no error that was overlooked."""
    if not done.cancelled():
        done.exception()
