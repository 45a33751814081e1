"""A server that is told to end answers what it can in its time, refuses the rest, and ends by then.

Whatever hangs: a call, a load, an admin's change.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest

from sheaf import registry
from sheaf.http.keys import Access, hash_of
from sheaf.http.limits import Limits
from sheaf.spec import ModelSpec
from tests.attack.conftest import Serve
from tests.echoes import Echo, Gated, Stepping
from tests.engine.harness import wait_until
from tests.http.conftest import GOOD, answers_of, connect, connect_to, head, read_all, whole

ADMIN = {"authorization": "Bearer the-admin"}
ACCESS = Access(admin=hash_of("the-admin"))
#: A server of these models as a program; each line that it writes is one of its log or of the script.
PROGRAM = """
import sys, threading
from sheaf import registry
from sheaf.embedded import EmbeddedServer
from sheaf.http.keys import Access, hash_of
from sheaf.http.limits import Limits
from sheaf.spec import ModelSpec
from tests.echoes import Echo

class Hanging(Echo):
    def batch_predict(self, requests):
        threading.Event().wait()

class HangingLoad(Echo):
    def load(self):
        print("loading", flush=True)
        threading.Event().wait()

class HangingUnload(Echo):
    def unload(self):
        threading.Event().wait()

registry._registered.update({"hanging-load": HangingLoad, "test-echo": Echo})
ONE = {"max_batch_size": 1}
MODELS = {
    "hanging": ModelSpec(name="hanging", backend_cls=Hanging, batch_policy=ONE),
    "slow": ModelSpec(name="slow", backend_cls=Echo, backend_kwargs={"seconds": 0.3}, batch_policy=ONE),
    "load": ModelSpec(name="load", backend_cls=HangingLoad),
    "unload": ModelSpec(name="unload", backend_cls=HangingUnload),
}
server = EmbeddedServer(
    [MODELS[name] for name in sys.argv[2:]],
    port=0,
    limits=Limits(drain_timeout=float(sys.argv[1])),
    access=Access(admin=hash_of("the-admin")),
)
server.run(on_ready=lambda: print(server.url, flush=True))
"""


class Program:
    """The server as a program, with what it writes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self.url = self.said = ""
        while not self.url:  # its log has lines of its own
            line = process.stdout.readline()
            assert line, self.said
            self.said += line
            if line.startswith(("http:", "loading")):
                self.url = line.strip()

    def waiting(self, model: str) -> int:
        found = [
            line
            for line in httpx.get(f"{self.url}/metrics").text.splitlines()
            if line.startswith(f'sheaf_queue_depth{{model="{model}"}}')
        ]
        return int(float(found[0].split()[-1]))

    def tell(self, *numbers: int) -> None:
        for number in numbers:
            self._process.send_signal(number)

    def end(self) -> int:
        """Its status, once it has ended."""
        said, _ = self._process.communicate(timeout=60)
        self.said += said
        return self._process.returncode


@contextmanager
def program(drain: float, *models: str) -> Generator[Program]:
    command = [sys.executable, "-c", PROGRAM, str(drain), *models]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield Program(process)
    finally:
        process.kill()
        process.wait(10)


def answers(connections: Sequence[socket.socket]) -> list[tuple[int, dict[str, str], Any]]:
    """Status, head and document of the one answer on each."""
    found: list[tuple[int, dict[str, str], Any]] = []
    for connection in connections:
        ((status, fields, content),) = answers_of(read_all(connection))
        found.append((status, fields, json.loads(content)))
    return found


def listens(url: str) -> bool:
    try:
        return httpx.get(f"{url}/hanging/health").status_code == 200
    except httpx.TransportError:
        return False


def is_refusal(answer: tuple[int, dict[str, str], Any]) -> bool:
    status, fields, problem = answer
    return (status, problem.get("code"), fields.get("retry-after")) == (503, "unavailable", "1")


def ask(url: str, count: int, path: str, stack: ExitStack) -> list[socket.socket]:
    connections = [stack.enter_context(connect_to(url)) for _ in range(count)]
    for connection in connections:
        connection.sendall(whole(path=path))
    return connections


def test_what_can_be_answered_in_time_is_and_nobody_is_told_of_an_error() -> None:
    with program(30, "slow") as server, ExitStack() as stack:
        waiting = ask(server.url, 10, "/slow/predict", stack)
        wait_until(lambda: server.waiting("slow") > 5)
        server.tell(signal.SIGTERM)
        assert [status for status, _, _ in answers(waiting)] == [200] * 10
        assert server.end() == 0
    assert "Traceback" not in server.said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_call_that_hangs_and_those_behind_it_are_refused(number: int) -> None:
    with program(0.3, "hanging", "slow") as server, ExitStack() as stack:
        waiting = ask(server.url, 8, "/hanging/predict", stack)
        wait_until(lambda: server.waiting("hanging") == 7)
        late = stack.enter_context(connect_to(server.url))
        late.sendall(head("/slow/predict", **{"content-length": "100"}) + b"{")
        assert httpx.post(f"{server.url}/slow/predict", json=GOOD).status_code == 200
        server.tell(number)
        refused = answers([*waiting, late])
        assert [is_refusal(answer) for answer in refused] == [True] * 9
        assert all(answer[1]["content-type"] == "application/problem+json" for answer in refused)
        assert all(answer[2]["request_id"] for answer in refused)
        status = server.end()
    assert status == 0 if number == signal.SIGTERM else status != 0
    assert "Exception in ASGI" not in server.said
    assert "Internal Server Error" not in server.said


