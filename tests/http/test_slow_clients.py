"""Clients that dribble, stall, or take no answers, over sockets that speak for themselves."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from sheaf.embedded import EmbeddedServer
from sheaf.http.limits import Limits
from sheaf.spec import ModelSpec
from sheaf_client import ProgressEvent
from tests.echoes import Echo
from tests.http.conftest import ECHO, GOOD, Serve, connect, dribbling, head, read_all, read_answer, whole

CHUNKED = {"transfer-encoding": "chunked"}


def parsed(answer: bytes) -> tuple[int, Any]:
    """Status and document of an answer."""
    top, _, body = answer.partition(b"\r\n\r\n")
    return int(top.split()[1]), json.loads(body)


@contextlib.contextmanager
def still_serving(server: EmbeddedServer) -> Iterator[None]:
    yield
    assert httpx.post(f"{server.url}/echo/predict", json=GOOD, timeout=20).status_code == 200


@pytest.mark.parametrize("sent", [b"", b"POST /echo/pre", head()[:-2], b"\r\n\r\n", whole()[:-1]])
def test_a_client_that_stalls_is_let_go(serve: Serve, sent: bytes) -> None:
    server = serve(limits=Limits(head_timeout=0.3, idle_timeout=0.3))
    with still_serving(server), connect(server) as connection:
        connection.sendall(sent)
        answer = read_all(connection) if not sent.startswith(head()[:20]) else connection.recv(65536)
    if sent.startswith(b"POST"):
        status, problem = parsed(answer)
        assert (status, problem["code"]) == (408, "too_slow")
        assert "did not come in time" in problem["detail"]
    else:
        assert answer == b""


def test_a_head_that_dribbles_ends_however_steadily_it_comes(serve: Serve) -> None:
    server = serve(limits=Limits(head_timeout=0.5))
    with still_serving(server), connect(server) as connection:
        connection.sendall(b"GET /models HTTP/1.1\r\nx: ")
        with dribbling(connection, b"a"):
            answer = read_all(connection)
    assert parsed(answer)[0] == 408


class Quick(Echo):
    """Answers as its requests are read."""

    inline = True


def test_a_connection_in_use_is_kept_and_one_that_is_not_let_go(serve: Serve) -> None:
    limits = Limits(head_timeout=0.3)
    server = serve(ModelSpec(name="echo", backend_cls=Quick), limits)
    until = time.monotonic() + 3 * limits.head_timeout
    with connect(server) as connection:
        while time.monotonic() < until:
            connection.sendall(whole())
            assert read_answer(connection)[0] == 200
        connection.sendall(b"GET /models HTTP/1.1\r\nx: ")
        with dribbling(connection, b"a"):
            assert parsed(read_all(connection))[0] == 408


def test_a_body_that_dribbles_ends_however_steadily_it_comes(serve: Serve) -> None:
    server = serve(limits=Limits(body_timeout=0.5, min_rate=1000, idle_timeout=30))
    with still_serving(server), connect(server) as connection:
        connection.sendall(head(**CHUNKED))
        with dribbling(connection, b"1\r\n \r\n"):
            status, problem = read_answer(connection)
    assert (status, problem["code"]) == (408, "too_slow")
    assert problem["request_id"]


def test_a_body_that_keeps_its_rate_may_take_its_time(serve: Serve) -> None:
    server = serve(limits=Limits(body_timeout=0.05, min_rate=100, idle_timeout=30))
    content = json.dumps({**GOOD, "history": [1.0] * 500}).encode()
    with connect(server) as connection:
        connection.sendall(head(**{"content-length": str(len(content))}))
        pause = threading.Event()
        for start in range(0, len(content), 500):
            connection.sendall(content[start : start + 500])
            pause.wait(0.05)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_chunks_obey_the_limit_and_may_not_be_dust(serve: Serve) -> None:
    server = serve(limits=Limits(max_body=100_000))
    with still_serving(server), connect(server) as connection:
        connection.sendall(head(**CHUNKED))
        with contextlib.suppress(OSError):
            for _ in range(20):
                connection.sendall(b"2710\r\n" + b" " * 10_000 + b"\r\n")
        assert read_answer(connection)[0] == 413


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nx: " + b"a" * 300_000,
        b"GET /" + b"a" * 300_000,
        b"GET / HTTP/1.1\r\n" + b"".join(b"x%d: y\r\n" % n for n in range(500)) + b"\r\n",
        b"GET / HTTP/1.1\r\nx: " + b"a" * 50_000 + b"\r\n\r\n",
    ],
    ids=["one line", "address", "many lines", "whole"],
)
def test_a_head_that_is_too_large_is_refused(serve: Serve, sent: bytes) -> None:
    server = serve()
    with still_serving(server), connect(server) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(sent)
        answer = read_all(connection)
    # Where the client was still sending, its system may drop the answer.
    if answer:
        assert parsed(answer)[0] == 431


def test_what_is_no_http_is_answered_by_a_problem(serve: Serve) -> None:
    server = serve()
    with still_serving(server), connect(server) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        status, problem = parsed(read_all(connection))
    assert (status, problem["code"]) == (400, "malformed")


def test_a_large_body_after_a_small_head_is_no_large_head(serve: Serve) -> None:
    server = serve()
    body = {**GOOD, "history": [1.0] * 60_000}
    with connect(server) as connection:
        for _ in range(3):
            connection.sendall(whole(body))
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_the_rest_of_a_refused_body_is_not_awaited_for_ever(serve: Serve) -> None:
    server = serve(limits=Limits(max_body=1000, head_timeout=0.5))
    with still_serving(server), connect(server) as connection:
        connection.sendall(head(**{"content-length": "2000"}))
        assert read_answer(connection)[0] == 413
        with dribbling(connection, b"1\r\n \r\n"):
            read_all(connection)


class Wide(Echo):
    """Answers with as many numbers as a contract allows."""

    def answer(self, request: Any) -> Any:
        answer = super().answer(request)
        return answer.model_copy(update={"quantiles": {"0.5": [0.1234567] * 2_000_000}})


def closed(server: EmbeddedServer) -> bool:
    assert server._server is not None
    return not server._server.server_state.connections


def small_reader(server: EmbeddedServer) -> socket.socket:
    """A connection that can hold little of an answer."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", int(server.url.rsplit(":", 1)[1])))
    connection.settimeout(20)
    return connection


