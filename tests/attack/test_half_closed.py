"""Clients that say that they send no more: what they sent whole is answered, who has left is let go."""

from __future__ import annotations

import json
import socket

import pytest

from sheaf.embedded import EmbeddedServer
from sheaf.spec import ModelSpec
from tests.attack.conftest import Serve
from tests.echoes import Echo, Gated, Stepping
from tests.engine.harness import wait_until
from tests.http.conftest import GOOD, answers_of, connect, head, read_all, read_answer, whole

SLOW = ModelSpec(name="slow", backend_cls=Echo, backend_kwargs={"seconds": 0.3})
STEPS = ModelSpec(name="steps", backend_cls=Stepping, backend_kwargs={"seconds": 0.03})
GATED = ModelSpec(name="gated", backend_cls=Gated, batch_policy={"max_batch_size": 1})
ECHO = ModelSpec(name="echo", backend_cls=Echo)
OLD = b"GET /echo/ready HTTP/1.0\r\n\r\n"


def half_closed(server: EmbeddedServer, sent: bytes) -> socket.socket:
    connection = connect(server)
    connection.sendall(sent)
    connection.shutdown(socket.SHUT_WR)
    return connection


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (whole(), [200]),
        (whole() * 3, [200] * 3),
        (whole(path="/slow/predict"), [200]),
        (whole(path="/slow/predict") * 2, [200] * 2),
        (whole(path="/slow/predict", connection="close"), [200]),
        (whole({"requests": [GOOD] * 3}, path="/slow/batch"), [200]),
        (whole({**GOOD, "history": [1.0] * 60_000}), [200]),
        (whole({}), [422]),
        (head() + b"GET / HTTP", [400]),  # a body of no bytes, and a head that has no end
        (whole(path="/slow/predict") + whole()[:-1], [200]),  # a body that has no end
        (whole(path="/slow/predict") + b"garbage\r\n\r\n", [200, 400]),
        (OLD, [200]),
        (whole(path="/slow/predict").replace(b"HTTP/1.1", b"HTTP/1.0"), [200]),
    ],
)
def test_what_is_whole_is_answered(serve: Serve, sent: bytes, statuses: list[int]) -> None:
    with half_closed(serve([ECHO, SLOW]), sent) as connection:
        assert [status for status, _, _ in answers_of(read_all(connection))] == statuses


def test_a_stream_goes_on_to_its_end(serve: Serve) -> None:
    server = serve(STEPS)
    with half_closed(server, whole({**GOOD, "horizon": 10}, path="/steps/stream")) as connection:
        told = read_all(connection)
    assert told.count(b"event: progress") == 10
    assert told.count(b"event: result") == 1


@pytest.mark.parametrize("sent", [b"", head()[:-2], whole()[:-1]], ids=["nothing", "a head", "a body"])
def test_what_is_not_whole_is_nothing(serve: Serve, sent: bytes) -> None:
    with half_closed(serve(), sent) as connection:
        assert read_all(connection) == b""


def test_a_kept_connection_ends_with_its_client(serve: Serve) -> None:
    with connect(serve()) as connection:
        connection.sendall(whole())
        assert read_answer(connection)[0] == 200
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == b""


@pytest.mark.parametrize("path", ["/gated/predict", "/gated/batch"])
def test_who_has_left_altogether_gives_up_the_place(serve: Serve, path: str) -> None:
    server = serve([GATED, ECHO])
    runtime = server._models.get("gated")
    assert isinstance(runtime.backend, Gated)
    body = {"requests": [GOOD]} if path.endswith("batch") else GOOD
    with connect(server) as busy:
        busy.sendall(whole(path="/gated/predict"))
        assert runtime.backend.entered.wait(20)
        stays = half_closed(server, whole(body, path=path))
        leaves = connect(server)
        leaves.sendall(whole(body, path=path))
        wait_until(lambda: runtime.depth == 2)
        leaves.close()
        wait_until(lambda: runtime.depth == 1)
        runtime.backend.gate.set()
        with stays:
            ((status, _, content),) = answers_of(read_all(stays))
        assert status == 200
        assert b"2.0" in content
        assert read_answer(busy)[0] == 200
    assert runtime.backend.sizes == [1, 1]


def test_who_leaves_a_stream_ends_it(serve: Serve) -> None:
    server = serve(STEPS)
    backend = server._models.get("steps").backend
    assert isinstance(backend, Stepping)
    connection = half_closed(server, whole({**GOOD, "horizon": 10_000}, path="/steps/stream"))
    wait_until(lambda: b"event: progress" in connection.recv(65536))
    connection.close()
    assert backend.closed.wait(20)


def test_an_answer_is_whole_however_large(serve: Serve) -> None:
    body = {**GOOD, "horizon": 10_000}
    with half_closed(serve([ECHO, SLOW]), whole(body, path="/slow/predict")) as connection:
        ((status, _, content),) = answers_of(read_all(connection))
    assert status == 200
    assert len(json.loads(content)["mean"]) == 10_000