def test_a_second_signal_ends_it_at_once() -> None:
    with program(600, "hanging") as server, ExitStack() as stack:
        ask(server.url, 2, "/hanging/predict", stack)
        wait_until(lambda: server.waiting("hanging") == 1)
        server.tell(signal.SIGTERM)
        wait_until(lambda: not listens(server.url))  # the first was heard
        server.tell(signal.SIGTERM)
        assert server.end() == -signal.SIGTERM


def test_a_load_that_hangs_is_not_waited_for() -> None:
    with program(0.3, "load") as server:
        assert server.url == "loading"
        server.tell(signal.SIGTERM)
        assert server.end() == 0


def test_an_admin_s_load_that_hangs_is_told_and_not_waited_for() -> None:
    with program(0.3, "slow") as server, connect_to(server.url) as admin:
        content = b'{"backend": "hanging-load"}'
        lines = {"content-length": str(len(content)), **ADMIN}
        admin.sendall(head("/admin/models/new", **lines).replace(b"POST", b"PUT", 1) + content)
        wait_until(lambda: change(server.url, "new").status_code == 503)
        server.tell(signal.SIGTERM)
        assert is_refusal(answers([admin])[0])
        assert server.end() == 0


def test_a_model_that_does_not_let_go_ends_with_the_process() -> None:
    with program(0.1, "unload") as server:
        server.tell(signal.SIGTERM)
        assert server.end() == 1
    assert "ending it" in server.said


def change(url: str, name: str, backend: str = "test-echo") -> httpx.Response:
    return httpx.put(f"{url}/admin/models/{name}", json={"backend": backend}, headers=ADMIN, timeout=60)


class HangingLoad(Echo):
    """Loads once the gate is open."""

    gate, begun = threading.Event(), threading.Event()

    def load(self) -> None:
        self.begun.set()
        assert self.gate.wait(60)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    monkeypatch.setitem(registry._registered, "test-echo", Echo)
    monkeypatch.setitem(registry._registered, "test-hanging-load", HangingLoad)
    HangingLoad.gate.clear()
    HangingLoad.begun.clear()
    yield HangingLoad.gate
    HangingLoad.gate.set()


def test_a_change_that_hangs_holds_up_its_own_model_alone(serve: Serve, gate: threading.Event) -> None:
    server = serve(access=ACCESS)
    first: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: first.append(change(server.url, "new", "test-hanging-load")))
    thread.start()
    assert HangingLoad.begun.wait(10)
    busy = change(server.url, "new")
    assert (busy.json()["code"], busy.headers["retry-after"]) == ("unavailable", "5")
    assert [change(server.url, name).status_code for name in ("other", "echo")] == [201, 200]
    gone = httpx.delete(f"{server.url}/admin/models/other", headers=ADMIN)
    assert gone.status_code == 204
    gate.set()
    thread.join(60)
    assert first[0].status_code == 201


@pytest.mark.usefixtures("gate")
def test_a_change_that_takes_too_long_is_given_up(serve: Serve) -> None:
    server = serve(access=ACCESS, limits=Limits(change_timeout=0.3))
    for name in ("new", "echo"):
        late = change(server.url, name, "test-hanging-load")
        assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
    assert httpx.post(f"{server.url}/echo/predict", json=GOOD).json()["mean"] == [2, 2]
    assert httpx.post(f"{server.url}/new/predict", json=GOOD).status_code == 404
    assert change(server.url, "new").status_code == 201


def test_who_is_refused_at_the_end_is_counted_as_such(serve: Serve) -> None:
    specs = [
        ModelSpec(name="gated", backend_cls=Gated, batch_policy={"max_batch_size": 1}),
        ModelSpec(name="steps", backend_cls=Stepping, backend_kwargs={"seconds": 0.05}),
    ]
    server = serve(specs, limits=Limits(drain_timeout=0.2))
    backend = server._models.get("gated").backend
    assert isinstance(backend, Gated)
    with ExitStack() as stack:
        waiting = ask(server.url, 4, "/gated/predict", stack)
        assert backend.entered.wait(20)
        wait_until(lambda: server._models.get("gated").depth == 3)
        stream = stack.enter_context(connect(server))
        stream.sendall(whole({**GOOD, "horizon": 1000}, path="/steps/stream"))
        assert stream.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        server.__exit__(None, None, None)
        assert all(map(is_refusal, answers(waiting)))
        assert b'"code":"unavailable"' in read_all(stream)
    backend.gate.set()
    counts = server._models.telemetry.exposition().decode()
    assert 'sheaf_requests_total{model="gated",route="predict",status="503"} 4.0' in counts
    assert 'sheaf_predictions_total{mode="predict",model="gated",outcome="unavailable"} 4.0' in counts
    assert 'outcome="cancelled"' not in counts
    assert 'status="499"' not in counts
    assert 'status="500"' not in counts
