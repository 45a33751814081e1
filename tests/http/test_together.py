"""What one turn of the server's event loop has read is answered together, and each by itself."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Sequence
from typing import Any

from sheaf.api.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf.spec import ModelSpec
from tests.echoes import Echo
from tests.http.conftest import GOOD, Serve, connect, head, read_answer, whole

POISON = 666.0


class Quick(Echo):
    """Answers on the server's event loop, which its first batch holds up until the gate is open."""

    inline = True

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.entered = threading.Event(), threading.Event()

    def batch_predict(self, requests: Sequence[TimeSeriesRequest]) -> list[TimeSeriesResponse | Exception]:
        self.entered.set()
        assert self.gate.wait(20), "the test never opened the gate"
        if any(request.history == [POISON] for request in requests):
            raise RuntimeError("secret")
        return super().batch_predict(requests)


def asking(value: float) -> bytes:
    return whole({**GOOD, "history": [value]})


def held(serve: Serve, count: int) -> tuple[Quick, socket.socket, list[socket.socket]]:
    """A server whose event loop stands still in the model until its gate is open, and others' connections."""
    server = serve(ModelSpec(name="echo", backend_cls=Quick))
    backend: Any = server._models.get("echo").backend
    connections = [connect(server) for _ in range(count)]
    for connection in connections:
        connection.sendall(b"GET /echo/health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert read_answer(connection)[0] == 200
    first = connect(server)
    first.sendall(asking(0.0))
    assert backend.entered.wait(10)
    return backend, first, connections


def test_requests_that_were_read_together_share_a_batch(serve: Serve) -> None:
    backend, first, connections = held(serve, 12)
    for i, connection in enumerate(connections):
        connection.sendall(asking(float(i)))
    backend.gate.set()
    assert read_answer(first)[1]["mean"] == [0, 0]
    for i, connection in enumerate(connections):
        status, answer = read_answer(connection)
        assert (status, answer["mean"]) == (200, [i, i])
    # The first of a turn waits for nobody where the turn before had one request.
    assert backend.sizes == [1, 1, 11]


def test_each_is_refused_or_answered_by_itself(serve: Serve) -> None:
    sent = {
        "good": asking(1.0),
        "poison": asking(POISON),
        "invalid": whole({**GOOD, "horizon": 0}),
        "broken": whole().replace(b'"horizon"', b'"horizon '),
        "stranger": whole(path="/nobody/predict"),
        "page": b"GET /echo/ready HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "other": asking(2.0),
    }
    backend, first, [gone, slow, *others] = held(serve, len(sent) + 2)
    connections = dict(zip(sent, others, strict=True))
    for name, content in sent.items():
        connections[name].sendall(content)
    gone.sendall(asking(3.0))
    gone.close()
    late = asking(4.0)
    slow.sendall(late[:-5])
    backend.gate.set()
    found = {name: read_answer(connection) for name, connection in connections.items()}
    assert {name: status for name, (status, _) in found.items()} == {
        "good": 200,
        "poison": 500,
        "invalid": 422,
        "broken": 400,
        "stranger": 404,
        "page": 200,
        "other": 200,
    }
    assert (found["good"][1]["mean"], found["other"][1]["mean"]) == ([1, 1], [2, 2])
    assert "secret" not in json.dumps(found["poison"][1])
    ids = [answer["request_id"] for name, (_, answer) in found.items() if name != "page"]
    assert len(set(ids)) == len(ids)
    slow.sendall(late[-5:])
    assert read_answer(slow)[1]["mean"] == [4, 4]
    assert read_answer(first)[1]["mean"] == [0, 0]


def test_what_was_sent_at_once_is_answered_in_order(serve: Serve) -> None:
    backend, first, _ = held(serve, 0)
    first.sendall(b"".join(asking(float(i)) for i in range(1, 40)) + whole({**GOOD, "horizon": 0}))
    backend.gate.set()
    rest = bytearray()
    answers = [read_answer(first, rest) for _ in range(41)]
    assert [status for status, _ in answers] == [200] * 40 + [422]
    assert [answer["mean"][0] for _, answer in answers[:40]] == [*range(40)]


def test_a_client_that_waits_to_be_asked_for_the_body_is(serve: Serve) -> None:
    server = serve()
    connection = connect(server)
    content = json.dumps(GOOD).encode()
    connection.sendall(head(**{"content-length": str(len(content)), "expect": "100-continue"}))
    assert connection.recv(1000).startswith(b"HTTP/1.1 100")
    connection.sendall(content)
    assert read_answer(connection)[0] == 200
