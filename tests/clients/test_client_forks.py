"""Clients and local models on the two sides of a fork: no connection is shared, no lost thread awaited."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")

BEGIN = """
import asyncio, gc, os, sys
import httpx
from sheaf.spec import ModelSpec
from sheaf_client import AsyncSheaf, ForkedError, Sheaf, SheafError
from sheaf_client.errors import UnavailableError
from tests.echoes import Echo, Stepping

def ask(value):
    return {"model": "m", "history": [value], "horizon": 1, "frequency": "1h"}

def in_fork(function):
    # The child leaves as any program does, with its handlers and its collector.
    child = os.fork()
    if child == 0:
        function()
        sys.exit(0)
    return child

def wait(child):
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def run(script: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + script, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr


class Repeating(BaseHTTPRequestHandler):
    """Answers a forecast by its last value, and keeps which values each connection carried."""

    protocol_version = "HTTP/1.1"
    carried: defaultdict[int, list[float]]

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        value = asked["history"][-1]
        self.carried[self.client_address[1]].append(value)
        answer = {
            **{name: asked[name] for name in ("request_id", "model_type", "model_name", "horizon")},
            "frequency": asked["frequency"],
            "mean": [value],
        }
        if self.path.endswith("/stream"):
            steps = [{"type": "progress", "step": n, "total_steps": 400} for n in range(400)]
            frames = [*steps, {"type": "result", **answer}]
            body = "".join(f"data: {json.dumps(frame)}\n\n" for frame in frames).encode()
        else:
            body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[tuple[str, dict[int, list[float]]]]:
    handler = type("Handler", (Repeating,), {"carried": defaultdict(list)})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{serving.server_port}", handler.carried
        finally:
            serving.shutdown()
            thread.join()


SYNC = """
client = Sheaf(sys.argv[1], timeout=60)

def use(sign):
    for n in range(20):
        assert client.time_series.forecast(**ask(sign * (1 + n))).mean == [sign * (1 + n)]

use(1)
child = in_fork(lambda: use(-1))
use(1)
wait(child)
"""
ASYNC = """
client = AsyncSheaf(sys.argv[1], timeout=60)

async def use(sign):
    for n in range(20):
        assert (await client.time_series.forecast(**ask(sign * (1 + n)))).mean == [sign * (1 + n)]

with asyncio.Runner() as runner:
    runner.run(use(1))
    child = in_fork(lambda: asyncio.run(use(-1)))
    runner.run(use(1))
    wait(child)
"""


@pytest.mark.parametrize("script", [SYNC, ASYNC], ids=["sync", "async"])
def test_the_processes_of_a_fork_share_no_connection(
    server: tuple[str, dict[int, list[float]]], script: str
) -> None:
    url, carried = server
    run(script, url)
    of_child = [port for port, values in carried.items() if any(value < 0 for value in values)]
    assert of_child
    assert all(value < 0 for port in of_child for value in carried[port])
    assert sum(map(len, carried.values())) == 60


def test_an_httpx_client_of_the_caller_is_refused_in_a_fork_and_goes_on_before_it(
    server: tuple[str, dict[int, list[float]]],
) -> None:
    url, carried = server
    script = """
own = httpx.Client()
client, other = Sheaf(sys.argv[1], http_client=own), AsyncSheaf(sys.argv[1], http_client=httpx.AsyncClient())
client.time_series.forecast(**ask(1))

def use():
    for call in (lambda: client.time_series.forecast(**ask(-1)),
                 lambda: asyncio.run(other.time_series.forecast(**ask(-1)))):
        try:
            call()
        except ForkedError as error:
            assert isinstance(error, SheafError) and "after the fork" in str(error)
        else:
            raise AssertionError("another process's connection was used")
    client.close()

wait(in_fork(use))
assert client.time_series.forecast(**ask(2)).mean == [2]
"""
    run(script, url)
    assert list(carried.values()) == [[1, 2]]


def test_a_stream_is_read_by_the_process_that_opened_it(server: tuple[str, dict[int, list[float]]]) -> None:
    script = """
client = Sheaf(sys.argv[1])
stream = client.time_series.stream(**ask(5))
next(stream)

def use():
    try:
        for event in stream:
            pass
    except ForkedError:
        return
    raise AssertionError("the other process's stream was read")

wait(in_fork(use))
assert stream.final().mean == [5]
"""
    run(script, server[0])


def test_local_models_refuse_calls_in_a_fork_at_once_and_can_be_loaded_there() -> None:
    script = """
specs = [ModelSpec(name="m", backend_cls=Echo), ModelSpec(name="steps", backend_cls=Stepping)]
client, waited = Sheaf.local(specs), AsyncSheaf.local(specs)
models = client.transport._held
client.time_series.forecast(**ask(1))
stream = client.time_series.stream(**{**ask(1), "model": "steps", "horizon": 5000})
next(stream)

def use():
    runtime = models.get("m")
    calls = [
        lambda: client.time_series.forecast(**ask(1)),
        lambda: next(client.time_series.stream(**ask(1))),
        lambda: next(client.time_series.stream(**{**ask(1), "model": "steps"})),
        lambda: asyncio.run(waited.time_series.forecast(**ask(1))),
        runtime.check_open,
    ]
    for call in calls:
        try:
            call()
        except UnavailableError as error:
            assert "after the fork" in str(error)
        else:
            raise AssertionError("a thread that is not there answered")
    assert [model.ready for model in client.models.list()] == [False, False]
    with Sheaf.local([ModelSpec(name="m", backend_cls=Echo)]) as own:
        assert own.time_series.forecast(**ask(3)).mean == [3]
    models.update(ModelSpec(name="m", backend_cls=Echo))
    assert client.time_series.forecast(**ask(4)).mean == [4]
    client.close()
    asyncio.run(waited.close())

wait(in_fork(use))
wait(in_fork(lambda: None))
stream.close()
assert client.time_series.forecast(**ask(2)).mean == [2]
client.close()
"""
    run(script)
