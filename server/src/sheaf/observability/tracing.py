"""Spans by OpenTelemetry, where the program uses it; without it nothing is imported and nothing happens.

sheaf.predict         one for each request, in its caller's trace
sheaf.backend.infer   its call of the model, with links to those that shared the batch
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sheaf.engine.observer import BatchRecord
from sheaf.extras import install_command

if TYPE_CHECKING:
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanContext, Tracer

log = logging.getLogger("sheaf.tracing")

#: Most links of one span: what is linked is a sample of a large batch.
MAX_LINKS = 32
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class _Made:
    """The tracer of the provider that is set up."""

    provider: Any = None
    tracer: Tracer | None = None


def tracer() -> Tracer | None:
    """The tracer; None where no part of the program has set OpenTelemetry up."""
    api: Any = sys.modules.get("opentelemetry.trace")
    if api is None:
        return None
    provider = api.get_tracer_provider()
    if provider is not _Made.provider:
        if isinstance(provider, api.ProxyTracerProvider):
            return None
        _Made.tracer, _Made.provider = provider.get_tracer("sheaf"), provider
    return _Made.tracer


def start_request(headers: Sequence[tuple[bytes, bytes]], path: str) -> Span | None:
    """The span of a request over HTTP, in the trace of whoever sent it; None where no traces are kept."""
    maker = tracer()
    if maker is None:
        return None
    from opentelemetry import propagate, trace

    sent = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    # A span that is current already is another instrumentation's of the same request.
    around = trace.get_current_span().get_span_context().is_valid
    return maker.start_span(
        "sheaf.batch" if path.endswith("/batch") else "sheaf.predict",
        context=None if around else propagate.extract(sent),
        kind=trace.SpanKind.INTERNAL if around else trace.SpanKind.SERVER,
        attributes={"http.request.method": "POST"},
    )


def end_request(span: Span, route: str, status: int, code: str | None) -> None:
    """The answer of a request over HTTP is whole, or its client has left."""
    if span.is_recording():
        span.set_attributes({"sheaf.route": route, "http.response.status_code": status})
        if code is not None:
            span.set_attribute("sheaf.outcome", code)
        if status >= 400:
            mark_failed(span, code or str(status), status)
    span.end()


def enter(span: Span) -> Token[Context]:
    """Make a span the current one, until `leave`."""
    from opentelemetry import context, trace

    return context.attach(trace.set_span_in_context(span))


def leave(token: Token[Context]) -> None:
    """The span that was current before is current again."""
    from opentelemetry import context

    context.detach(token)


@contextmanager
def child(name: str, parent: Span | None) -> Generator[None]:
    """A span for a part of the work; an error inside of it is told by its class alone."""
    maker = tracer()
    if maker is None or parent is None:
        yield
        return
    from opentelemetry import trace

    span = maker.start_span(name, context=trace.set_span_in_context(parent))
    token = enter(span)
    try:
        yield
    except Exception as error:
        mark_failed(span, str(getattr(error, "code", type(error).__name__)), 500)
        raise
    finally:
        leave(token)
        span.end()


def mark_failed(span: Span, code: str, status: int) -> None:
    """Note an error by its code; what the fault of the caller is, is no error of this span."""
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("error.type", code)
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR, code))


def record_batch(tracer: Tracer, batch: BatchRecord, spans: Sequence[Span | None]) -> None:
    """A span for each member's part in a call of the model that is over, with links among the members."""
    contexts = [None if span is None else span.get_span_context() for span in spans]
    if not any(context is not None and context.trace_flags.sampled for context in contexts):
        return
    from opentelemetry import trace

    ended = int(batch.ended * 1e9)
    started = ended - int(batch.seconds * 1e9)
    links = [trace.Link(context) for context in contexts[: MAX_LINKS + 1] if context is not None]
    for span, context, waited in zip(spans, contexts, batch.queue_seconds, strict=True):
        if span is None or context is None or not context.trace_flags.sampled:
            continue
        tracer.start_span(
            "sheaf.backend.infer",
            context=trace.set_span_in_context(span),
            links=[link for link in links if link.context is not context][:MAX_LINKS],
            attributes={
                "sheaf.model": batch.model,
                "sheaf.batch_size": batch.size,
                "sheaf.batch_cost": batch.cost,
                "sheaf.batch_padded_cost": batch.padded_cost,
                "sheaf.queue_seconds": waited,
            },
            start_time=started,
        ).end(end_time=ended)


def current_ids() -> tuple[str, str] | None:
    """Identifiers of the current trace and span, in hexadecimal; None where there is none."""
    api: Any = sys.modules.get("opentelemetry.trace")
    if api is None:
        return None
    context: SpanContext = api.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


def start_tracing() -> None:
    """Send spans where OpenTelemetry's variables say; does nothing where they do not, or it is set up."""
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning("no traces are sent: %s", install_command("otel"))
        return
    if tracer() is not None:
        return
    name = os.environ.get("OTEL_SERVICE_NAME") or "sheaf"
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def flush_traces(seconds: float) -> None:
    """Send the spans that wait to be sent, where some do."""
    flush = getattr(_Made.provider, "force_flush", None)
    if flush is not None:
        flush(int(1000 * seconds))
