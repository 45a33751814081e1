"""What requests hold at once is bounded, and nothing of that bound is lost."""

from __future__ import annotations

import gzip
import json
import socket
from typing import Any

import httpx
import pytest

from sheaf.embedded import EmbeddedServer
from sheaf.http.limits import Limits
from tests.engine.harness import wait_until
from tests.http.conftest import GOOD, Serve, connect, head

MIB = 2**20
#: A valid request of a mebibyte: white space between its members.
BODY = (b"{" + b" " * MIB + json.dumps(GOOD).encode()[1:])[:-1] + b"}"
ROOM, HELD = Limits(max_body=2 * MIB, max_memory=16 * MIB), 4


@pytest.fixture
def server(serve: Serve) -> EmbeddedServer:
    """Room for four bodies of one address that are under way, one of them being read; not for a fifth."""
    return serve(limits=ROOM)


def begin(server: EmbeddedServer, *, chunked: bool = False) -> socket.socket:
    """Send all of a request but its last byte."""
    connection = connect(server)
    if chunked:
        size = f"{len(BODY):x}\r\n".encode()
        connection.sendall(head(**{"transfer-encoding": "chunked"}) + size + BODY[:-1])
    else:
        connection.sendall(head(**{"content-length": str(len(BODY))}) + BODY[:-1])
    return connection


def post(server: EmbeddedServer) -> httpx.Response:
    headers = {"content-type": "application/json"}
    return httpx.post(f"{server.url}/echo/predict", content=BODY, headers=headers, timeout=20)


@pytest.mark.parametrize("chunked", [False, True])
def test_what_is_too_much_at_once_is_refused_until_there_is_room(
    server: EmbeddedServer, *, chunked: bool
) -> None:
    held = [begin(server, chunked=chunked) for _ in range(HELD)]
    wait_until(lambda: post(server).status_code == 503)
    refused = post(server)
    assert (refused.json()["code"], refused.headers["retry-after"]) == ("overloaded", "1")
    small = httpx.post(f"{server.url}/echo/predict", json=GOOD)
    assert small.status_code == 200
    for connection in held:
        connection.sendall(BODY[-1:] + (b"\r\n0\r\n\r\n" if chunked else b""))
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.close()
    assert post(server).status_code == 200


def test_clients_that_go_away_or_stall_leave_their_room(serve: Serve) -> None:
    server = serve(limits=ROOM.model_copy(update={"idle_timeout": 1}))
    for _ in range(3):
        held = [begin(server) for _ in range(HELD)]
        wait_until(lambda: post(server).status_code == 503)
        held.pop().close()
        wait_until(lambda: post(server).status_code == 200)
        assert held[0].recv(65536).startswith(b"HTTP/1.1 408")
        for connection in held:
            connection.close()
    held = [begin(server) for _ in range(HELD)]
    wait_until(lambda: post(server).status_code == 503)
    for connection in held:
        connection.close()


def test_what_a_body_becomes_when_it_is_unpacked_counts(serve: Serve) -> None:
    server = serve(limits=ROOM.model_copy(update={"max_ratio": 10_000}))
    headers = {"content-type": "application/json", "content-encoding": "gzip"}

    def send() -> Any:
        url = f"{server.url}/echo/predict"
        return httpx.post(url, content=gzip.compress(BODY), headers=headers).status_code

    assert send() == 200
    held = [begin(server) for _ in range(HELD)]
    wait_until(lambda: send() == 503)
    for connection in held:
        connection.close()
    wait_until(lambda: send() == 200)


def test_one_body_of_the_full_size_is_always_taken(serve: Serve) -> None:
    server = serve(limits=Limits(max_body=2 * MIB, max_memory=1))
    assert post(server).status_code == 200
