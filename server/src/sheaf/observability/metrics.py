"""What Prometheus reads: the list of metrics, and how each event counts. Labels have few values by design."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from prometheus_client import CollectorRegistry, Counter, Histogram

from sheaf.engine.observer import BatchRecord
from sheaf_client.errors import BY_CODE

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class Metric:
    """One metric as it is documented. `buckets` are the upper bounds of a histogram."""

    name: str
    kind: Literal["counter", "histogram", "gauge"]
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


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
QUEUE_DEPTH: Final = Metric("sheaf_queue_depth", "gauge", ("model",), "Requests that wait.")
READY: Final = Metric(
    "sheaf_model_ready", "gauge", ("model",), "1 where the model is loaded and accepts requests, else 0."
)

#: Every metric, in the order of the documentation.
METRICS: Final[Sequence[Metric]] = (
    *(REQUESTS, REQUEST_SECONDS, PREDICTIONS, PREDICTION_SECONDS, REFUSED, FAILURES),
    *(BATCH_SIZE, QUEUE_SECONDS, QUEUE_DEPTH, DEVICE_SECONDS, COST, PADDED_COST),
    *(CACHE_REQUESTS, CACHE_BYTES, READY, RELOADS),
)
#: Codes of problems that count as failures of the model.
_FAILED = frozenset({"backend_failed", "internal"})


class _Series(dict[tuple[str, ...], Any]):
    """The series of one metric by the values of their labels, each made once."""

    def __init__(self, metric: Metric, registry: CollectorRegistry) -> None:
        super().__init__()
        self._family: Any = (
            Histogram(metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=registry)
            if metric.kind == "histogram"
            else Counter(metric.name, metric.help, metric.labels, registry=registry)
        )

    def __missing__(self, labels: tuple[str, ...]) -> Any:
        series = self[labels] = self._family.labels(*labels)
        return series


class Metrics:
    """The counts of one registry. Every method may run on any thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        made = {metric: _Series(metric, registry) for metric in METRICS if metric.kind != "gauge"}
        self._requests, self._request_seconds = made[REQUESTS], made[REQUEST_SECONDS]
        self._predictions, self._prediction_seconds = made[PREDICTIONS], made[PREDICTION_SECONDS]
        self._refused, self._failures = made[REFUSED], made[FAILURES]
        self._sizes, self._queue_seconds = made[BATCH_SIZE], made[QUEUE_SECONDS]
        self._device_seconds = made[DEVICE_SECONDS]
        self._cost, self._padded_cost = made[COST], made[PADDED_COST]
        self._cache, self._reloads = made[CACHE_REQUESTS], made[RELOADS]

    def expect(self, model: str) -> None:
        """Let a model's series begin at zero, so that their first event is seen as an increase."""
        own = (self._failures, self._sizes, self._queue_seconds, self._device_seconds)
        for series in (*own, self._cost, self._padded_cost, self._reloads):
            _ = series[(model,)]
        for outcome in ("hit", "miss"):
            _ = self._cache[model, outcome]

    def answered(self, model: str, route: str, status: int, seconds: float) -> None:
        """A request over HTTP is over."""
        self._requests[model, route, str(status)].inc()
        self._request_seconds[model, route].observe(seconds)

    def predicted(self, model: str, mode: str, outcome: str, seconds: float) -> None:
        """A request to a model is over."""
        outcome = outcome if outcome in ("ok", "cancelled") else _known(outcome)
        self._predictions[model, mode, outcome].inc()
        self._prediction_seconds[model, mode].observe(seconds)
        if outcome in _FAILED:
            self._failures[(model,)].inc()

    def executed(self, batch: BatchRecord) -> None:
        """A call of the model is over."""
        model = (batch.model,)
        self._sizes[model].observe(batch.size)
        self._device_seconds[model].inc(batch.seconds)
        self._cost[model].inc(batch.cost)
        self._padded_cost[model].inc(batch.padded_cost)
        waited = self._queue_seconds[model]
        for seconds in batch.queue_seconds:
            waited.observe(seconds)

    def cached(self, model: str, *, hit: bool) -> None:
        """The cache was asked."""
        self._cache[model, "hit" if hit else "miss"].inc()

    def refused(self, model: str, code: str) -> None:
        """A request was refused before the model saw it."""
        self._refused[model, _known(code)].inc()

    def reloaded(self, model: str) -> None:
        """A model was loaded anew."""
        self._reloads[(model,)].inc()


def _known(code: str) -> str:
    """A code of the schema; one that a backend made up must not make new series."""
    return code if code in BY_CODE else "internal"
