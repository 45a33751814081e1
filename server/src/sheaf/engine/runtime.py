"""One loaded model behind its contract: what every host holds, and the order of things written once.

admit (checks, deadline) → cache → schedule → execute → respond
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Sequence
from concurrent.futures import Future, wait
from functools import partial
from typing import Any, Unpack

from sheaf.engine.aside import aside
from sheaf.engine.cache import AnswerCache
from sheaf.engine.delivery import Reply, Waiter, into_future, unwrap
from sheaf.engine.fast_path import FastLane
from sheaf.engine.intake import Intake
from sheaf.engine.malloc_tuning import keep_freed_memory
from sheaf.engine.observer import Observer, SafeObserver
from sheaf.engine.pending import PendingRequest
from sheaf.engine.process import orphan_in_forks
from sheaf.engine.streams import Event, Room, aiterate, iterate, unbounded
from sheaf.engine.terms import CallOptions, CallTerms
from sheaf_client.contracts.base import BaseRequest, BaseResponse
from sheaf_client.errors import DeadlineExceededError, InvalidRequestError, ProblemError
from sheaf_client.protocol import wait_awake


def _given(reply: Reply) -> Reply:
    return reply


def _cancel_all(asked: Sequence[PendingRequest | ProblemError]) -> None:
    """Nobody waits for the answers any more."""
    for one in asked:
        if isinstance(one, PendingRequest):
            one.cancel()


class ModelRuntime(Intake):
    """Owns one model. `start` loads it; then `predict`, `predict_many` and `stream` answer until `stop`.

    The asynchronous methods serve hosts with an event loop; `submit`, `predict_now` and `iter_stream` are
    the same for threads. All raise the classes of `sheaf_client.errors`, and take:

        timeout: seconds within which the answer must be there.
        priority: urgency; a request of priority 1 goes before one of 0 that came up to
            `BatchPolicy.priority_seconds` earlier.
        tenant: who asks; tenants share the model's time fairly.
        bill: takes the seconds of the model that the request used, on the model's thread.
    """

    @property
    def ready(self) -> bool:
        """Whether the model is loaded and accepts requests."""
        return self._lane is not None and self._model.ready

    @property
    def depth(self) -> int:
        """Requests that wait."""
        return self._lane.depth if self._lane else 0

    @property
    def cache(self) -> AnswerCache | None:
        """The answers kept, where the spec asks for it."""
        return self._shared.cache if self._shared else None

    def start(self, *, timeout: float | None = None) -> None:
        """Load the model; raises what its loading raises. A second call does nothing.

        Raises `DeadlineExceededError` where it takes more than `timeout` seconds: the load is given up, and
        the thread that is in it lets go of the model once it comes back.
        """
        if self._lane is not None:
            return
        keep_freed_memory()
        lane = FastLane(self.spec.name, self._model, self.spec.batch_policy, self._clock)
        lane.start()
        loading = lane.run_on_thread(self._model.load)

        def loaded(seconds: float) -> bool:
            return bool(wait([loading], seconds).done)

        try:
            if not wait_awake(loaded, timeout):
                raise DeadlineExceededError(f"The model was not loaded within {timeout:g} s.")
            loading.result()
        except BaseException:
            loading.cancel()  # where this thread was interrupted, nobody waits for it
            lane.close(drain=False)
            raise
        self._lane = lane
        self._orphaned = False
        orphan_in_forks(self)

    def orphan(self) -> None:
        """This process is a fork, without the model's thread: refuse what comes."""
        self._lane, self._orphaned = None, True
        self._observer = SafeObserver(Observer())  # the host's own may have locks that nobody gives back

    def stop(self, *, drain: bool = True) -> None:
        """Take no more requests, finish those that wait (or refuse them), let go of the model."""
        lane, self._lane = self._lane, None
        if lane is not None:
            lane.close(drain=drain)

    def refuse(self) -> None:
        """Take no more requests, and refuse those that wait and those that run. `stop` is to follow."""
        lane = self._lane
        if lane is not None:
            lane.refuse()

    def hand_over(self, successor: ModelRuntime) -> None:
        """Have another runtime answer from now on: finish what waits here, let go of the model.

        Whoever still holds this runtime is answered by its successor, so that no request is lost.
        """
        self._successor = successor
        self.stop()

    def answer_size(self, request: BaseRequest) -> int:
        """About how many bytes the answer takes as JSON, for hosts that bound what they hold."""
        try:
            return self._model.backend.answer_size(request)
        except InvalidRequestError:
            return 0  # there will be none: it is refused in its own place, as others may be asked for with it

    def submit(self, request: BaseRequest, **terms: Unpack[CallOptions]) -> Future[Any]:
        """Put a request in line; its future holds the response. Cancelling it frees the place.

        Raises:
            InvalidRequestError: This model cannot serve the request.
            OverloadedError: Too many requests are waiting.
            UnavailableError: The model is not loaded.
        """
        future: Future[BaseResponse] = Future()
        tracker = self._track(request, lambda: into_future(future), CallTerms(**terms))
        future.add_done_callback(lambda done: tracker.cancel() if done.cancelled() else None)
        return future

    def predict_now(self, request: BaseRequest, **terms: Unpack[CallOptions]) -> Any:
        """Answer one request, waiting in this thread."""
        tracker = self._track(request, Waiter, CallTerms(**terms), here=self.backend.inline)
        if tracker.sink is None:
            assert tracker.outcome is not None  # noqa: S101 - who has no sink was answered at once
            return unwrap(tracker.outcome)
        try:
            outcome = tracker.sink.wait(terms.get("timeout"))
        except BaseException:
            tracker.cancel()
            raise
        if outcome is None:
            raise tracker.late()
        return unwrap(outcome)

    def ask(self, request: BaseRequest, **terms: Unpack[CallOptions]) -> PendingRequest:
        """Put a request to the model from an event loop; raises as `submit` does. Await its `answer`."""
        return self._asked(request, CallTerms(**terms))

    async def ask_aside(self, request: BaseRequest, **terms: Unpack[CallOptions]) -> PendingRequest:
        """`ask` for a large request: the backend's checks of it run on a thread, and the loop goes on."""
        (asked,) = await self._ask_aside([request], CallTerms(**terms))
        if isinstance(asked, ProblemError):
            raise asked from asked.__cause__
        return asked

    async def predict(self, request: BaseRequest, **terms: Unpack[CallOptions]) -> Any:
        """Answer one request; cancelling the caller frees its place."""
        return await self.ask(request, **terms).answer()

    async def predict_many(
        self, requests: Sequence[BaseRequest], *, large: bool = False, **terms: Unpack[CallOptions]
    ) -> list[Any | ProblemError]:
        """Answer or refuse each request by itself, in their order; together they take turns as one call.

        Where they are `large`, they are put in line on a thread, as by `ask_aside`.
        """
        own = CallTerms(**terms, call=object() if len(requests) > 1 else None)
        asked = await self._ask_aside(requests, own) if large else []

        async def one(place: int) -> Any | ProblemError:
            try:
                there = asked[place] if large else self._asked(requests[place], own)
                return there if isinstance(there, ProblemError) else await there.answer()
            except ProblemError as error:
                return error

        try:
            return await asyncio.gather(*map(one, range(len(requests))))
        except asyncio.CancelledError:
            _cancel_all(asked)  # whose turn to wait has not come
            raise

    async def _ask_aside(
        self, requests: Sequence[BaseRequest], terms: CallTerms
    ) -> list[PendingRequest | ProblemError]:
        """Put requests in line on a thread; who is cancelled meanwhile frees their places."""
        replies = [Reply() for _ in requests]  # they are of this loop

        def open_all() -> list[PendingRequest | ProblemError]:
            asked: list[PendingRequest | ProblemError] = []
            for request, reply in zip(requests, replies, strict=True):
                try:
                    tracker = self._track(request, partial(_given, reply), terms)
                except ProblemError as error:
                    asked.append(error)
                else:
                    asked.append(PendingRequest(tracker, terms.timeout))
            return asked

        return await aside(open_all, _cancel_all)

    def stream(
        self,
        request: BaseRequest,
        *,
        large: bool = False,
        room: Room = unbounded,
        **terms: Unpack[CallOptions],
    ) -> AsyncGenerator[Event, None]:
        """Progress events, then the result; leaving the iteration cancels the work between two steps.

        A `large` request is put in line on a thread, as by `ask_aside`. Events that a slow reader lets wait
        take their `room`; where there is none the oldest are dropped.
        """
        own = CallTerms(**terms)
        return aiterate(
            lambda emit: self._open_stream(request, emit, own),
            own.timeout,
            str(request.request_id),
            large=large,
            room=room,
        )

    def iter_stream(self, request: BaseRequest, **terms: Unpack[CallOptions]) -> Generator[Event, None, None]:
        """`stream` for threads."""
        own = CallTerms(**terms)
        return iterate(
            lambda emit: self._open_stream(request, emit, own), own.timeout, str(request.request_id)
        )

    def _asked(self, request: BaseRequest, terms: CallTerms) -> PendingRequest:
        return PendingRequest(
            self._track(request, Reply, terms, here=self._model.backend.inline), terms.timeout
        )
