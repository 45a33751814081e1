"""The account of a server's memory: who may take how much of it, and that all of it comes back."""

from __future__ import annotations

import asyncio
import gc
import json
import tracemalloc
from typing import Any

import msgspec
import pytest

from sheaf.api.tabular import TabularRequest
from sheaf.api.time_series import TimeSeriesRequest
from sheaf.http.bodies import Body, decode
from sheaf.http.limits import Limits
from sheaf.http.memory import Memory, Share
from sheaf_client.contracts.base import BaseRequest
from sheaf_client.errors import InvalidRequestError, OverloadedError, RequestTooLargeError

MIB = 2**20
SERIES: dict[str, Any] = {"horizon": 2, "frequency": "1h"}
TABLE: dict[str, Any] = {"context_X": [[1], [2]], "context_y": [0, 1]}
#: Contents that are much more in memory than on the wire.
CONTENTS: dict[str, tuple[type[BaseRequest], dict[str, Any]]] = {
    "numbers": (TimeSeriesRequest, {**SERIES, "history": [1.5] * 100_000}),
    "whole numbers": (TimeSeriesRequest, {**SERIES, "history": [1] * 100_000}),
    "rows": (TimeSeriesRequest, {**SERIES, "history": [[1]] * 100_000}),
    "wide rows": (TabularRequest, {**TABLE, "context_X": [[1] * 99, [2] * 99], "query_X": [[1] * 99] * 1000}),
    "texts": (TabularRequest, {**TABLE, "query_X": [[f"{i:05}"] for i in range(50_000)]}),
    "wide texts": (TabularRequest, {**TABLE, "query_X": [[f"{'a' * 200}𝄞{i}"] for i in range(5_000)]}),
}  # fmt: skip


@pytest.fixture
def memory() -> Memory:
    return Memory(Limits(max_body=1, max_memory=100 * MIB))


def test_one_caller_has_half_and_one_request_three_quarters(memory: Memory) -> None:
    first, second, other = Share(memory, "ann"), Share(memory, "ann"), Share(memory, "bob")
    first.take(40 * MIB)
    with pytest.raises(OverloadedError, match="of yours"):
        second.take(11 * MIB)
    second.take(10 * MIB)
    other.take(50 * MIB)
    with pytest.raises(OverloadedError) as refused:
        other.take(1)
    assert refused.value.retry_after == 1
    for share in (first, second, other):
        share.hold(0)
    other.take(75 * MIB)
    with pytest.raises(RequestTooLargeError, match="more than 75 MiB"):
        other.take(1)
    assert memory.left == 25 * MIB


def test_answers_to_come_are_weighed_before_they_are_there(memory: Memory) -> None:
    share = Share(memory, "ann")
    share.expect(10 * MIB)
    assert share.size == 30 * MIB
    with pytest.raises(InvalidRequestError) as refused:
        share.expect(20 * MIB)
    assert refused.value.errors[0].code == "out_of_range"
    share.hold(200 * MIB)  # the answer was larger than that
    assert memory.left == -100 * MIB
    with pytest.raises(OverloadedError):
        Share(memory, "bob").take(1)
    asyncio.run(_end(share))
    assert memory.left == 100 * MIB


async def _end(share: Share) -> None:
    share.end()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", CONTENTS)
def test_a_body_weighs_what_becomes_of_it(memory: Memory, name: str, *, packed: bool) -> None:
    kind, fields = CONTENTS[name]
    content = {**fields, "model_name": "x"}
    written = msgspec.msgpack.encode(content) if packed else json.dumps(content, ensure_ascii=False).encode()
    body = Body(written, packed, Share(memory, "ann"))
    body.measure(64)
    tracemalloc.start()
    try:
        request = decode(body, kind, "x")
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert request.model_name == "x"
    assert kept <= body.weight.kept <= 4 * kept
    assert most <= body.weight.read


def test_small_bodies_are_not_counted(memory: Memory) -> None:
    body = Body(json.dumps({**SERIES, "history": [1] * 100}).encode(), False, Share(memory, "ann"))
    body.measure(64)
    body.take()
    assert body.share.size == 0


def test_work_that_holds_pythons_lock_is_not_looked_through_by_the_collector(memory: Memory) -> None:
    async def run() -> list[bool]:
        return [await memory.run(gc.isenabled, 1), await memory.run(gc.isenabled, 1, frees=True)]

    assert asyncio.run(run()) == [False, True]
    assert gc.isenabled()
