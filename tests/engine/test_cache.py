"""What is kept, for how long and within what bound; and what tells one request from another."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError

from codegen.bundle import read_bundle
from sheaf.api.multimodal_generation import MultimodalGenerationRequest
from sheaf.api.time_series import TimeSeriesRequest
from sheaf.cache import CacheConfig
from sheaf.contract.operations import all_operations
from sheaf.engine.cache import AnswerCache, request_key
from sheaf.spec import ModelSpec
from sheaf_client._msgpack import pack
from tests.conftest import MakeRequest
from tests.contract.echo import EchoBackend
from tests.echoes import Echo
from tests.engine.harness import World, running, steered


class Drawing(Echo):
    """Draws, as it says, for whoever gives no seed."""

    def deterministic(self, request: TimeSeriesRequest) -> bool:
        return request.seed is not None


def test_what_chance_decides_is_neither_kept_nor_shared(make_request: MakeRequest) -> None:
    with running(Drawing, cache=CacheConfig()) as (runtime, backend):
        for _ in range(2):
            runtime.predict_now(make_request(1.0), timeout=10)
        assert len(backend.batches) == 2
        for _ in range(2):
            runtime.predict_now(make_request(1.0, seed=0), timeout=10)
        assert len(backend.batches) == 3


def test_a_backend_that_does_not_say_it_draws_is_taken_not_to(make_request: MakeRequest) -> None:
    """A contract with a `seed` does not make a model one that draws."""
    with running(Echo, cache=CacheConfig()) as (runtime, backend):
        for _ in range(2):
            runtime.predict_now(make_request(1.0), timeout=10)
        assert len(backend.batches) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"horizon": 3},
        {"item_id": "x"},
        {"model_name": "echo2"},
        {"static_covariates": {"a": 1}},
        {"history": [0.0, None, 1.0]},
        {"output_mode": "quantiles"},
        {"quantile_levels": [0.5]},
    ],
    ids=lambda other: next(iter(other)),
)
def test_any_field_tells_requests_apart_but_their_identifier(make_request: MakeRequest, other: Any) -> None:
    assert request_key(make_request(1.0)) == request_key(make_request(1.0))
    assert request_key(make_request(1.0)) != request_key(make_request(1.0, **other))


def test_the_order_of_a_mapping_makes_no_difference(make_request: MakeRequest) -> None:
    one, two = ({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert request_key(make_request(static_covariates=one)) == request_key(
        make_request(static_covariates=two)
    )


def test_every_contract_has_its_own_keys() -> None:
    """Files, arrays and adapters count by their bytes; equal content is equal."""
    bundle = read_bundle(Path(__file__).parents[2] / "schema")
    keys: dict[bytes, object] = {}
    kinds = {op.request.__name__: op.request for op in all_operations()}
    assert len(kinds) > 20
    for task in bundle.tasks:
        for operation in task.operations:
            for body in bundle.schemas[operation.request].body["examples"]:
                title = bundle.schemas[operation.request].body["title"]
                one, two = (kinds[title].model_validate(body, by_alias=True) for _ in range(2))
                assert request_key(one) == request_key(two)
                keys.setdefault(request_key(one), (title, body))
                assert keys[request_key(one)] == (title, body)


@pytest.mark.parametrize(
    ("value", "calls"),
    [
        *((value, 2) for value in ("1", "true", "YES", " on ")),
        *((value, 1) for value in ("0", "false", "No", "off", "")),
    ],
)
def test_the_environment_turns_caches_off(
    monkeypatch: pytest.MonkeyPatch, make_request: MakeRequest, value: str, calls: int
) -> None:
    monkeypatch.setenv("SHEAF_CACHE_DISABLED", value)
    world = World()
    with steered(world, cache=True) as runtime:
        for _ in range(2):
            runtime.predict_now(make_request(1.0), timeout=10)
        assert (runtime.cache is None) == (calls == 2)
        assert len(world.calls) == calls


def test_a_cache_may_be_switched_off_by_its_spec(make_request: MakeRequest) -> None:
    with running(Echo, cache=CacheConfig(enabled=False)) as (runtime, backend):
        for _ in range(2):
            runtime.predict_now(make_request(1.0, seed=0), timeout=10)
        assert runtime.cache is None
        assert len(backend.batches) == 2


def test_fields_that_are_excluded_make_no_difference(make_request: MakeRequest) -> None:
    with running(Echo, cache=CacheConfig(exclude_fields=("item_id",))) as (runtime, backend):
        first, second = (make_request(1.0, seed=0, item_id=name) for name in ("a", "b"))
        runtime.predict_now(first, timeout=10)
        again = runtime.predict_now(second, timeout=10)
        assert (again.request_id, again.metadata.usage.cache_hit) == (second.request_id, True)
        runtime.predict_now(make_request(1.0, seed=1), timeout=10)
        assert len(backend.batches) == 2


def test_a_file_is_excluded_by_either_of_its_names() -> None:
    ask: dict[str, Any] = {"model_name": "m", "prompt": "a cat", "seed": 1}
    one, two = (MultimodalGenerationRequest(**ask, image=image_file(width)) for width in (8, 16))
    assert request_key(one) != request_key(two)
    for name in ("image", "image_b64"):
        assert request_key(one, [name]) == request_key(two, [name])
        backend = EchoBackend.of("multimodal_generation")
        spec = ModelSpec(name="m", backend_cls=backend, cache=CacheConfig(exclude_fields=(name,)))
        assert spec.active_cache is not None


def test_a_field_that_no_request_has_is_refused_by_the_spec() -> None:
    cache = CacheConfig(exclude_fields=("promt",))
    with pytest.raises(
        ValidationError, match="requests of time_series have no 'promt'; they have feature_ref,"
    ):
        ModelSpec(name="m", backend_cls=Echo, cache=cache)


def image_file(width: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, 8)).save(buffer, "png")
    return buffer.getvalue()


class TestAnswerCache:
    """The kept answers alone, on a clock that the tests turn."""

    def answers(self, make_request: MakeRequest, **config: Any) -> tuple[AnswerCache, list[float], Any]:
        now = [0.0]
        cache = AnswerCache(CacheConfig(**config), clock=lambda: now[0])

        def put(value: float, horizon: int = 2) -> Any:
            request = make_request(value, horizon=horizon)
            answer = Echo().answer(request)
            cache.put(request_key(request), type(answer), pack(answer))
            return request

        return cache, now, put

    def test_an_answer_is_forgotten_after_its_time(self, make_request: MakeRequest) -> None:
        cache, now, put = self.answers(make_request, ttl_s=10.0)
        request = put(1.0)
        now[0] = 9.9
        assert cache.get(request_key(request), request) is not None
        now[0] = 10.0
        assert cache.get(request_key(request), request) is None
        assert (len(cache), cache.size) == (0, 0)

    def test_the_bound_is_in_bytes_and_the_least_used_go(self, make_request: MakeRequest) -> None:
        cache, _, put = self.answers(make_request, max_bytes=5000)
        requests = []
        for i in range(40):
            requests.append(put(float(i)))
            cache.get(request_key(requests[0]), requests[0])
            assert cache.size <= 5000
        kept = [i for i, r in enumerate(requests) if cache.get(request_key(r), r) is not None]
        assert kept[0] == 0
        assert kept[1:] == list(range(41 - len(kept), 40))
        assert 3 < len(kept) < 40

    def test_the_bound_may_be_in_answers_too(self, make_request: MakeRequest) -> None:
        cache, _, put = self.answers(make_request, max_size=2)
        first, second = put(1.0), put(2.0)
        assert cache.get(request_key(first), first) is not None  # now the second is the least used
        third = put(3.0)
        put(3.0)  # again, which makes room for nothing
        kept = [cache.get(request_key(r), r) is not None for r in (first, second, third)]
        assert kept == [True, False, True]
        assert len(cache) == 2

    def test_an_answer_over_the_bound_is_not_kept_and_drives_nobody_out(
        self, make_request: MakeRequest
    ) -> None:
        cache, _, put = self.answers(make_request, max_bytes=5000)
        small = put(1.0)
        big = put(2.0, horizon=5000)
        assert cache.get(request_key(big), big) is None
        assert cache.get(request_key(small), small) is not None

    def test_an_answer_put_twice_counts_once(self, make_request: MakeRequest) -> None:
        cache, _, put = self.answers(make_request)
        put(1.0)
        size = cache.size
        put(1.0)
        assert (len(cache), cache.size) == (1, size)
