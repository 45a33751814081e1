"""Contexts of tables between requests: fitted once, known by an identifier, bounded, shared by callers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from sheaf.backends._families.tabular.sizes import bytes_of
from sheaf.backends.sklearn import SklearnBackend
from sheaf.embedded import EmbeddedServer
from sheaf.engine import ModelRuntime
from sheaf.spec import ModelSpec
from sheaf_client import Sheaf
from sheaf_client.errors import InvalidRequestError
from tests.backends.tabular.table_cases import (
    ask,
    assert_same,
    cells,
    classes,
    classify,
    fault_of,
    numbers,
    quantiles_of,
    refusal,
    regress,
    values,
)
from tests.observability.readings import scrape

FAST: dict[str, Any] = {"max_iter": 5}
ROWS = numbers(80, gaps=9)


def boosted(**settings: Any) -> SklearnBackend:
    backend = SklearnBackend(**FAST, **settings)
    backend.load()
    return backend


def counts(backend: SklearnBackend) -> tuple[int, int]:
    return backend.contexts.hits, backend.contexts.misses


@pytest.fixture
def runtime() -> Iterator[ModelRuntime]:
    spec = ModelSpec(name="m", backend="sklearn", backend_kwargs=FAST)
    running = ModelRuntime(spec)
    running.start()
    yield running
    running.stop()


def test_equal_rows_are_fitted_once_whoever_sends_them() -> None:
    backend = boosted()
    answers = [backend.predict(classify(numbers(3, seed=i), ROWS.copy())) for i in range(4)]
    assert counts(backend) == (3, 1)
    assert len({answer.context_id for answer in answers}) == 1
    assert [answer.metadata.context_hit for answer in answers] == [False, True, True, True]
    assert [answer.metadata.model_extra for answer in answers] == [{}] * 4  # the schema names all of it


def test_a_batch_fits_each_of_its_contexts_once() -> None:
    backend = boosted()
    contexts = [numbers(40, seed=i) for i in range(3)]
    outcomes = backend.batch_predict([classify(numbers(2), rows) for rows in contexts * 4])
    assert all(not isinstance(outcome, Exception) for outcome in outcomes)
    assert counts(backend) == (0, 3)


def test_an_identifier_stands_for_the_rows() -> None:
    backend, query = boosted(), numbers(5, seed=3)
    for request in (classify(query, ROWS), regress(query, ROWS)):
        first = backend.predict(request)
        fields = {"task": request.task, "output_mode": request.output_mode}
        again = backend.predict(ask(query, context_id=first.context_id, **fields))
        assert_same(again, first, tolerance=0)
        assert again.n_context == 80
        assert again.metadata.context_hit is True


@pytest.mark.parametrize(
    "change",
    [
        {"context_X": [*cells(ROWS)[:-1], [0.0] * 5]},
        {"context_y": [*classes(ROWS)[:-1], "other"]},
        {"categorical_feature_indices": [0]},
        {"feature_names": list("abcde")},
        {"task": "regression", "context_y": values(ROWS), "output_mode": "predictions"},
    ],
)
def test_another_context_has_another_identifier(change: dict[str, Any]) -> None:
    backend, rows = boosted(), np.round(ROWS, 1)
    one = backend.predict(classify(numbers(2), rows))
    other = backend.predict(classify(numbers(2), rows, **change))
    assert one.context_id != other.context_id
    assert counts(backend) == (0, 2)


def test_what_does_not_belong_to_the_context_shares_it() -> None:
    backend = boosted()
    rows = regress(numbers(2), ROWS).context_X
    for fields in ({}, {"quantile_levels": [0.3]}, {"output_mode": "predictions"}, {"model_name": "other"}):
        backend.predict(regress(numbers(2), ROWS, context_X=rows, **fields))
    assert counts(backend) == (3, 1)


def test_an_identifier_that_is_not_kept_is_refused_with_its_path() -> None:
    backend = boosted()
    assert refusal(backend, ask([[1.0]], context_id="0123456789abcdef")) == ("unsupported", "/context_id")


@pytest.mark.parametrize(
    ("query", "fields", "fault"),
    [
        ([[1.0] * 5], {"task": "regression"}, ("mismatch", "/task")),
        ([[1.0] * 4], {}, ("mismatch", "/query_X")),
        ([[1.0] * 5], {"feature_names": list("abcdx")}, ("mismatch", "/feature_names")),
    ],
)
def test_what_contradicts_the_context_of_an_identifier_is_refused(
    query: Any, fields: dict[str, Any], fault: tuple[str, str]
) -> None:
    backend = boosted()
    context_id = backend.predict(classify(numbers(1), ROWS, feature_names=list("abcde"))).context_id
    assert refusal(backend, ask(query, context_id=context_id, **fields)) == fault
    named = ask([[1.0] * 5], context_id=context_id, feature_names=list("abcde"))
    assert backend.predict(named).n_query == 1


def test_the_least_recently_used_go_when_the_bound_is_reached() -> None:
    tables = [numbers(60, seed=i) for i in range(4)]
    probe = boosted()
    probe.predict(classify(numbers(1), tables[0]))
    backend = boosted(max_context_bytes=int(probe.contexts.size * 2.5))
    ids = [backend.predict(classify(numbers(1), rows)).context_id for rows in tables[:2]]
    backend.predict(ask(numbers(1), context_id=ids[0]))
    ids.append(backend.predict(classify(numbers(1), tables[2])).context_id)
    assert [("", str(key)) in backend.contexts for key in ids] == [True, False, True]
    assert backend.contexts.size <= backend.contexts.max_bytes
    dropped = ask(numbers(1), context_id=ids[1])
    assert fault_of(backend.batch_predict([dropped])[0]) == ("unsupported", "/context_id")
    # Whoever sends the rows again gets the same answer, and the identifier is good again.
    again = backend.predict(classify(numbers(1), tables[1]))
    assert again.context_id == ids[1]
    assert_same(backend.predict(dropped), again.model_copy(update={"probabilities": None}), tolerance=0)


def test_a_context_over_the_bound_is_answered_and_has_no_identifier() -> None:
    backend, request = boosted(max_context_bytes=100), classify(numbers(3), ROWS)
    answer = backend.predict(request)
    assert answer.context_id is None
    expected = boosted().predict(request)
    assert_same(answer, expected.model_copy(update={"context_id": None}), tolerance=0)
    assert len(backend.contexts) == 0


def test_quantile_levels_are_fitted_once_each_and_count_as_memory() -> None:
    backend = boosted()
    backend.predict(regress(numbers(3), ROWS, output_mode="predictions"))
    sizes = [backend.contexts.size]
    for levels in ([0.5], [0.5], [0.1, 0.5, 0.9]):
        answer = backend.predict(regress(numbers(3), ROWS, quantile_levels=levels))
        assert list(quantiles_of(answer)) == levels
        sizes.append(backend.contexts.size)
    assert sizes[0] < sizes[1] == sizes[2] < sizes[3]
    assert len(backend.contexts) == 1


def test_levels_beyond_the_bound_cost_the_context_nothing() -> None:
    request = regress(numbers(3), ROWS, quantile_levels=[0.1, 0.3, 0.5, 0.7, 0.9])
    probe = boosted()
    probe.predict(request)
    full = probe.contexts.size
    backend = boosted(max_context_bytes=full - 1)
    for _ in range(2):
        assert_same(backend.predict(request), probe.predict(request), tolerance=0)
    assert 0 < backend.contexts.size < full


def test_the_bound_of_the_spec_goes_before_that_of_the_backend() -> None:
    def bound(**fields: Any) -> int:
        return ModelSpec(name="m", backend="sklearn", **fields).make_backend().contexts.max_bytes

    assert bound() == 2**30
    assert bound(backend_kwargs={"max_context_bytes": 7}) == 7
    assert bound(context_bytes=9) == bound(backend_kwargs={"max_context_bytes": 7}, context_bytes=9) == 9


def test_what_waits_on_one_context_runs_in_one_pass(runtime: ModelRuntime) -> None:
    backend = runtime.backend
    assert isinstance(backend, SklearnBackend)
    first = runtime.predict_now(classify(numbers(1), ROWS))
    queries = [numbers(2, seed=i) for i in range(6)]
    requests = [classify(query, ROWS) for query in queries[:3]]
    requests += [
        ask(query, context_id=first.context_id, output_mode="probabilities") for query in queries[3:]
    ]
    assert len({backend.batch_key(request) for request in requests}) == 1
    assert backend.batch_key(requests[0]) != backend.batch_key(classify(queries[0], ROWS[:-1]))
    before = counts(backend)
    gate = hold(runtime)
    waiting = [runtime.submit(request) for request in requests]
    gate.set()
    answers = [future.result(timeout=60) for future in waiting]
    assert {answer.metadata.usage.batch_size for answer in answers} == {6}
    assert counts(backend) == (before[0] + 1, before[1])
    for request, answer in zip(requests, answers, strict=True):
        assert_same(answer, boosted().predict(request) if request.context_X else backend.predict(request))


def hold(runtime: ModelRuntime) -> threading.Event:
    """Keep the model's thread busy until the event is set."""
    gate, lane = threading.Event(), runtime._lane
    assert lane is not None
    lane.run_on_thread(gate.wait)
    return gate


