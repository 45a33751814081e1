"""A body that is wrong in a hundred thousand places costs about what a right one does and holds nobody up."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from pydantic import ValidationError

from sheaf.contract.operations import all_operations
from sheaf.http.bodies import SLOW, Body, decode, decode_at_once
from sheaf.http.limits import Limits
from sheaf.http.memory import Memory, Share
from sheaf.http.nesting import count_msgpack
from sheaf_client import Sheaf
from sheaf_client._faults import MAX_FAULTS
from sheaf_client._msgpack import MSGPACK_TYPE
from sheaf_client.errors import InvalidRequestError
from tests.attack.floods import floods
from tests.contract.echo import name_of
from tests.http.conftest import ECHO, GOOD, Serve

SHARE = Share(Memory(Limits()), "")
MANY = 100_000
#: Faults that Pydantic may build: the members of the largest mapping of a contract, for two kinds of value.
MOST_BUILT = 2 * 1025 + 50
JSON = {"content-type": "application/json"}


def as_json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


ENCODINGS: list[tuple[Callable[[Any], bytes], dict[str, str]]] = [
    (as_json, JSON),
    (lambda value: gzip.compress(as_json(value)), {**JSON, "content-encoding": "gzip"}),
    (msgspec.msgpack.encode, {"content-type": MSGPACK_TYPE}),
]
FORECAST = next(op for op in all_operations() if name_of(op) == "time_series")

WORST: dict[str, dict[str, Any]] = {
    "numbers": {"history": ["x"] * MANY},
    "rows": {"history": [["x"]] * MANY},
    "empty rows": {"history": [[]] * MANY},
    "unknown members": {f"k{i}": 1 for i in range(MANY)},
    "covariates": {"past_covariates": {f"k{i}": "x" for i in range(MANY)}},
    "categories": {"static_covariates": {f"k{i}": [] for i in range(MANY)}},
}
BODIES = {name: as_json({**GOOD, **wrong}) for name, wrong in WORST.items()}


def refusal(body: Body, kind: Any) -> InvalidRequestError | None:
    try:
        decode(body, kind, "m")
    except InvalidRequestError as error:
        return error
    return None


def built(error: BaseException) -> int:
    """Faults that Pydantic built before the first was told."""
    found = error.__context__
    return found.error_count() if isinstance(found, ValidationError) else 0


@pytest.mark.parametrize("operation", all_operations(), ids=name_of)
def test_of_many_faults_few_are_built(operation: Any) -> None:
    refused = 0
    for what, content in floods(operation, MANY // 10):
        error = refusal(Body(content, False, SHARE), operation.request)
        if error is not None:
            refused += 1
            assert 1 <= len(error.errors) <= MAX_FAULTS, what
            assert built(error) <= MOST_BUILT, what
    assert refused


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("form", ["JSON", "MessagePack"])
def test_faults_take_no_more_memory_than_the_body(name: str, form: str) -> None:
    packed = form == "MessagePack"
    content = msgspec.msgpack.encode(json.loads(BODIES[name])) if packed else BODIES[name]
    body = Body(content, packed, SHARE)
    refusal(body, FORECAST.request)  # what is made once per process
    tracemalloc.start()
    error = refusal(body, FORECAST.request)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert error is not None
    # What a list or a member of its own takes, twice; a fault takes more than a kilobyte.
    assert peak < 400 * MANY


@pytest.mark.parametrize("name", BODIES)
def test_what_is_wrong_is_read_on_no_event_loop(name: str) -> None:
    wrong: dict[str, Any] = {
        key: value[:8000] if isinstance(value, list) else value for key, value in WORST[name].items()
    }
    content = as_json({**GOOD, **wrong})
    assert len(content) > SLOW
    assert decode_at_once(Body(content, False, SHARE), FORECAST.request, "m") is None
    right = as_json({**GOOD, "history": [1.5] * 8000})
    assert decode_at_once(Body(right, False, SHARE), FORECAST.request, "m") is not None


def test_scattered_parts_are_read_on_no_event_loop() -> None:
    scattered = msgspec.msgpack.encode({**GOOD, "history": [[1.5], [2]] * 1000})
    assert count_msgpack(scattered, 64, 1000) is None
    assert count_msgpack(scattered, 64) is not None
    whole = msgspec.msgpack.encode({**GOOD, "history": [1.5] * 8000, "item_id": "x" * 8000})
    assert count_msgpack(whole, 64, 1000) is not None


@pytest.mark.parametrize("size", [500, MANY], ids=["at once", "on a worker thread"])
def test_every_way_in_tells_the_same(serve: Serve, size: int) -> None:
    server = serve()
    body = {**GOOD, "history": [[i] if i % 2 else ["x"] for i in range(1, size)]}
    batch = {"requests": [GOOD, body]}
    told: list[dict[str, Any]] = []
    for encode, headers in ENCODINGS:
        for route in ("predict", "time_series/forecast", "stream"):
            answer = httpx.post(f"{server.url}/echo/{route}", content=encode(body), headers=headers)
            assert answer.status_code == 422
            told.append(answer.json())
        answers = httpx.post(f"{server.url}/echo/batch", content=encode(batch), headers=headers).json()
        sound, problem = answers["responses"]
        assert sound["mean"] == [2.0, 2.0]
        told.append(problem)
    for problem in told:
        [fault] = problem["errors"]
        assert (fault["code"], fault["path"]) == ("wrong_type", "/history/1/0")


def test_a_batch_names_one_of_many_unknown_members(serve: Serve) -> None:
    answer = httpx.post(
        f"{serve().url}/echo/batch", json={"requests": [GOOD], **{f"k{i}": 1 for i in range(5000)}}
    )
    assert [(fault["code"], fault["path"]) for fault in answer.json()["errors"]] == [("unknown_field", "/k0")]


@pytest.mark.parametrize("name", [name for name in WORST if name != "unknown members"])
def test_a_call_in_process_builds_as_few(name: str) -> None:
    fields: dict[str, Any] = {**GOOD, **WORST[name]}
    with Sheaf.local([ECHO]) as client, pytest.raises(InvalidRequestError) as caught:
        client.time_series.forecast(model="echo", **fields)
    assert 1 <= len(caught.value.errors) <= MAX_FAULTS
    assert built(caught.value) <= MOST_BUILT


SMALL_SERVER = """
import resource, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
from sheaf.embedded import EmbeddedServer
from tests.http.conftest import ECHO
with EmbeddedServer(ECHO, port=0) as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""


@contextmanager
def server_of(memory: int) -> Generator[tuple[str, subprocess.Popen[str]]]:
    """A server of its own process, which may have so many bytes of addresses."""
    command = [sys.executable, "-c", SMALL_SERVER, str(memory)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process
        finally:
            process.kill()


def test_small_bodies_of_a_million_faults_do_not_kill_a_small_server() -> None:
    # Not all alike, or the ratio of compression would give it away.
    wrong = ["x" if i % 200 else str(i) for i in range(1_000_000)]
    flood = gzip.compress(as_json({**GOOD, "history": wrong}))
    assert len(flood) < 32 * 1024
    headers = {**JSON, "content-encoding": "gzip"}
    with server_of(3 * 2**30) as (url, process):

        def send(_: int) -> int:
            return httpx.post(f"{url}/echo/predict", content=flood, headers=headers, timeout=120).status_code

        with ThreadPoolExecutor(4) as pool:
            # Of those that come at once most are refused unread: one caller may not hold so much.
            assert set(pool.map(send, range(8))) <= {422, 503}
        assert send(0) == 422
        assert httpx.post(f"{url}/echo/predict", json=GOOD).status_code == 200
        assert process.poll() is None
