"""The engine on a steerable backend: batching, faults, limits, deadlines, cancellation, streams."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from sheaf.api.time_series import TimeSeriesRequest
from sheaf.engine import ModelRuntime
from sheaf.spec import ModelSpec
from sheaf_client import ProgressEvent, ResultEvent
from sheaf_client.errors import (
    BackendError,
    DeadlineExceededError,
    InvalidRequestError,
    OverloadedError,
    UnavailableError,
)
from tests.conftest import MakeRequest
from tests.echoes import Broken, Echo, Fragile, Gated, NotANumber, Stepping
from tests.engine.harness import block, running


def test_batches_form_while_the_model_is_busy(make_request: MakeRequest) -> None:
    with running(Gated, max_batch_size=4) as (runtime, backend):
        first = block(runtime, backend, make_request)
        rest = [runtime.submit(make_request(float(i))) for i in range(1, 7)]
        backend.gate.set()
        answers = [f.result(10) for f in [first, *rest]]
    assert [a.mean[0] for a in answers] == [0, 1, 2, 3, 4, 5, 6]
    assert backend.sizes == [1, 4, 2]
    assert [a.metadata.usage.batch_size for a in answers] == [1, 4, 4, 4, 4, 2, 2]
    assert all(a.request_id == r.request_id for a, r in zip(answers[1:5], backend.batches[1], strict=True))


def test_a_single_request_does_not_wait_for_company(make_request: MakeRequest) -> None:
    with running(Echo, timeout_ms=60_000, wait="busy") as (runtime, _):
        assert runtime.predict_now(make_request(5.0), timeout=20).mean == [5, 5]


@pytest.mark.parametrize("policy", [{"wait": "always"}, {}], ids=["asked for", "by its length alone"])
def test_the_fixed_window_gathers_what_comes_within_it(
    make_request: MakeRequest, policy: dict[str, Any]
) -> None:
    with running(Echo, timeout_ms=400, **policy) as (runtime, backend):
        futures = [runtime.submit(make_request(float(i))) for i in range(3)]
        assert [f.result(10).mean[0] for f in futures] == [0, 1, 2]
    assert backend.sizes == [3]


def test_keys_and_buckets_keep_requests_apart(make_request: MakeRequest) -> None:
    with running(Gated, bucket_by="horizon") as (runtime, backend):
        block(runtime, backend, make_request)
        asked = [(1, "x"), (2, "x"), (1, "x"), (1, "y")]
        futures = [runtime.submit(make_request(horizon=h, static_covariates={"key": k})) for h, k in asked]
        backend.gate.set()
        for future in futures:
            future.result(10)
    groups = [[(r.horizon, r.static_covariates["key"]) for r in batch] for batch in backend.batches[1:]]
    assert groups == [[(1, "x"), (1, "x")], [(2, "x")], [(1, "y")]]


def test_costs_bound_a_batch(make_request: MakeRequest) -> None:
    with running(Gated, max_batch_cost=5) as (runtime, backend):
        block(runtime, backend, make_request)
        futures = [runtime.submit(make_request(horizon=h)) for h in (3, 2, 4, 9, 1)]
        backend.gate.set()
        for future in futures:
            future.result(10)
    assert [[r.horizon for r in batch] for batch in backend.batches[1:]] == [[3, 2], [4, 1], [9]]


@pytest.mark.parametrize("position", range(7))
def test_a_fault_stays_with_its_request(make_request: MakeRequest, position: int) -> None:
    values = [float(i) for i in range(7)]
    values[position] = 666.0
    with running(Fragile, timeout_ms=300, wait="always", max_batch_size=7) as (runtime, _):
        futures = [runtime.submit(make_request(v)) for v in values]
        for value, future in zip(values, futures, strict=True):
            if value == 666:
                with pytest.raises(BackendError) as caught:
                    future.result(10)
                assert "secret" not in str(caught.value)
                assert isinstance(caught.value.__cause__, RuntimeError)
            else:
                assert future.result(10).mean[0] == value
        assert runtime.predict_now(make_request(3.0), timeout=10).mean[0] == 3


def test_a_backend_can_refuse_one_request_of_a_batch(make_request: MakeRequest) -> None:
    with running(Fragile, timeout_ms=300, wait="always", max_batch_size=3) as (runtime, backend):
        futures = [runtime.submit(make_request(v)) for v in (1.0, 13.0, 2.0)]
        assert futures[0].result(10).mean[0] == 1
        with pytest.raises(InvalidRequestError, match="Thirteen"):
            futures[1].result(10)
        assert futures[2].result(10).mean[0] == 2
    assert backend.sizes == [3]


def test_a_result_that_is_no_number_is_an_error(make_request: MakeRequest) -> None:
    with running(NotANumber) as (runtime, _), pytest.raises(BackendError, match="breaks its contract"):
        runtime.predict_now(make_request(), timeout=10)


def test_an_answer_to_another_request_is_an_error(make_request: MakeRequest) -> None:
    class Swapped(Echo):
        def batch_predict(self, requests: Any) -> Any:
            return super().batch_predict(requests)[::-1]

    with running(Swapped, timeout_ms=300, wait="always", max_batch_size=2) as (runtime, _):
        futures = [runtime.submit(make_request(v)) for v in (1.0, 2.0)]
        for future in futures:
            with pytest.raises(BackendError):
                future.result(10)


def test_too_few_answers_are_an_error_and_nobody_hangs(make_request: MakeRequest) -> None:
    class Forgetful(Echo):
        def batch_predict(self, requests: Any) -> Any:
            return super().batch_predict(requests)[1:]

    with running(Forgetful, timeout_ms=300, wait="always", max_batch_size=2) as (runtime, _):
        futures = [runtime.submit(make_request(v)) for v in (1.0, 2.0)]
        for future in futures:
            with pytest.raises(BackendError):
                future.result(10)


def test_over_the_limit_is_refused_at_once_with_a_hint(make_request: MakeRequest) -> None:
    with running(Gated, max_queue=2) as (runtime, backend):
        block(runtime, backend, make_request)
        waiting = [runtime.submit(make_request(float(i))) for i in (1, 2)]
        with pytest.raises(OverloadedError) as caught:
            runtime.submit(make_request())
        assert caught.value.retry_after is not None
        assert caught.value.retry_after > 0
        backend.gate.set()
        assert [f.result(10).mean[0] for f in waiting] == [1, 2]


def test_a_caller_who_left_frees_its_place(make_request: MakeRequest) -> None:
    with running(Gated, max_queue=1) as (runtime, backend):
        block(runtime, backend, make_request)
        left = runtime.submit(make_request(7.0))
        assert runtime.depth == 1
        assert left.cancel()
        assert runtime.depth == 0
        stayed = runtime.submit(make_request(8.0))
        backend.gate.set()
        assert stayed.result(10).mean[0] == 8
    assert [r.history[-1] for batch in backend.batches for r in batch] == [0, 8]


def test_what_expires_in_line_never_runs(make_request: MakeRequest) -> None:
    with running(Gated) as (runtime, backend):
        block(runtime, backend, make_request)
        late = runtime.submit(make_request(7.0), timeout=0.05)
        fine = runtime.submit(make_request(8.0), timeout=30)
        time.sleep(0.1)
        backend.gate.set()
        with pytest.raises(DeadlineExceededError):
            late.result(10)
        assert fine.result(10).mean[0] == 8
    assert [r.history[-1] for batch in backend.batches for r in batch] == [0, 8]


def test_the_expired_hold_no_place_against_the_living(make_request: MakeRequest) -> None:
    with running(Gated, max_queue=1) as (runtime, backend):
        block(runtime, backend, make_request)
        late = runtime.submit(make_request(7.0), timeout=0.02)
        time.sleep(0.05)
        fine = runtime.submit(make_request(8.0))
        backend.gate.set()
        assert fine.result(10).mean[0] == 8
        with pytest.raises(DeadlineExceededError):
            late.result(10)


def test_the_deadline_holds_while_the_model_is_at_work(make_request: MakeRequest) -> None:
    with running(Gated) as (runtime, backend):
        with pytest.raises(DeadlineExceededError):
            runtime.predict_now(make_request(), timeout=0.05)

        async def ask() -> None:
            with pytest.raises(DeadlineExceededError):
                await runtime.predict(make_request(), timeout=0.05)

        asyncio.run(ask())
        backend.gate.set()


def test_cancelling_an_awaiting_caller_frees_its_place(make_request: MakeRequest) -> None:
    with running(Gated) as (runtime, backend):
        block(runtime, backend, make_request)

        async def leave() -> None:
            task = asyncio.create_task(runtime.predict(make_request(9.0)))
            while runtime.depth == 0:
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(leave())
        assert runtime.depth == 0
        backend.gate.set()


def test_predict_many_answers_or_refuses_each(make_request: MakeRequest) -> None:
    with running(Fragile) as (runtime, _):
        outcomes = asyncio.run(runtime.predict_many([make_request(v) for v in (1.0, 666.0, 13.0, 4.0)]))
    assert [type(o).__name__ for o in outcomes] == [
        "TimeSeriesResponse",
        "BackendError",
        "InvalidRequestError",
        "TimeSeriesResponse",
    ]


def test_one_thread_alone_touches_the_model(make_request: MakeRequest) -> None:
    with running(Stepping) as (runtime, backend):
        futures = [runtime.submit(make_request(float(i))) for i in range(20)]
        events = list(runtime.iter_stream(make_request(5.0, horizon=3)))
        for future in futures:
            future.result(10)
    assert len(backend.threads) == 1
    assert threading.get_ident() not in backend.threads
    assert isinstance(events[-1], ResultEvent)


def test_predictions_run_between_the_steps_of_a_stream(make_request: MakeRequest) -> None:
    with running(Stepping, kwargs={"seconds": 0.05}) as (runtime, backend):
        stream = runtime.iter_stream(make_request(horizon=20))
        assert isinstance(next(stream), ProgressEvent)
        runtime.predict_now(make_request(2.0), timeout=10)
        assert backend.steps_taken < 20
        events = list(stream)
    assert [e.step for e in events if isinstance(e, ProgressEvent)] == list(range(2, 21))
    assert events[-1].response.mean == [1.0] * 20


def test_leaving_a_stream_ends_its_work(make_request: MakeRequest) -> None:
    with running(Stepping, kwargs={"seconds": 0.01}) as (runtime, backend):
        stream = runtime.iter_stream(make_request(horizon=1000))
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        assert backend.closed.wait(10)
        assert backend.steps_taken < 1000
        assert runtime.predict_now(make_request(2.0), timeout=10).mean == [2, 2]


def test_an_async_stream_gives_the_same_events(make_request: MakeRequest) -> None:
    async def collect() -> list[Any]:
        return [event async for event in runtime.stream(make_request(4.0, horizon=3))]

    with running(Stepping) as (runtime, _):
        events = asyncio.run(collect())
    assert [getattr(e, "step", None) for e in events] == [1, 2, 3, None]
    assert events[-1].response.mean == [4.0] * 3


def test_a_model_without_steps_streams_its_one(make_request: MakeRequest) -> None:
    with running(Echo) as (runtime, _):
        events = list(runtime.iter_stream(make_request(4.0)))
    assert [e.type for e in events] == ["progress", "result"]


def test_a_stream_that_fails_raises_where_it_is_read(make_request: MakeRequest) -> None:
    class Dying(Stepping):
        def stream(self, request: Any) -> Any:
            yield ProgressEvent(step=1, total_steps=2)
            raise RuntimeError("secret")

    with running(Dying) as (runtime, _):
        stream = runtime.iter_stream(make_request())
        next(stream)
        with pytest.raises(BackendError) as caught:
            next(stream)
        assert "secret" not in str(caught.value)
        assert runtime.predict_now(make_request(2.0), timeout=10).mean == [2, 2]


def test_stopping_answers_what_waits_and_refuses_what_comes(make_request: MakeRequest) -> None:
    with running(Echo, kwargs={"seconds": 0.05}, max_batch_size=1) as (runtime, backend):
        futures = [runtime.submit(make_request(float(i))) for i in range(4)]
        runtime.stop()
        assert [f.result(0).mean[0] for f in futures] == [0, 1, 2, 3]
        assert backend.unloaded
        with pytest.raises(UnavailableError):
            runtime.submit(make_request())


def test_stopping_without_draining_refuses_what_waits(make_request: MakeRequest) -> None:
    with running(Gated) as (runtime, backend):
        first = block(runtime, backend, make_request)
        waiting = runtime.submit(make_request(1.0))
        stopper = threading.Thread(target=lambda: runtime.stop(drain=False))
        stopper.start()
        with pytest.raises(UnavailableError):
            waiting.result(10)
        backend.gate.set()
        stopper.join(10)
        assert first.result(0).mean == [0, 0]


def test_a_model_that_cannot_be_loaded_says_why() -> None:
    runtime = ModelRuntime(ModelSpec(name="echo", backend_cls=Broken))
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        runtime.start()
    assert not runtime.ready


def test_a_mistake_in_a_check_is_told_as_the_models_own(make_request: MakeRequest) -> None:
    class Careless(Echo):
        def check(self, request: TimeSeriesRequest) -> None:
            raise KeyError("secret")

    with running(Careless) as (runtime, _), pytest.raises(BackendError) as caught:
        runtime.submit(make_request())
    assert "secret" not in str(caught.value)
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_feature_reference_needs_a_feature_store(make_request: MakeRequest) -> None:
    reference = {"feature_view": "v", "feature_name": "n", "entity_key": "k", "entity_value": "e"}
    with running(Echo) as (runtime, _), pytest.raises(InvalidRequestError) as caught:
        runtime.submit(make_request(history=None, feature_ref=reference))
    assert [(f.code, f.path) for f in caught.value.errors] == [("no_feature_store", "/feature_ref")]


def test_stopping_waits_for_no_window(make_request: MakeRequest, caplog: pytest.LogCaptureFixture) -> None:
    for window in (60_000, 70_000.3, 80_000.7):
        with running(Echo, wait="always", timeout_ms=window) as (runtime, backend):
            futures = [runtime.submit(make_request(float(i))) for i in range(3)]
            runtime.stop()
            assert [f.result(0).mean[0] for f in futures] == [0, 1, 2]
            assert backend.sizes == [3]
    assert not caplog.records


def test_the_steps_of_a_stream_wait_for_no_window(make_request: MakeRequest) -> None:
    with running(Stepping, wait="always", timeout_ms=60_000) as (runtime, _):
        events = list(runtime.iter_stream(make_request(horizon=3), timeout=20))
    assert [e.type for e in events] == ["progress"] * 3 + ["result"]
