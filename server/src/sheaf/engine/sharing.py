"""The cache as callers meet it: a kept answer, a call that is under way already, or a call of their own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from sheaf.engine.cache import AnswerCache, readdress
from sheaf.engine.delivery import Outcome, Sink
from sheaf.engine.faults import problem_for, readdressed
from sheaf.engine.jobs import Job
from sheaf.interrupts import INTERRUPTS, as_error
from sheaf.scheduling.queue import Entry
from sheaf_client.contracts.base import BaseRequest, BaseResponse
from sheaf_client.errors import ProblemError
from sheaf_client.protocol import pack

log = logging.getLogger("sheaf.engine")

#: What a caller that goes away calls, so that its place is free.
Release: TypeAlias = Callable[[], None]
#: Puts a call of the model in line with its sink; gives its place there, and how to give that up.
Submit: TypeAlias = Callable[[Sink], tuple[Entry[Job], Release]]


@dataclass(frozen=True, slots=True)
class Lookup:
    """How a request was met; `hit` where no call of its own was needed."""

    release: Release
    hit: bool


class SharedCalls:
    """Kept answers, and the calls under way, of one model."""

    def __init__(self, cache: AnswerCache) -> None:
        self.cache = cache
        self._lock = threading.Lock()
        self._flights: dict[bytes, _Flight] = {}

    def ask(
        self, request: BaseRequest, sink: Sink, deadline: float | None, submit: Submit, tenant: str = ""
    ) -> Lookup:
        """Answer from what is kept, join an equal call, or `enter` a new one; raises what that raises."""
        key = self.cache.key(request, tenant)
        kept = self.cache.get(key, request)
        if kept is not None:
            sink(kept)
            return Lookup(lambda: None, hit=True)
        with self._lock:
            flight = self._flights.get(key)
            joined = flight is not None and flight.join(request, sink, deadline)
            if flight is None or not joined:
                flight = self._flights[key] = _Flight(self, key)
                flight.join(request, sink, deadline)
        if not joined:
            try:
                entry, flight.give_up = submit(flight.land)
            except BaseException as error:
                problem = problem_for(as_error(error), request)
                flight.leave(sink)
                flight.land(problem)  # whoever joined meanwhile is refused too
                if isinstance(error, INTERRUPTS):
                    raise
                raise problem from problem.__cause__
            flight.entered(entry)
        return Lookup(lambda: flight.leave(sink), hit=joined)

    def landed(self, key: bytes, flight: _Flight) -> None:
        """A call is over: those who ask from now on are not part of it."""
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]


class _Flight:
    """One call of the model that several callers wait for. Work goes on while one of them is left."""

    def __init__(self, shared: SharedCalls, key: bytes) -> None:
        self._shared = shared
        self._key = key
        self._lock = threading.Lock()
        self._waiting: list[tuple[BaseRequest, Sink]] | None = []
        self._entry: Entry[Job] | None = None
        self._deadline: float | None = 0.0
        self.give_up: Release | None = None

    def join(self, request: BaseRequest, sink: Sink, deadline: float | None) -> bool:
        """Wait for this call too; False where it is over. The last deadline of all is the call's."""
        with self._lock:
            if self._waiting is None:
                return False
            self._waiting.append((request, sink))
            if self._deadline is not None:
                self._deadline = None if deadline is None else max(deadline, self._deadline)
            if self._entry is not None:
                self._entry.deadline = self._deadline
            return True

    def entered(self, entry: Entry[Job]) -> None:
        """The call has its place in line."""
        with self._lock:
            self._entry = entry
            entry.deadline = self._deadline

    def leave(self, sink: Sink) -> None:
        """One caller has left; the call is given up with the last of them."""
        with self._lock:
            if self._waiting is None:
                return
            self._waiting = [waiting for waiting in self._waiting if waiting[1] is not sink]
            if self._waiting:
                return
            self._waiting = None
        self._shared.landed(self._key, self)
        if self.give_up is not None:
            self.give_up()

    def land(self, outcome: Outcome) -> None:
        """Tell everyone who waits, each an answer or an error of its own, and keep the answer."""
        packed = self._keep(outcome) if isinstance(outcome, BaseResponse) else None
        self._shared.landed(self._key, self)
        with self._lock:
            waiting, self._waiting = self._waiting or [], None
        whole = True  # the answer itself goes to one caller; the others get copies
        for request, sink in waiting:
            try:
                if isinstance(outcome, ProblemError):
                    own: Outcome = readdressed(outcome, request)
                elif whole and outcome.request_id == request.request_id:
                    own, whole = outcome, False
                else:
                    own = readdress(type(outcome), packed or pack(outcome), request)
            except Exception as error:  # noqa: BLE001 - an answer that cannot be copied
                own = problem_for(error, request)
            sink(own)

    def _keep(self, answer: BaseResponse) -> bytes | None:
        """The answer packed, and kept; None where it cannot be packed."""
        try:
            packed = pack(answer)
        except Exception:
            log.exception("an answer of model %s cannot be kept", answer.model_name)
            return None
        self._shared.cache.put(self._key, type(answer), packed)
        return packed
