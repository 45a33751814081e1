"""Where an answer goes: each job has one sink, used once, whoever comes first.

A caller that waits in a thread, one that awaits in an event loop and one that holds a future are told in
their own ways. Event loops are woken once for all answers of a batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from sheaf_client.contracts.base import BaseResponse
from sheaf_client.errors import ProblemError
from sheaf_client.protocol import wait_awake

#: A response, or why there is none.
Outcome: TypeAlias = BaseResponse | ProblemError
Sink: TypeAlias = Callable[[Outcome], None]


class Waiter:
    """Lets one thread wait for one outcome, at the price of one lock."""

    __slots__ = ("_lock", "_outcome")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._outcome: Outcome | None = None

    def __call__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._lock.release()

    def wait(self, timeout: float | None) -> Outcome | None:
        """The outcome; None when it did not come within `timeout` seconds."""
        return self._outcome if wait_awake(self._acquire, timeout) else None

    def _acquire(self, seconds: float) -> bool:
        return self._lock.acquire(timeout=seconds)


class Mailbox:
    """Carries outcomes into one event loop, with one wake-up for all that came meanwhile."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # All that it holds of the loop is weak, or the loop would live for as long as its mailbox.
        self._loop = weakref.ref(loop)
        self.thread = threading.get_ident()
        self._letters: deque[tuple[weakref.ref[Reply], Outcome]] = deque()
        self._called = False

    def send(self, reply: Reply, outcome: Outcome) -> None:
        """Bring an outcome to a task of the loop, from another thread."""
        self._letters.append((weakref.ref(reply), outcome))
        loop = self._loop()
        if not self._called and loop is not None:
            self._called = True
            # The loop may be closed when a caller left in haste; then nobody waits.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._empty)

    def _empty(self) -> None:
        self._called = False
        while self._letters:
            letter, outcome = self._letters.popleft()
            reply = letter()
            if reply is not None:
                reply.fill(outcome)


class Reply:
    """Lets one task wait for one outcome, at the price of a future where it is not there at once.

    Attributes:
        outcome: What came; changed on the thread of the loop alone.
        on_outcome: Called there once it came, if set before; it must not raise.
    """

    __slots__ = ("__weakref__", "_future", "_mailbox", "on_outcome", "outcome")

    def __init__(self) -> None:
        self._mailbox = mailbox()
        self._future: asyncio.Future[None] | None = None
        self.on_outcome: Callable[[], None] | None = None
        self.outcome: Outcome | None = None

    def __call__(self, outcome: Outcome) -> None:
        if self._mailbox.thread == threading.get_ident():  # answered where it was asked
            self.fill(outcome)
        else:
            self._mailbox.send(self, outcome)

    def fill(self, outcome: Outcome) -> None:
        """Take the outcome in, on the thread of the loop."""
        self.outcome = outcome
        if self._future is not None and not self._future.done():
            self._future.set_result(None)
        tell, self.on_outcome = self.on_outcome, None
        if tell is not None:
            tell()

    async def wait(self) -> Outcome:
        """The outcome, once it is there."""
        while self.outcome is None:
            self._future = asyncio.get_running_loop().create_future()
            await self._future
        return self.outcome


_mailboxes: WeakKeyDictionary[asyncio.AbstractEventLoop, Mailbox] = WeakKeyDictionary()


def mailbox() -> Mailbox:
    """The mailbox of the running event loop."""
    loop = asyncio.get_running_loop()
    found = _mailboxes.get(loop)
    if found is None:
        found = _mailboxes[loop] = Mailbox(loop)
    return found


def into_future(future: Future[Any]) -> Sink:
    """The sink that fills a future for threads."""

    def put(outcome: Outcome) -> None:
        with contextlib.suppress(InvalidStateError):  # the caller left first
            if isinstance(outcome, ProblemError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    return put


def unwrap(outcome: Outcome) -> Any:
    """The response; an error is raised."""
    if isinstance(outcome, ProblemError):
        try:
            raise outcome
        finally:
            del outcome  # the error holds this frame
    return outcome
