"""The way of a request to its model: what is refused, what the cache has, and its place in line.

admit (checks, deadline) → cache → line
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sheaf.backends.base import ModelBackend
from sheaf.backends.owners import owned
from sheaf.backends.stepwise import StepwiseBackend
from sheaf.contract.operations import operations_of
from sheaf.engine.admission import admit
from sheaf.engine.cache import AnswerCache
from sheaf.engine.coalescing import COALESCING
from sheaf.engine.delivery import Outcome, Sink
from sheaf.engine.entries import make_entry
from sheaf.engine.fast_path import FastLane
from sheaf.engine.jobs import Job, PredictJob, StepJob, StreamEvent, StreamJob
from sheaf.engine.model import LoadedModel
from sheaf.engine.observer import Observer, SafeObserver
from sheaf.engine.sharing import Release, SharedCalls
from sheaf.engine.terms import CallTerms
from sheaf.engine.tracker import Cancel, RequestTracker, SinkT
from sheaf.lora import ActiveAdapters
from sheaf.scheduling.queue import Entry
from sheaf.spec import ModelSpec
from sheaf_client.contracts.base import BaseRequest
from sheaf_client.contracts.events import ProgressEvent
from sheaf_client.errors import ProblemError, UnavailableError
from sheaf_client.protocol import ResultEvent


class Intake:
    """Puts requests to one model, or has them put to the runtime that took its place."""

    def __init__(self, spec: ModelSpec, observer: Observer | None = None) -> None:
        self.spec = spec
        self._observer = SafeObserver(observer or Observer())
        self._clock = time.monotonic
        self._model = LoadedModel(spec, self._observer, self._clock)
        self._lane: FastLane | None = None
        self._successor: Intake | None = None
        self._orphaned = False
        #: Whether the backend is told whose a request is, since it keeps something for them.
        self._owned = self.backend.keeps_contexts and not spec.shared_contexts
        config = spec.active_cache
        self._shared = SharedCalls(AnswerCache(config)) if config else None
        #: What may be asked of a model of this type; their contracts are imported here, before any request.
        self.operations = operations_of(spec.model_type)

    @property
    def backend(self) -> ModelBackend:
        """The backend that answers now."""
        return self._model.backend

    def check_open(self, *, room: bool = False) -> None:
        """Raise `UnavailableError` where requests cannot be taken now; hosts ask before reading a body.

        With `room`, raise `OverloadedError` where one more would be too many, too.
        """
        if self._successor is not None:
            self._successor.check_open(room=room)
            return
        lane = self._open_lane()
        if room and self._shared is None:  # what is kept needs no place
            lane.check_room()

    def _track(
        self, request: BaseRequest, make: Callable[[], SinkT], terms: CallTerms, *, here: bool = False
    ) -> RequestTracker[SinkT]:
        """Have a request answered into a sink, made where the answer is not there at once.

        With `here` the answer may be computed in this thread, if nobody else is in line.
        """
        tracker = RequestTracker(self._observer, self.spec.name, request, make)
        try:
            self._admit(request, tracker, terms, here=here)
        except BaseException as error:  # noqa: BLE001 - told in other words
            refused = tracker.refused(error)
            raise refused from refused.__cause__
        return tracker

    def _admit(
        self, asked: BaseRequest, tracker: RequestTracker[Any], terms: CallTerms, *, here: bool = False
    ) -> None:
        try:
            lane, backend = self._open_lane(), self._model.backend
            request = owned(asked, terms.tenant) if self._owned else asked
            adapters = admit(backend, self.spec, request)
            if self._shared is None or not backend.deterministic(request):
                job = self._make_job(request, tracker, tracker)
                tracker.release = self._put_in_line(lane, job, adapters, terms, tracker, here=here)[1]
                return

            def submit(sink: Sink) -> tuple[Entry[Job], Release]:
                return self._put_in_line(
                    lane, self._make_job(request, sink, tracker), adapters, terms, tracker, here=here
                )

            tracker.ensure_sink()  # others may have its outcome for it
            deadline = None if terms.timeout is None else self._clock() + terms.timeout
            met = self._shared.ask(request, tracker, deadline, submit, terms.tenant)
        except UnavailableError:
            if self._successor is None:
                raise
            self._successor._admit(asked, tracker, terms, here=here)  # noqa: SLF001 - one of us
            return
        tracker.release = met.release
        self._observer.cached(self.spec.name, hit=met.hit)

    def _make_job(self, request: BaseRequest, sink: Sink, tracker: RequestTracker[Any]) -> Job:
        kind = StepJob if self._model.backend.steps(request) else PredictJob
        return kind(request, sink, tracker.token)

    def _put_in_line(
        self,
        lane: FastLane,
        job: Job,
        adapters: ActiveAdapters,
        terms: CallTerms,
        tracker: RequestTracker[Any],
        *,
        here: bool = False,
    ) -> tuple[Entry[Job], Release]:
        entry = make_entry(job, adapters, terms, self._model.backend, self.spec.batch_policy, self._clock())
        here = here and isinstance(job, PredictJob)
        turn = COALESCING.get()
        if turn is not None and not turn.over:
            if not here:
                tracker.ensure_sink()
            turn.put(lane, entry, here=here)
        elif not (here and lane.run_here(entry, tracker.ensure_sink)):
            tracker.ensure_sink()
            lane.submit(entry)

        def release() -> None:
            job.abandon()
            lane.discard(entry)

        return entry, release

    def _open_stream(
        self, request: BaseRequest, emit: Callable[[StreamEvent], None], terms: CallTerms
    ) -> Cancel:
        def finish(outcome: Outcome) -> None:
            emit(outcome if isinstance(outcome, ProblemError) else ResultEvent(outcome))

        tracker = RequestTracker(self._observer, self.spec.name, request, lambda: finish, streamed=True)
        try:
            tracker.ensure_sink()
            self._begin_stream(request, emit, terms, tracker)
        except BaseException as error:  # noqa: BLE001 - told in other words
            refused = tracker.refused(error)
            raise refused from refused.__cause__
        return tracker.cancel

    def _begin_stream(
        self,
        asked: BaseRequest,
        emit: Callable[[StreamEvent], None],
        terms: CallTerms,
        tracker: RequestTracker[Any],
    ) -> None:
        if self.backend.streams():
            try:
                lane, request = self._open_lane(), owned(asked, terms.tenant) if self._owned else asked
                adapters = admit(self.backend, self.spec, request)
                job: Job | None = None
                if self.backend.steps(request):
                    job = StepJob(request, tracker, tracker.token, emit)
                elif not isinstance(self.backend, StepwiseBackend):
                    job = StreamJob(request, tracker.emitter(emit), tracker.token)
                if job is not None:
                    tracker.release = self._put_in_line(lane, job, adapters, terms, tracker)[1]
                    return
            except UnavailableError:
                if self._successor is None:
                    raise
                self._successor._begin_stream(asked, emit, terms, tracker)  # noqa: SLF001 - one of us
                return
        emit(ProgressEvent(step=0, total_steps=1))
        self._admit(asked, tracker, terms)

    def _open_lane(self) -> FastLane:
        lane = self._lane
        if lane is None:
            if self._orphaned:
                raise UnavailableError(
                    "The model was loaded before this process was forked, and its thread is not in the fork. "
                    "Load the models, or make the client, after the fork."
                )
            raise UnavailableError("The model is not loaded.", retry_after=1)
        self._model.check_open()
        return lane
