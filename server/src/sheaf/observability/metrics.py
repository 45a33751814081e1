"""What Prometheus reads: the list of metrics, and how each event counts. Labels have few values by design."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import chain
from typing import Final, TypeAlias, TypeVar

from prometheus_client import CollectorRegistry

from sheaf.engine.observer import BatchRecord
from sheaf.observability.counters import Cells, Metric
from sheaf_client.errors import BY_CODE

T = TypeVar("T")
NotedT = TypeVar("NotedT")
#: Of one call of a model: its size, seconds, cost and padded cost, and how long each member had waited.
_Executed: TypeAlias = tuple[int, float, float, float, Sequence[float]]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


REQUESTS: Final = Metric(
    "sheaf_requests_total",
    "counter",
    ("model", "route", "status"),
    "Requests over HTTP by their status; 499 where the client left, and a stream by how it ended.",
)
REQUEST_SECONDS: Final = Metric(
    "sheaf_request_duration_seconds",
    "histogram",
    ("model", "route"),
    "Time from a request's head to the end of its answer, streams included.",
    _SECONDS,
)
PREDICTIONS: Final = Metric(
    "sheaf_predictions_total",
    "counter",
    ("model", "mode", "outcome"),
    "Requests to a model, however they came: over HTTP, each of a batch, in this process. `mode` is "
    "`predict` or `stream`; `outcome` is `ok`, `cancelled` where the caller left, or a problem's code.",
)
PREDICTION_SECONDS: Final = Metric(
    "sheaf_prediction_duration_seconds",
    "histogram",
    ("model", "mode"),
    "Time from a request's arrival at the model's line to its answer or error.",
    _SECONDS,
)
REFUSED: Final = Metric(
    "sheaf_refused_total",
    "counter",
    ("model", "code"),
    "Requests refused before the model saw them, by the code of the problem.",
)
FAILURES: Final = Metric(
    "sheaf_failures_total", "counter", ("model",), "Requests that the model failed on, or died of."
)
BATCH_SIZE: Final = Metric(
    "sheaf_batch_size", "histogram", ("model",), "Requests in each call of the model.", _SIZES
)
QUEUE_SECONDS: Final = Metric(
    "sheaf_queue_seconds",
    "histogram",
    ("model",),
    "How long each request, or step of a stream, waited for its turn.",
    _SECONDS,
)
DEVICE_SECONDS: Final = Metric(
    "sheaf_device_seconds_total", "counter", ("model",), "Time that the model was at work."
)
COST: Final = Metric(
    "sheaf_batch_cost_total", "counter", ("model",), "Cost of what was asked, in the backend's own measure."
)
PADDED_COST: Final = Metric(
    "sheaf_batch_padded_cost_total",
    "counter",
    ("model",),
    "Cost of what was computed; what exceeds sheaf_batch_cost_total is padding.",
)
CACHE_REQUESTS: Final = Metric(
    "sheaf_cache_requests_total",
    "counter",
    ("model", "outcome"),
    "Questions to the cache: `hit` where no call of the request's own was needed, else `miss`.",
)
RELOADS: Final = Metric(
    "sheaf_reloads_total", "counter", ("model",), "Times that a model that died or hung was loaded anew."
)
CACHE_BYTES: Final = Metric("sheaf_cache_bytes", "gauge", ("model",), "Bytes of the answers kept.")
CONTEXT_REQUESTS: Final = Metric(
    "sheaf_context_requests_total",
    "counter",
    ("model", "outcome"),
    "Questions for what a model keeps between requests, such as fitted tables: `hit` where it was there, "
    "else `miss`.",
)
CONTEXT_BYTES: Final = Metric(
    "sheaf_context_bytes", "gauge", ("model",), "Bytes of what a model keeps between requests."
)
QUEUE_DEPTH: Final = Metric("sheaf_queue_depth", "gauge", ("model",), "Requests that wait.")
READY: Final = Metric(
    "sheaf_model_ready", "gauge", ("model",), "1 where the model is loaded and accepts requests, else 0."
)

#: Every metric, in the order of the documentation.
METRICS: Final[Sequence[Metric]] = (
    *(REQUESTS, REQUEST_SECONDS, PREDICTIONS, PREDICTION_SECONDS, REFUSED, FAILURES),
    *(BATCH_SIZE, QUEUE_SECONDS, QUEUE_DEPTH, DEVICE_SECONDS, COST, PADDED_COST),
    *(CACHE_REQUESTS, CACHE_BYTES, CONTEXT_REQUESTS, CONTEXT_BYTES, READY, RELOADS),
)
#: How a request may end. What a backend makes up must not make new series.
_ENDINGS = frozenset({"ok", "cancelled", *BY_CODE})
#: Codes of problems that count as failures of the model.
_FAILED = frozenset({"backend_failed", "internal"})


#: Requests that are noted before they are counted; the counting of many at once is cheap.
_NOTED = 128


class Metrics:
    """The counts of one registry. Every method may run on any thread.

    What happens for every request is noted, which takes no lock, and counted when somebody reads.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        cells = Cells(METRICS, before=self._count)
        self._lock = cells.lock
        counts, distributions = cells.counts, cells.distributions
        self._requests, self._request_seconds = counts[REQUESTS.name], distributions[REQUEST_SECONDS.name]
        self._predictions = counts[PREDICTIONS.name]
        self._prediction_seconds = distributions[PREDICTION_SECONDS.name]
        self._refused, self._failures = counts[REFUSED.name], counts[FAILURES.name]
        self._sizes, self._waited = distributions[BATCH_SIZE.name], distributions[QUEUE_SECONDS.name]
        self._device_seconds = counts[DEVICE_SECONDS.name]
        self._cost, self._padded_cost = counts[COST.name], counts[PADDED_COST.name]
        self._cache, self._reloads = counts[CACHE_REQUESTS.name], counts[RELOADS.name]
        self._contexts = counts[CONTEXT_REQUESTS.name]
        self._answered: deque[tuple[tuple[str, str, int], float]] = deque()
        self._predicted: deque[tuple[tuple[str, str, str], float]] = deque()
        self._executed: deque[tuple[str, _Executed]] = deque()
        registry.register(cells)  # last: it may be read at once

    def expect(self, model: str, *, cached: bool) -> None:
        """Let a model's series begin at zero, so that their first event is seen as an increase."""
        own = (model,)
        with self._lock:
            for count in (self._failures, self._device_seconds, self._cost, self._padded_cost, self._reloads):
                count.add(own, 0)
            for outcome in ("hit", "miss") if cached else ():
                self._cache.add((model, outcome), 0)
            for distribution in (self._sizes, self._waited):
                distribution.expect(own)

    def contexts(self, model: str, *, hits: int, misses: int) -> None:
        """How often a model found, and missed, what it keeps between requests: all in all so far."""
        with self._lock:
            self._contexts.values[model, "hit"] = hits
            self._contexts.values[model, "miss"] = misses

    def answered(self, model: str, route: str, status: int, seconds: float) -> None:
        """A request over HTTP is over."""
        self._answered.append(((model, route, status), seconds))
        if len(self._answered) >= _NOTED:
            self._count()

    def predicted(self, model: str, mode: str, outcome: str, seconds: float) -> None:
        """A request to a model is over."""
        self._predicted.append(((model, mode, outcome), seconds))
        if len(self._predicted) >= _NOTED:
            self._count()

    def executed(self, batch: BatchRecord) -> None:
        """A call of the model is over."""
        # Not the record itself, which holds the requests.
        cost, padded_cost = batch.cost, batch.padded_cost
        self._executed.append(
            (batch.model, (batch.size, batch.seconds, cost, padded_cost, batch.queue_seconds))
        )
        if len(self._executed) >= _NOTED:
            self._count()

    def _count(self) -> None:
        """Count what was noted: many notes of few series, so each series is looked up once."""
        with self._lock:
            for (model, route, status), times in _grouped(self._answered).items():
                self._requests.add((model, route, str(status)), len(times))
                self._request_seconds.observe((model, route), times)
            for (model, mode, outcome), times in _grouped(self._predicted).items():
                ending = outcome if outcome in _ENDINGS else "internal"
                self._predictions.add((model, mode, ending), len(times))
                self._prediction_seconds.observe((model, mode), times)
                if ending in _FAILED:
                    self._failures.add((model,), len(times))
            for model, batches in _grouped(self._executed).items():
                sizes, seconds, costs, padded_costs, waited = zip(*batches, strict=True)
                self._sizes.observe((model,), sizes)
                self._device_seconds.add((model,), sum(seconds))
                self._cost.add((model,), sum(costs))
                self._padded_cost.add((model,), sum(padded_costs))
                self._waited.observe((model,), [*chain.from_iterable(waited)])

    def cached(self, model: str, *, hit: bool) -> None:
        """The cache was asked."""
        with self._lock:
            self._cache.add((model, "hit" if hit else "miss"))

    def refused(self, model: str, code: str) -> None:
        """A request was refused before the model saw it."""
        with self._lock:
            self._refused.add((model, code if code in BY_CODE else "internal"))

    def reloaded(self, model: str) -> None:
        """A model was loaded anew."""
        with self._lock:
            self._reloads.add((model,))


def _grouped(notes: deque[tuple[T, NotedT]]) -> dict[T, list[NotedT]]:
    """What was noted so far, taken out, by what it is of."""
    found: dict[T, list[NotedT]] = {}
    for _ in range(len(notes)):
        key, noted = notes.popleft()
        found.setdefault(key, []).append(noted)
    return found
