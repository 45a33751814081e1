"""Who is refused while a large body is on its way reads why, and not that the connection was reset."""

from __future__ import annotations

import contextlib
import json
import socket
import threading

import httpx
import pytest

from sheaf.embedded import EmbeddedServer
from sheaf.http.keys import Access, ApiKey, hash_of
from sheaf.http.limits import Limits
from tests.attack.conftest import Serve
from tests.engine.harness import wait_until
from tests.http.conftest import GOOD, answers_of, connect, head, read_answer, whole

SIZE = 8 * 2**20
KEYS = Access(keys=(ApiKey(name="ann", sha256=hash_of("ordinary")),))
CLOSE = {"connection": "close"}
LENGTH = {"content-length": str(SIZE)}


def send_all_then_read(server: EmbeddedServer, start: bytes, size: int = SIZE) -> bytes:
    """As most clients do: the answer is looked for once the body is sent. A reset fails the test."""
    with connect(server) as connection:
        connection.sendall(start)
        piece = b" " * 65536
        for _ in range(size // len(piece)):
            connection.sendall(piece)
        connection.shutdown(socket.SHUT_WR)
        parts: list[bytes] = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("last", [CLOSE, {}], ids=["closing", "kept"])
@pytest.mark.parametrize(
    ("start", "status", "limits", "access"),
    [
        (head(**LENGTH), 413, Limits(max_body=2**22), None),
        (head(**{**LENGTH, "content-type": "text/plain"}), 415, Limits(), None),
        (head(**{**LENGTH, "content-encoding": "br"}), 415, Limits(), None),
        (head(**LENGTH), 401, Limits(), KEYS),
        (head("/none/predict", **LENGTH), 404, Limits(), None),
        (head("/echo/time_series/none", **LENGTH), 404, Limits(), None),
    ],
    ids=["413", "415", "encoding", "401", "404", "operation"],
)
def test_why_it_is_refused_is_read(
    serve: Serve, start: bytes, status: int, limits: Limits, access: Access | None, last: dict[str, str]
) -> None:
    server = serve(limits=limits, access=access)
    for name, value in last.items():
        start = start[:-2] + f"{name}: {value}\r\n\r\n".encode()
    ((told, fields, content),) = answers_of(send_all_then_read(server, start))
    assert told == status
    assert fields["content-type"] == "application/problem+json"
    assert json.loads(content)["status"] == told
    assert ("connection" in fields) == bool(last)
    assert httpx.get(f"{server.url}/echo/ready").status_code == 200


@pytest.mark.parametrize(
    "start",
    [
        head(**LENGTH, x="a" * 40_000),
        head(**LENGTH, **{f"x{n}": "y" for n in range(200)}),
        head(**LENGTH).replace(b"host: localhost\r\n", b""),
        b"garbage\r\n\r\n",
    ],
    ids=["a long head", "many lines", "no host", "garbage"],
)
def test_what_is_wrong_with_a_head_is_read(serve: Serve, start: bytes) -> None:
    # What is no request may be anything: less of it is waited for.
    ((status, fields, _),) = answers_of(send_all_then_read(serve(), start, 512 * 1024))
    assert status in (400, 431)
    assert fields["connection"] == "close"


def test_who_goes_on_for_ever_is_let_go(serve: Serve) -> None:
    server = serve(limits=Limits(max_body=2**20))
    with connect(server) as connection:
        connection.sendall(head(**{**LENGTH, "content-length": str(2**40)}, **CLOSE))
        assert read_answer(connection)[0] == 413
        sent, piece = 0, b" " * 65536
        with contextlib.suppress(ConnectionError):
            while sent < 2**30:
                sent += connection.send(piece)
    assert sent < 2**26  # four times the limit, and what the sockets hold


def test_who_stays_silent_is_let_go(serve: Serve) -> None:
    server = serve(limits=Limits(max_body=1000, head_timeout=0.3))
    with connect(server) as connection:
        connection.sendall(head(**LENGTH, **CLOSE))
        assert read_answer(connection)[0] == 413
        assert connection.recv(1) == b""  # nothing more is written
        assert server._server is not None
        connections = server._server.server_state.connections
        wait_until(lambda: not connections)


def test_a_whole_request_ends_its_connection_at_once(serve: Serve) -> None:
    server = serve(limits=Limits(head_timeout=600))
    with connect(server) as connection:
        connection.sendall(whole(**CLOSE))
        assert read_answer(connection)[0] == 200
        assert server._server is not None
        connections = server._server.server_state.connections
        wait_until(lambda: not connections)


def test_a_body_that_comes_slowly_and_whole_is_no_early_end(serve: Serve) -> None:
    server = serve(limits=Limits(head_timeout=600))
    sent = whole({**GOOD, "item_id": "x" * 200}, **CLOSE)
    with connect(server) as connection:
        pause = threading.Event()
        for start in range(0, len(sent), 150):
            connection.sendall(sent[start : start + 150])
            pause.wait(0.01)
        assert read_answer(connection)[0] == 200
        assert connection.recv(1) == b""
