"""Turns the engine's events into metrics, spans and log lines: one `Telemetry` for each host of models."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, cast
from weakref import WeakSet

import prometheus_client
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from sheaf.engine.observer import BatchRecord, Observer
from sheaf.observability import metrics as m
from sheaf.observability import tracing
from sheaf.observability.context import CURRENT, CurrentRequest
from sheaf_client.contracts.base import BaseRequest, BaseResponse
from sheaf_client.errors import ProblemError

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

    from sheaf.engine import ModelRuntime

log = logging.getLogger("sheaf.calls")


@dataclass(slots=True, eq=False)
class _Call:
    """One request to a model; `owns` its span where that is not the HTTP request's."""

    model: str
    mode: str
    request: BaseRequest
    started: float
    current: CurrentRequest | None
    span: Span | None = None
    owns: bool = False


class Host(Protocol):
    """What holds models by their names; which ones may change."""

    @property
    def runtimes(self) -> Mapping[str, ModelRuntime]: ...


class Telemetry(Observer):
    """Watches models, and keeps what is known of them in a Prometheus registry.

    Args:
        registry: Where the metrics are; one of its own when absent.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        self._hosts: WeakSet[Host] = WeakSet()
        gauges = _Gauges(self._hosts)
        self.registry.register(
            gauges
        )  # first, so that the series of new models are there when theirs are read
        self.metrics = gauges.metrics = m.Metrics(self.registry)

    def watch(self, host: Host) -> None:
        """Tell the state of a host's models, whichever it holds, from now on."""
        self._hosts.add(host)

    def forget(self, host: Host) -> None:
        """Tell the state of a host's models no more; what was counted stays."""
        self._hosts.discard(host)

    def exposition(self, shown: Callable[[str], bool] | None = None) -> bytes:
        """The metrics in Prometheus's text format; with `shown` of those models alone of which it is true."""
        registry = self.registry if shown is None else _Shown(self.registry, shown)
        return generate_latest(cast("CollectorRegistry", registry))

    def began(self, model: str, request: BaseRequest, *, streamed: bool) -> Any:
        current = CURRENT.get()
        call = _Call(model, "stream" if streamed else "predict", request, time.perf_counter(), current)
        if current is not None:
            current.calls += 1
        tracer = tracing.tracer()
        if tracer is not None:
            _begin_span(tracer, call)
        return call

    def ended(self, token: Any, outcome: BaseResponse | ProblemError | None) -> None:
        call: _Call = token
        seconds = time.perf_counter() - call.started
        if isinstance(outcome, ProblemError):
            code = outcome.code
            if call.current is not None and call.mode == "stream":
                call.current.failed = outcome.status
        else:
            code = "cancelled" if outcome is None else "ok"
        self.metrics.predicted(call.model, call.mode, code, seconds)
        if call.span is not None:
            _end_span(call, code, outcome)
        if log.isEnabledFor(logging.DEBUG):
            _log(call, code, seconds)

    def phase(self, token: Any, name: str) -> AbstractContextManager[None]:
        return tracing.child(f"sheaf.{name}", token.span)

    def executed(self, batch: BatchRecord) -> None:
        self.metrics.executed(batch)
        tracer = tracing.tracer()
        if tracer is not None:
            tracing.record_batch(tracer, batch, [token.span for token in batch.tokens])

    def cached(self, model: str, *, hit: bool) -> None:
        self.metrics.cached(model, hit=hit)

    def refused(self, model: str, code: str) -> None:
        self.metrics.refused(model, code)

    def reloaded(self, model: str, reason: str) -> None:
        self.metrics.reloaded(model)
        log.warning("model %s was loaded anew: %s", model, reason, extra={"model": model})


@cache
def process_telemetry() -> Telemetry:
    """The telemetry of models that no server holds, in Prometheus's default registry of this process."""
    return Telemetry(prometheus_client.REGISTRY)


class _Shown(Collector):
    """What a registry has of some models."""

    def __init__(self, registry: CollectorRegistry, shown: Callable[[str], bool]) -> None:
        self._registry, self._shown = registry, shown

    def collect(self) -> Iterator[Family]:
        for family in self._registry.collect():
            some = Family(family.name, family.documentation, family.type, family.unit)
            some.samples = [s for s in family.samples if self._shown(s.labels.get("model", ""))]
            yield some


class _Gauges(Collector):
    """The state of the models, read when somebody asks."""

    metrics: m.Metrics | None = None

    def __init__(self, hosts: WeakSet[Host]) -> None:
        self._hosts = hosts

    def collect(self) -> Iterator[GaugeMetricFamily]:
        depth: dict[str, float] = {}
        ready: dict[str, float] = {}
        kept: dict[str, float] = {}
        contexts: dict[str, float] = {}
        found: dict[str, tuple[int, int]] = {}
        for runtime in [runtime for host in list(self._hosts) for runtime in list(host.runtimes.values())]:
            name = runtime.spec.name
            depth[name] = depth.get(name, 0) + runtime.depth
            ready[name] = min(ready.get(name, 1), float(runtime.ready))
            if runtime.cache is not None:
                kept[name] = kept.get(name, 0) + runtime.cache.size
            held, (hits, misses) = runtime.backend.contexts, found.get(name, (0, 0))
            contexts[name] = contexts.get(name, 0) + held.size
            found[name] = hits + held.hits, misses + held.misses
            if self.metrics is not None:
                self.metrics.expect(name, cached=runtime.cache is not None)
                self.metrics.contexts(name, hits=found[name][0], misses=found[name][1])
        read = (
            (m.QUEUE_DEPTH, depth),
            (m.READY, ready),
            (m.CACHE_BYTES, kept),
            (m.CONTEXT_BYTES, contexts),
        )
        for metric, values in read:
            family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
            for name, value in sorted(values.items()):
                family.add_metric([name], value)
            yield family


def _begin_span(tracer: Tracer, call: _Call) -> None:
    current = call.current
    if current is not None and current.span is not None and current.calls == 1 and current.route != "batch":
        span = current.span
    else:
        span, call.owns = tracer.start_span("sheaf.predict"), True
    call.span = span
    if span.is_recording():
        span.set_attributes(
            {
                "sheaf.model": call.model,
                "sheaf.model_type": call.request.model_type,
                "sheaf.mode": call.mode,
                "sheaf.request_id": str(call.request.request_id),
            }
        )


def _end_span(call: _Call, code: str, outcome: BaseResponse | ProblemError | None) -> None:
    span = call.span
    assert span is not None  # noqa: S101 - asked by the caller
    if span.is_recording():
        span.set_attribute("sheaf.outcome", code)
        if isinstance(outcome, ProblemError):
            tracing.mark_failed(span, code, outcome.status)
        elif outcome is not None and (usage := outcome.metadata.usage) is not None:
            span.set_attributes({"sheaf.cache_hit": usage.cache_hit, "sheaf.batch_size": usage.batch_size})
    if call.owns:
        span.end()


def _log(call: _Call, code: str, seconds: float) -> None:
    facts = {
        "request_id": str(call.request.request_id),
        "model": call.model,
        "outcome": code,
        "seconds": round(seconds, 6),
    }
    log.debug("%s %s %s %.1f ms", call.mode, call.model, code, 1000 * seconds, extra=facts)
