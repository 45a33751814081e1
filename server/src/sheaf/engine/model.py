"""A loaded model on its lane: runs batches and steps, learns its bounds, and is loaded anew when it dies."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from typing import cast

from sheaf.backends.base import ModelBackend
from sheaf.backends.stepwise import StepwiseBackend
from sheaf.engine.execution import ModelDied, run_batch, step_stream
from sheaf.engine.faults import problem_for
from sheaf.engine.gc_tuning import refreeze_heap
from sheaf.engine.jobs import Job, PredictJob, StepJob, StreamJob
from sheaf.engine.observer import BatchRecord, Observer
from sheaf.engine.steps import StepOutcome, discard_state, step_together
from sheaf.interrupts import INTERRUPTS, ProcessEnds
from sheaf.scheduling.latency import LatencyModel
from sheaf.scheduling.memory import MemoryBound
from sheaf.scheduling.packing import cost_of
from sheaf.scheduling.queue import Entry, book
from sheaf.spec import ModelSpec
from sheaf_client.errors import BackendError, UnavailableError

log = logging.getLogger("sheaf.engine")

#: Seconds between attempts to load a model that died: doubled from the first to the last.
_FIRST_PAUSE, _LAST_PAUSE = 0.5, 60.0
#: Most shapes of steps whose bounds are kept.
_MAX_SHAPES = 1024


class LoadedModel:
    """One backend under its spec. `load` before all else; all but `ready` and `hung` on the lane's thread."""

    def __init__(self, spec: ModelSpec, observer: Observer, clock: Callable[[], float]) -> None:
        self._spec = spec
        self._observer = observer
        self._clock = clock
        self.backend: ModelBackend = spec.make_backend()
        self.padded = self.backend.padded
        target = spec.batch_policy.target_ms
        #: Milliseconds that a call should take at most; None for no such bound.
        self.target_ms = self.backend.default_target_ms() if target is None else target
        self.latency = LatencyModel()
        self.memory = MemoryBound()
        #: The same for each shape of steps on which memory ran out.
        self.shapes: dict[Hashable, MemoryBound] = {}
        self._broken: str | None = None
        self._loaded = False
        #: Seconds between the last attempt to load and the next, once one has failed.
        self.pause: float | None = None

    @property
    def ready(self) -> bool:
        """Whether the model can answer now."""
        return self._broken is None

    def load(self) -> None:
        """Load the weights and warm up; raises what that raises."""
        self._loaded = True  # from its first moment on there is something to let go of
        self.backend.load()
        self.backend.warm_up()
        self._broken = self.pause = None

    def unload(self) -> None:
        """Let go of the weights."""
        loaded, self._loaded = self._loaded, False
        if loaded:
            self.unload_backend(self.backend)

    def unload_backend(self, backend: ModelBackend) -> None:
        """Unload a backend; that of a `reload` which nobody waits for any more is not the model's own."""
        try:
            backend.unload()
        except INTERRUPTS:
            raise
        except BaseException:
            log.exception("model %s could not be unloaded", self._spec.name)

    def max_cost(self, leader: Entry[Job]) -> float:
        """The most that a batch may cost: what fits into memory, and into the target of the policy."""
        memory = self.memory
        if isinstance(leader.item, StepJob):
            memory = self.shapes.get(leader.key, memory)
        if self.target_ms is None:
            return memory.cost
        return min(memory.cost, self.latency.cost_within(self.target_ms / 1000))

    def run(self, batch: Sequence[Entry[Job]]) -> list[Entry[Job]]:
        """Settle every job of a batch; gives back what shall run again."""
        now = self._clock()
        if self._broken is not None:  # only where the lane closes before the model could be loaded anew
            for entry in batch:
                entry.item.settle(UnavailableError("The model was stopped."))
                entry.item.close()
            return []
        for entry in batch:
            entry.item.queue_seconds += now - entry.since
        try:
            return self._run(batch, now)
        except ProcessEnds:
            raise  # with all that the model holds
        except BaseException:
            for entry in batch:  # none of them runs again
                discard_state(entry.item)
            raise

    def _run(self, batch: Sequence[Entry[Job]], now: float) -> list[Entry[Job]]:
        first = batch[0].item
        if isinstance(first, PredictJob):
            return self._run_batch([entry for entry in batch if not entry.item.settled], now)
        if isinstance(first, StepJob):
            return self._step_together(batch)
        return self._step_stream(batch[0], first)

    def reload(self, wanted: Callable[[], bool]) -> ModelBackend | None:
        """Let go of the model that died and load another, for `adopt`.

        None where that failed, or where it was not `wanted` any more after the first half.
        """
        dead: ModelBackend | None = self.backend if self._loaded else None
        self._loaded = False
        backend: ModelBackend | None = None
        try:
            backend = self.backend = self._spec.make_backend()
            if dead is not None:
                self.unload_backend(dead)
            dead = None  # its memory is free before the next takes its own
            if not wanted():
                return None
            backend.load()
            backend.warm_up()
        except BaseException:
            pause = self._next_pause()
            log.exception("model %s could not be loaded anew; next try in %.1f s", self._spec.name, pause)
            for left in (dead, backend):
                if left is not None:
                    self.unload_backend(left)
            return None
        return backend

    def adopt(self, backend: ModelBackend | None) -> None:
        """Go on with what `reload` gave; with None the next attempt is due after a longer pause."""
        if backend is None:
            self.pause = self._next_pause()
            return
        self._loaded = True
        reason, self._broken, self.pause = self._broken or "", None, None
        refreeze_heap()
        self._observer.reloaded(self._spec.name, reason)

    def hung(self, batch: Sequence[Entry[Job]], seconds: float) -> None:
        """A call did not come back: its jobs fail, and its backend is left to the thread that is in it.

        Where it was a `reload`, the next one is due after a pause.
        """
        if self._broken is not None:
            self.pause = self._next_pause()
        self._broken, self._loaded = self._broken or "hung", False
        book(batch, seconds)
        for entry in batch:
            entry.item.settle(BackendError(f"The model did not come back within {seconds:g} s."))
            if isinstance(entry.item, StepJob):
                discard_state(entry.item)

    def _next_pause(self) -> float:
        return _FIRST_PAUSE if self.pause is None else min(2 * self.pause, _LAST_PAUSE)

    def check_open(self) -> None:
        """Raise `UnavailableError` where a model that died could not be loaded again."""
        if self.pause is not None:
            raise UnavailableError("The model is being loaded anew.", retry_after=self.pause)

    def _step_stream(self, entry: Entry[Job], job: StreamJob) -> list[Entry[Job]]:
        backend, started = self.backend, self._clock()
        if job.events is not None and job.owner is not backend:
            job.settle(BackendError("The model was loaded anew while this stream ran."))
            return []
        more = False
        if not job.settled:
            try:
                more = step_stream(backend, job, clock=self._clock)
            except ModelDied as died:
                if self._serves(backend):
                    self._died(died)
            book([entry], self._record([entry], started, failures=int(job.failed)))
        if more:
            return [entry]
        job.close()
        return []

    def _step_together(self, entries: Sequence[Entry[Job]]) -> list[Entry[Job]]:
        backend, started = cast("StepwiseBackend", self.backend), self._clock()
        jobs = [cast("StepJob", entry.item) for entry in entries]
        for job in jobs:
            if job.settled or job.owner is not backend:  # of a model that is gone: it begins anew
                discard_state(job)
        try:
            outcome = step_together(backend, [job for job in jobs if not job.settled], clock=self._clock)
        except ModelDied as died:
            if not self._serves(backend):
                return []
            book(entries, self._record(entries, started, failures=len(died.unanswered)))
            for job in jobs:
                discard_state(job)
            rescued = self._rescue(entries, died)
            others = [entry for entry in entries if not entry.item.settled and entry not in rescued]
            return rescued + others
        if not self._serves(backend):
            return []
        book(entries, self._record(entries, started, outcome.failures))
        self._learn(entries, outcome)
        for job in jobs:
            if job.settled:  # its caller left during the step
                discard_state(job)
        again = [entry for entry, job in zip(entries, jobs, strict=True) if not job.settled]
        for entry in again:
            state = cast("StepJob", entry.item).state
            entry.remaining = entry.remaining if state is None else backend.remaining(state)
        return again

    def _learn(self, entries: Sequence[Entry[Job]], outcome: StepOutcome) -> None:
        """Keep what a step cost, and what fitted of its shape."""
        costs = {id(entry.item): entry.cost for entry in entries}
        key, cost = entries[0].key, self._cost(costs[id(job)] for job in outcome.stepped)
        if outcome.fitted is None:
            if outcome.stepped:
                self.latency.observe(cost, outcome.seconds)
            if key in self.shapes:
                self.shapes[key].fitted(cost)
        elif outcome.fitted and not entries[0].alone:
            while len(self.shapes) >= _MAX_SHAPES:
                del self.shapes[next(iter(self.shapes))]
            bound = self.shapes.setdefault(key, MemoryBound())
            bound.shrink(max(self._cost(costs[id(job)] for job in call) for call in outcome.fitted))

    def _run_batch(self, entries: Sequence[Entry[Job]], started: float) -> list[Entry[Job]]:
        if not entries:
            return []
        backend = self.backend
        jobs = [cast("PredictJob", entry.item) for entry in entries]
        try:
            failures, fitted = run_batch(backend, jobs, clock=self._clock, spent=partial(book, entries))
        except ModelDied as died:
            if not self._serves(backend):
                return []
            self._record(entries, started, failures=len(died.unanswered))
            return self._rescue(entries, died)
        if not self._serves(backend):
            return []
        seconds = self._record(entries, started, failures)
        if fitted is None:
            self._fitted(entries, seconds)
        elif fitted:  # where nobody fitted even alone, it is the requests that are too large
            costs = {id(entry.item): entry.cost for entry in entries}
            self.memory.shrink(max(self._cost(costs[id(job)] for job in call) for call in fitted))
        return []

    def _fitted(self, entries: Sequence[Entry[Job]], seconds: float) -> None:
        """Keep what a batch cost that fitted into memory, where a bound is to be learned from it."""
        if self.target_ms is not None or self.memory.cost < math.inf:
            cost = self._cost([entry.cost for entry in entries])
            self.memory.fitted(cost)
            self.latency.observe(cost, seconds)

    def _serves(self, backend: ModelBackend) -> bool:
        """Whether a backend was not given up as hung meanwhile: what it says then counts no more."""
        return backend is self.backend and self._broken is None

    def _cost(self, costs: Iterable[float]) -> float:
        found = costs if isinstance(costs, list) else list(costs)
        return found[0] if len(found) == 1 else cost_of(found, padded=self.padded)

    def _died(self, died: ModelDied) -> None:
        log.error("model %s died; loading it anew", self._spec.name, exc_info=died.reason)
        self._broken = type(died.reason).__name__

    def _rescue(self, entries: Sequence[Entry[Job]], died: ModelDied) -> list[Entry[Job]]:
        """Who was in the call that killed the model runs once more, alone; who kills it twice is refused."""
        self._died(died)
        unanswered = set(map(id, died.unanswered))
        again: list[Entry[Job]] = []
        for entry in entries:
            job = entry.item
            if isinstance(job, StreamJob) or job.settled or id(job) not in unanswered:
                continue
            if job.retried:
                job.settle(problem_for(died.reason, job.request))
            else:
                job.retried = True
                entry.key = job
                again.append(entry)
        return again

    def _record(self, entries: Sequence[Entry[Job]], started: float, failures: int) -> float:
        seconds = self._clock() - started
        costs = [entry.cost for entry in entries]
        self._observer.executed(
            BatchRecord(
                model=self._spec.name,
                size=len(entries),
                cost=sum(costs),
                padded_cost=self.backend.padded_cost(costs),
                queue_seconds=[started - entry.since for entry in entries],
                seconds=seconds,
                ended=time.time(),
                failures=failures,
                tokens=[entry.item.token for entry in entries],
            )
        )
        return seconds
