"""Traces: each request in its caller's trace, its call of the model below, and no word of an error's text."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from sheaf.cache import CacheConfig
from sheaf.embedded import EmbeddedServer
from sheaf.local import LocalModels
from sheaf.observability import Telemetry
from sheaf.spec import ModelSpec
from sheaf_client import AsyncSheaf, ProblemError, Sheaf
from tests.conftest import MakeRequest
from tests.echoes import Echo, Gated
from tests.observability.conftest import GOOD, gated

CALL: dict[str, Any] = {"history": [1.0, 2.0], "horizon": 2, "frequency": "1h"}


class Arrivals(SpanProcessor):
    """Lets a test wait for spans to end."""

    def __init__(self) -> None:
        self._changed = threading.Condition()

    def on_end(self, span: ReadableSpan) -> None:
        with self._changed:
            self._changed.notify_all()

    def wait(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, 10), "the spans never came"


class Spans:
    """What was exported since the test began."""

    def __init__(self, exporter: InMemorySpanExporter, arrivals: Arrivals) -> None:
        self._exporter, self._arrivals = exporter, arrivals

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def wait(self, name: str, count: int = 1) -> list[ReadableSpan]:
        """The spans of that name; there are just so many."""
        self._arrivals.wait(lambda: len(self.named(name)) >= count)
        found = self.named(name)
        assert len(found) == count
        return found


@pytest.fixture(scope="module")
def provider() -> Iterator[tuple[TracerProvider, Spans]]:
    """OpenTelemetry as a program sets it up, once for its process."""
    made, exporter, arrivals = TracerProvider(), InMemorySpanExporter(), Arrivals()
    made.add_span_processor(SimpleSpanProcessor(exporter))
    made.add_span_processor(arrivals)
    trace.set_tracer_provider(made)
    assert trace.get_tracer_provider() is made, "another test has set a provider in this process"
    yield made, Spans(exporter, arrivals)
    made.shutdown()


@pytest.fixture
def spans(provider: tuple[TracerProvider, Spans]) -> Spans:
    provider[1]._exporter.clear()
    return provider[1]


def outer(name: str = "caller") -> Any:
    return trace.get_tracer("test").start_as_current_span(name)


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def identity(span: ReadableSpan) -> tuple[int, int]:
    assert span.context is not None
    return span.context.trace_id, span.context.span_id


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def forecast(client: Sheaf, model: str = "echo", **fields: Any) -> Any:
    return client.time_series.forecast(model=model, **{**CALL, **fields})


def test_a_clients_call_over_http_is_one_trace(server: EmbeddedServer, spans: Spans) -> None:
    with Sheaf(server.url) as client, outer() as caller:
        answer = forecast(client)
    (predict,) = spans.wait("sheaf.predict")
    (infer,) = spans.wait("sheaf.backend.infer")
    sent = caller.get_span_context()
    assert parent_of(predict) == sent.span_id
    assert parent_of(infer) == identity(predict)[1]
    assert identity(predict)[0] == identity(infer)[0] == sent.trace_id
    assert predict.kind is SpanKind.SERVER
    told = attributes(predict)
    assert told["sheaf.model"] == "echo"
    assert told["sheaf.model_type"] == "time_series"
    assert told["sheaf.outcome"] == "ok"
    assert told["sheaf.cache_hit"] is False
    assert told["sheaf.batch_size"] == 1
    assert told["sheaf.route"] == "operation"
    assert told["http.response.status_code"] == 200
    assert told["sheaf.request_id"] == str(answer.request_id)
    assert attributes(infer)["sheaf.batch_size"] == 1
    assert attributes(infer)["sheaf.queue_seconds"] >= 0


def test_a_foreign_traceparent_is_honoured(server: EmbeddedServer, http: httpx.Client, spans: Spans) -> None:
    header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    http.post("/echo/predict", json=GOOD, headers={"traceparent": header})
    (predict,) = spans.wait("sheaf.predict")
    assert parent_of(predict) == 0x00F067AA0BA902B7
    assert identity(predict)[0] == 0x4BF92F3577B34DA6A3CE929D0E0E4736


def test_a_caller_that_is_not_sampled_leaves_no_spans(
    server: EmbeddedServer, http: httpx.Client, spans: Spans
) -> None:
    header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
    http.post("/echo/predict", json=GOOD, headers={"traceparent": header})
    http.post("/echo/predict", json=GOOD)
    (predict,) = spans.wait("sheaf.predict")
    assert parent_of(predict) is None
    spans.wait("sheaf.backend.infer")


def test_local_calls_are_below_the_current_span(spans: Spans) -> None:
    with Sheaf.local([ModelSpec(name="echo", backend_cls=Echo)]) as client:
        with outer() as caller:
            forecast(client)
        (predict,) = spans.wait("sheaf.predict")
        assert parent_of(predict) == caller.get_span_context().span_id
        assert predict.kind is SpanKind.INTERNAL
        (infer,) = spans.wait("sheaf.backend.infer")
        assert parent_of(infer) == identity(predict)[1]


def test_times_of_a_model_call_are_those_of_the_call(spans: Spans) -> None:
    spec = ModelSpec(name="echo", backend_cls=Echo, backend_kwargs={"seconds": 0.05})
    with Sheaf.local([spec]) as client:
        before = time.time_ns()
        forecast(client)
        (infer,) = spans.wait("sheaf.backend.infer")
        after = time.time_ns()
    assert infer.start_time is not None
    assert infer.end_time is not None
    assert before <= infer.start_time < infer.end_time <= after
    assert infer.end_time - infer.start_time >= 50_000_000


def test_callers_of_different_traces_share_a_batch_and_are_linked(
    make_request: MakeRequest, spans: Spans
) -> None:
    models = LocalModels.start(ModelSpec(name="gated", backend_cls=Gated), Telemetry())
    runtime = models.get("gated")
    first = runtime.submit(make_request(0.0))
    assert runtime.backend.entered.wait(10)
    callers = []
    waiting = []
    for n in range(3):
        with outer(f"caller {n}") as caller:
            callers.append(caller.get_span_context())
            waiting.append(runtime.submit(make_request(float(n))))
    runtime.backend.gate.set()
    assert all(future.result(10) for future in [first, *waiting])
    models.stop()

    predicts = {identity(span)[0]: span for span in spans.wait("sheaf.predict", 4)}
    infers = {identity(span)[0]: span for span in spans.wait("sheaf.backend.infer", 4)}
    members = {identity(predicts[caller.trace_id]) for caller in callers}
    assert len({caller.trace_id for caller in callers}) == 3
    for caller in callers:
        predict, infer = predicts[caller.trace_id], infers[caller.trace_id]
        assert parent_of(predict) == caller.span_id
        assert parent_of(infer) == identity(predict)[1]
        assert attributes(infer)["sheaf.batch_size"] == 3
        linked = {(link.context.trace_id, link.context.span_id) for link in infer.links}
        assert linked == members - {identity(predict)}
    assert len({(span.start_time, span.end_time) for span in infers.values()}) == 2


def test_each_item_of_a_batch_has_its_span_below_the_requests(
    server: EmbeddedServer, make_request: MakeRequest, spans: Spans
) -> None:
    with Sheaf(server.url) as client, outer() as caller:
        client.time_series.forecast_many([make_request(float(n)) for n in range(3)])
    (batch,) = spans.wait("sheaf.batch")
    predicts = spans.wait("sheaf.predict", 3)
    assert parent_of(batch) == caller.get_span_context().span_id
    assert {parent_of(span) for span in predicts} == {identity(batch)[1]}


def test_a_stream_is_one_request_with_a_span_for_each_step(server: EmbeddedServer, spans: Spans) -> None:
    asked = {**CALL, "horizon": 3}
    with (
        Sheaf(server.url) as client,
        outer() as caller,
        client.time_series.stream(model="steps", **asked) as stream,
    ):
        assert len(list(stream)) == 4
    (predict,) = spans.wait("sheaf.predict")
    assert parent_of(predict) == caller.get_span_context().span_id
    assert attributes(predict)["sheaf.mode"] == "stream"
    steps = spans.wait("sheaf.backend.infer", 4)
    assert {parent_of(step) for step in steps} == {identity(predict)[1]}


def test_an_asynchronous_client_hands_its_trace_on_too(server: EmbeddedServer, spans: Spans) -> None:
    async def call() -> int:
        async with AsyncSheaf(server.url) as client:
            with outer() as caller:
                await client.time_series.forecast(model="echo", **CALL)
            span_id: int = caller.get_span_context().span_id
            return span_id

    span_id = asyncio.run(call())
    (predict,) = spans.wait("sheaf.predict")
    assert parent_of(predict) == span_id


def test_headers_of_the_callers_own_go_before_those_of_its_span(server: EmbeddedServer, spans: Spans) -> None:
    header = {"TraceParent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    with Sheaf(server.url) as client, outer():
        client.time_series.forecast(model="echo", extra_headers=header, **CALL)
    (predict,) = spans.wait("sheaf.predict")
    assert parent_of(predict) == 0x00F067AA0BA902B7


def test_errors_are_told_by_their_code_and_never_by_their_text(server: EmbeddedServer, spans: Spans) -> None:
    with Sheaf(server.url, max_retries=0) as client, pytest.raises(ProblemError):
        forecast(client, "fragile", history=[666.0])
    (predict,) = spans.wait("sheaf.predict")
    assert predict.status.status_code is StatusCode.ERROR
    assert attributes(predict)["error.type"] == "backend_failed"
    assert attributes(predict)["sheaf.outcome"] == "backend_failed"
    (infer,) = spans.wait("sheaf.backend.infer")
    for span in (predict, infer):
        assert span.events == ()
        assert "secret" not in span.to_json()


def test_what_never_reached_the_engine_has_a_span_too(
    server: EmbeddedServer, http: httpx.Client, spans: Spans
) -> None:
    http.post("/echo/predict", json={**GOOD, "horizon": 0})
    (predict,) = spans.wait("sheaf.predict")
    assert attributes(predict)["sheaf.outcome"] == "invalid"
    assert attributes(predict)["http.response.status_code"] == 422
    assert predict.status.status_code is StatusCode.UNSET, "the fault is the caller's"
    assert spans.named("sheaf.backend.infer") == []


def test_a_caller_that_leaves_ends_its_span(server: EmbeddedServer, spans: Spans) -> None:
    with httpx.Client(base_url=server.url, timeout=0.3) as client, pytest.raises(httpx.ReadTimeout):
        client.post("/gated/predict", json=GOOD)
    (predict,) = spans.wait("sheaf.predict")
    assert attributes(predict)["sheaf.outcome"] == "cancelled"
    assert attributes(predict)["http.response.status_code"] == 499
    gated(server).gate.set()


def test_a_cache_hit_says_so_and_has_no_model_call(make_request: MakeRequest, spans: Spans) -> None:
    models = LocalModels.start(ModelSpec(name="echo", backend_cls=Echo, cache=CacheConfig()), Telemetry())
    runtime = models.get("echo")
    runtime.predict_now(make_request(seed=0))
    spans.wait("sheaf.backend.infer")
    runtime.predict_now(make_request(seed=0))
    models.stop()
    hits = [attributes(span)["sheaf.cache_hit"] for span in spans.wait("sheaf.predict", 2)]
    assert hits == [False, True]
    spans.wait("sheaf.backend.infer")


def test_a_phase_of_a_request_is_a_span_below_it(make_request: MakeRequest, spans: Spans) -> None:
    telemetry = Telemetry()
    call = telemetry.began("echo", make_request(), streamed=False)
    with telemetry.phase(call, "feast.resolve"):
        pass
    with pytest.raises(RuntimeError), telemetry.phase(call, "feast.resolve"):
        raise RuntimeError("secret")
    telemetry.ended(call, None)
    (predict,) = spans.wait("sheaf.predict")
    good, bad = spans.wait("sheaf.feast.resolve", 2)
    assert parent_of(good) == parent_of(bad) == identity(predict)[1]
    assert good.status.status_code is StatusCode.UNSET
    assert attributes(bad)["error.type"] == "RuntimeError"
    assert "secret" not in bad.to_json()


def test_health_and_metrics_leave_no_spans(server: EmbeddedServer, http: httpx.Client, spans: Spans) -> None:
    for path in ("/echo/health", "/metrics", "/models"):
        http.get(path)
    http.post("/echo/predict", json=GOOD)
    spans.wait("sheaf.backend.infer")
    assert {span.name for span in spans._exporter.get_finished_spans()} == {
        "sheaf.predict",
        "sheaf.backend.infer",
    }