def test_concurrent_clients_fit_a_context_once() -> None:
    spec = ModelSpec(name="trees", backend="sklearn", backend_kwargs=FAST)
    with EmbeddedServer([spec], port=0) as server, Sheaf(server.url) as client:

        def call(seed: int) -> Any:
            return client.tabular.predict(
                model="trees",
                context_X=cells(ROWS),
                context_y=classes(ROWS),
                query_X=cells(numbers(2, seed=seed)),
                output_mode="probabilities",
            )

        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(call, range(16)))
        expected = boosted().batch_predict([classify(numbers(2, seed=seed), ROWS) for seed in range(16)])
        for answer, alone in zip(answers, expected, strict=True):
            assert answer.context_id == alone.context_id
            np.testing.assert_allclose(answer.probabilities, alone.probabilities, atol=1e-9)
        contexts = server._models.get("trees").backend.contexts
        assert contexts.misses == 1
        assert sum(not answer.metadata.context_hit for answer in answers) >= 1
        readings = scrape(server.url)
        assert readings.of("sheaf_context_requests_total", model="trees", outcome="miss") == 1
        assert readings.of("sheaf_context_bytes", model="trees") == contexts.size > 0
        with pytest.raises(InvalidRequestError) as refused:
            client.tabular.predict(model="trees", query_X=[[1.0] * 5], context_id="0123456789")
        assert refused.value.status == 422
        assert fault_of(refused.value) == ("unsupported", "/context_id")


def test_sizes_count_arrays_and_tensors_once() -> None:
    array = np.zeros(1000)
    views = {"one": array[10:], "two": array[:5], "again": [array, array]}
    assert 8000 < bytes_of(views) < 9500
    assert bytes_of(views, shared=[array]) < 1500
    assert bytes_of(np.array([np.zeros(1000), "text"], dtype=object)) > 8000

    class Slotted:
        __slots__ = ("kept",)

        def __init__(self) -> None:
            self.kept = np.zeros(500)

    assert 4000 < bytes_of(Slotted()) < 4500
