"""What the engine's events count, whoever holds the model: each request once, by how it ended."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import prometheus_client
import pytest

from sheaf.backends.base import BackendDiedError
from sheaf.cache import CacheConfig
from sheaf.engine import ModelRuntime
from sheaf.local import LocalModels
from sheaf.observability import METRICS, Telemetry
from sheaf.spec import ModelSpec
from sheaf_client import ProblemError, Sheaf
from sheaf_client.errors import DeadlineExceededError, InvalidRequestError, OverloadedError
from tests.conftest import MakeRequest
from tests.echoes import Echo, Fragile, Gated, Stepping
from tests.observability.readings import Readings, eventually


@contextmanager
def held(backend: type[Echo], **spec: Any) -> Iterator[tuple[ModelRuntime, Telemetry]]:
    telemetry = Telemetry()
    models = LocalModels.start(ModelSpec(name="echo", backend_cls=backend, **spec), telemetry)
    runtime = models.get("echo")
    try:
        yield runtime, telemetry
    finally:
        if isinstance(runtime.backend, Gated):
            runtime.backend.gate.set()
        models.stop()


def read(telemetry: Telemetry) -> Readings:
    return Readings(telemetry.exposition().decode())


def predictions(telemetry: Telemetry, outcome: str, mode: str = "predict") -> float:
    return read(telemetry).of("sheaf_predictions_total", model="echo", mode=mode, outcome=outcome)


def test_one_prediction_is_counted_in_every_metric_it_touches(make_request: MakeRequest) -> None:
    with held(Echo) as (runtime, telemetry):
        runtime.predict_now(make_request())
        eventually(lambda: read(telemetry).of("sheaf_batch_size_count", model="echo") == 1)
        now = read(telemetry)
        assert now.of("sheaf_predictions_total", model="echo", mode="predict", outcome="ok") == 1
        assert now.of("sheaf_prediction_duration_seconds_count", model="echo", mode="predict") == 1
        assert now.of("sheaf_prediction_duration_seconds_sum", model="echo", mode="predict") > 0
        assert now.of("sheaf_batch_size_sum", model="echo") == 1
        assert now.of("sheaf_queue_seconds_count", model="echo") == 1
        assert now.of("sheaf_device_seconds_total", model="echo") > 0
        assert now.of("sheaf_batch_cost_total", model="echo") == 1
        assert now.of("sheaf_model_ready", model="echo") == 1
        assert now.of("sheaf_failures_total", model="echo") == 0


def test_series_of_a_model_begin_at_zero_before_its_first_request() -> None:
    with held(Echo, cache=CacheConfig()) as (_, telemetry):
        names = read(telemetry).names
    own = {metric.name for metric in METRICS if metric.labels == ("model",) and metric.kind != "histogram"}
    assert own <= names
    assert {"sheaf_cache_requests_total", "sheaf_batch_size_bucket"} <= names


def test_a_shared_batch_is_one_call_with_its_padding(make_request: MakeRequest) -> None:
    class Padding(Gated):
        padded = True

    with held(Padding) as (runtime, telemetry):
        first = runtime.submit(make_request(0.0, horizon=2))
        assert runtime.backend.entered.wait(10)
        rest = [runtime.submit(make_request(1.0, horizon=horizon)) for horizon in (4, 8)]
        assert read(telemetry).of("sheaf_queue_depth", model="echo") == 2
        runtime.backend.gate.set()
        assert all(future.result(10) for future in [first, *rest])
        eventually(lambda: read(telemetry).of("sheaf_batch_size_sum", model="echo") == 3)
        now = read(telemetry)
        assert now.of("sheaf_queue_depth", model="echo") == 0
        assert now.of("sheaf_batch_size_count", model="echo") == 2
        assert now.of("sheaf_batch_size_bucket", model="echo", le="1.0") == 1
        assert now.of("sheaf_batch_size_bucket", model="echo", le="2.0") == 2
        assert now.of("sheaf_queue_seconds_count", model="echo") == 3
        assert now.of("sheaf_batch_cost_total", model="echo") == 2 + 4 + 8
        assert now.of("sheaf_batch_padded_cost_total", model="echo") == 2 + 8 + 8


def test_failures_and_refusals_are_told_apart(make_request: MakeRequest) -> None:
    with held(Fragile) as (runtime, telemetry):
        with pytest.raises(ProblemError):
            runtime.predict_now(make_request(666.0))
        with pytest.raises(InvalidRequestError):
            runtime.predict_now(make_request(13.0))
        feature = {"feature_view": "v", "feature_name": "f", "entity_key": "id", "entity_value": "1"}
        with pytest.raises(InvalidRequestError):
            runtime.predict_now(make_request(feature_ref=feature, history=None))
        now = read(telemetry)
        assert now.of("sheaf_failures_total", model="echo") == 1
        assert now.of("sheaf_predictions_total", model="echo", mode="predict", outcome="backend_failed") == 1
        assert now.of("sheaf_predictions_total", model="echo", mode="predict", outcome="invalid") == 2
        assert now.of("sheaf_refused_total", model="echo", code="invalid") == 1
        assert now.total("sheaf_refused_total") == 1


def test_a_full_line_counts_its_refusals(make_request: MakeRequest) -> None:
    with held(Gated, batch_policy={"max_queue": 1}) as (runtime, telemetry):
        first = runtime.submit(make_request())
        assert runtime.backend.entered.wait(10)
        second = runtime.submit(make_request())
        with pytest.raises(OverloadedError):
            runtime.submit(make_request())
        assert read(telemetry).of("sheaf_refused_total", model="echo", code="overloaded") == 1
        assert predictions(telemetry, "overloaded") == 1
        runtime.backend.gate.set()
        assert first.result(10)
        assert second.result(10)
        assert read(telemetry).total("sheaf_predictions_total") == 3


def test_callers_that_leave_and_deadlines_that_pass_are_counted_once(make_request: MakeRequest) -> None:
    with held(Gated) as (runtime, telemetry):
        first = runtime.submit(make_request())
        assert runtime.backend.entered.wait(10)
        left = runtime.submit(make_request())
        left.cancel()
        with pytest.raises(DeadlineExceededError):
            runtime.predict_now(make_request(), timeout=0.01)
        with pytest.raises(DeadlineExceededError):
            asyncio.run(runtime.predict(make_request(), timeout=0.01))
        assert predictions(telemetry, "cancelled") == 1
        assert predictions(telemetry, "deadline_exceeded") == 2
        runtime.backend.gate.set()
        first.result(10)
    assert read(telemetry).total("sheaf_predictions_total") == 4


def test_a_stream_is_counted_when_it_ends_by_how_it_ended(make_request: MakeRequest) -> None:
    seen = threading.Event()

    class Held(Stepping):
        def stream(self, request: Any) -> Iterator[Any]:
            for event in super().stream(request):
                yield event
                assert seen.wait(20), "the test never looked"

    with held(Held) as (runtime, telemetry):
        events = runtime.iter_stream(make_request(horizon=3))
        next(events)
        assert read(telemetry).total("sheaf_predictions_total") == 0
        seen.set()
        assert len(list(events)) == 3
        assert predictions(telemetry, "ok", "stream") == 1
        left = runtime.iter_stream(make_request(horizon=1000))
        next(left)
        left.close()
        assert predictions(telemetry, "cancelled", "stream") == 1
        assert read(telemetry).total("sheaf_predictions_total") == 2


def test_a_stream_that_fails_or_is_late_is_counted_as_that(make_request: MakeRequest) -> None:
    class Failing(Stepping):
        def stream(self, request: Any) -> Iterator[Any]:
            yield from ()
            raise RuntimeError("secret")

    with held(Failing) as (runtime, telemetry):
        with pytest.raises(ProblemError):
            list(runtime.iter_stream(make_request()))
        assert predictions(telemetry, "backend_failed", "stream") == 1
        assert read(telemetry).of("sheaf_failures_total", model="echo") == 1
    with held(Gated) as (runtime, telemetry):
        with pytest.raises(DeadlineExceededError):
            list(runtime.iter_stream(make_request(), timeout=0.01))
        assert predictions(telemetry, "deadline_exceeded", "stream") == 1


def test_cache_hits_are_counted_and_what_is_kept_is_measured(make_request: MakeRequest) -> None:
    with held(Echo, cache=CacheConfig()) as (runtime, telemetry):
        runtime.predict_now(make_request(1.0, seed=0))
        runtime.predict_now(make_request(1.0, seed=0))
        runtime.predict_now(make_request(2.0, seed=0))
        now = read(telemetry)
        assert now.of("sheaf_cache_requests_total", model="echo", outcome="hit") == 1
        assert now.of("sheaf_cache_requests_total", model="echo", outcome="miss") == 2
        assert now.of("sheaf_predictions_total", model="echo", mode="predict", outcome="ok") == 3
        assert runtime.cache is not None
        assert now.of("sheaf_cache_bytes", model="echo") == runtime.cache.size > 0


class Mortal(Echo):
    """Dies of 7."""

    def batch_predict(self, requests: Any) -> Any:
        if requests[0].history[-1] == 7:
            raise BackendDiedError("the device is gone")
        return super().batch_predict(requests)


def test_a_model_that_dies_is_counted_as_loaded_anew(make_request: MakeRequest) -> None:
    with held(Mortal) as (runtime, telemetry):
        with pytest.raises(ProblemError):
            runtime.predict_now(make_request(7.0))
        assert runtime.predict_now(make_request(1.0)).mean == [1.0, 1.0]
        now = read(telemetry)
        assert now.of("sheaf_reloads_total", model="echo") == 2
        assert now.of("sheaf_failures_total", model="echo") == 1
        assert now.of("sheaf_predictions_total", model="echo", mode="predict", outcome="backend_failed") == 1


def test_a_code_that_a_backend_made_up_makes_no_series(make_request: MakeRequest) -> None:
    class OddError(ProblemError):
        code = "zzz-made-up"

    class Inventive(Echo):
        def check(self, request: Any) -> None:
            raise OddError("no")

    with held(Inventive) as (runtime, telemetry):
        with pytest.raises(OddError):
            runtime.predict_now(make_request())
        assert predictions(telemetry, "internal") == 1
        assert "zzz-made-up" not in telemetry.exposition().decode()


def test_a_local_client_counts_into_the_registry_of_the_process(make_request: MakeRequest) -> None:
    def now() -> Readings:
        return Readings(prometheus_client.generate_latest().decode())

    spec = ModelSpec(name="at-home", backend_cls=Echo)
    with Sheaf.local([spec]) as client:
        requests = [make_request(float(n), model_name="at-home") for n in range(3)]
        assert len(client.time_series.forecast_many(requests)) == 3
        client.time_series.forecast(model="at-home", history=[1.0], horizon=1, frequency="1h")
        assert now().of("sheaf_predictions_total", model="at-home", mode="predict", outcome="ok") == 4
        assert now().of("sheaf_model_ready", model="at-home") == 1
    assert not now().has("sheaf_model_ready", model="at-home")
