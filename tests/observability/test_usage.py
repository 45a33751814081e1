"""What an answer says of its own cost, in whatever way it was asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sheaf.cache import CacheConfig
from sheaf.spec import ModelSpec
from sheaf_client import ResultEvent, Sheaf
from sheaf_client.contracts.base import Usage
from tests.conftest import MakeRequest
from tests.contract.targets import http, local
from tests.echoes import Echo, Stepping

SPECS = [
    ModelSpec(name="echo", backend_cls=Echo, backend_kwargs={"seconds": 0.002}),
    ModelSpec(name="kept", backend_cls=Echo, cache=CacheConfig()),
    ModelSpec(name="steps", backend_cls=Stepping, backend_kwargs={"seconds": 0.002}),
]


@pytest.fixture(params=[local, http], scope="module")
def client(request: pytest.FixtureRequest) -> Iterator[Sheaf]:
    with request.param(SPECS) as client:
        yield client


def usage(answer: object) -> Usage:
    found = answer.metadata.usage  # type: ignore[attr-defined]
    assert isinstance(found, Usage)
    return found


def test_a_single_answer_tells_its_cost(client: Sheaf) -> None:
    told = usage(client.time_series.forecast(model="echo", history=[1.0], horizon=1, frequency="1h"))
    assert told.compute_seconds >= 0.002
    assert told.queue_seconds >= 0
    assert (told.batch_size, told.cache_hit) == (1, False)


def test_each_of_many_tells_the_batch_it_was_in(client: Sheaf, make_request: MakeRequest) -> None:
    answers = client.time_series.forecast_many([make_request(float(n)) for n in range(8)])
    told = [usage(answer) for answer in answers]
    assert all(one.compute_seconds >= 0.002 for one in told)
    # What runs alone at once and what waits for it make up the eight.
    assert sum(1 / one.batch_size for one in told) == pytest.approx(
        round(sum(1 / o.batch_size for o in told))
    )
    assert max(one.batch_size for one in told) > 1


@pytest.mark.parametrize(("model", "least"), [("steps", 0.006), ("echo", 0.002)])
def test_the_result_of_a_stream_tells_the_cost_of_all_its_steps(
    client: Sheaf, model: str, least: float
) -> None:
    with client.time_series.stream(model=model, history=[1.0], horizon=3, frequency="1h") as stream:
        events = list(stream)
    assert isinstance(events[-1], ResultEvent)
    told = usage(events[-1].response)
    assert told.compute_seconds >= least
    assert (told.batch_size, told.cache_hit) == (1, False)


def test_a_cache_hit_says_so_and_costs_nothing(client: Sheaf, make_request: MakeRequest) -> None:
    first, again = (
        client.time_series.forecast_many([make_request(5.0, model_name="kept", seed=0)])[0] for _ in range(2)
    )
    assert not usage(first).cache_hit
    assert usage(again) == Usage(compute_seconds=0, queue_seconds=0, batch_size=1, cache_hit=True)
    with client.time_series.stream(
        model="kept", history=[0.0, 5.0], horizon=2, frequency="1h", seed=0
    ) as stream:
        assert usage(stream.final()).cache_hit