def test_an_answer_that_nobody_takes_is_dropped(serve: Serve) -> None:
    server = serve([ModelSpec(name="wide", backend_cls=Wide), ECHO], limits=Limits(write_timeout=0.5))
    with still_serving(server), small_reader(server) as connection:
        connection.sendall(whole(path="/wide/predict"))
        assert connection.recv(10).startswith(b"HTTP/1.1 2")
        assert len(read_later(connection, server)) < 20_000_000


def read_later(connection: socket.socket, server: EmbeddedServer) -> bytes:
    """What is left of an answer once the server has closed its end."""
    ended = threading.Event()
    while not closed(server):
        ended.wait(0.02)
    return read_all(connection)


class Endless(Echo):
    """Streams until it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = threading.Event()

    def stream(self, request: Any) -> Iterator[Any]:
        try:
            for step in itertools.count(1):
                yield ProgressEvent(step=step, total_steps=step)
        finally:
            self.closed.set()


def test_a_stream_that_nobody_reads_ends_its_work(serve: Serve) -> None:
    server = serve([ModelSpec(name="endless", backend_cls=Endless), ECHO], limits=Limits(write_timeout=0.5))
    backend = server._models.get("endless").backend
    assert isinstance(backend, Endless)
    with still_serving(server), small_reader(server) as connection:
        connection.sendall(whole(path="/endless/stream"))
        assert backend.closed.wait(60)


@pytest.mark.parametrize("upgrade", ["websocket", "h2c"])
def test_upgrades_are_not_taken(serve: Serve, upgrade: str) -> None:
    server = serve()
    with still_serving(server), connect(server) as connection:
        connection.sendall(
            b"GET /models HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade, close\r\nupgrade: %b\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            % upgrade.encode()
        )
        assert b" 101 " not in connection.recv(65536)
