"""A body that begins fast may not be slow after it: what it holds of the server's memory is free again."""

from __future__ import annotations

import contextlib
import json
import socket
import threading

import httpx
import pytest

from sheaf.embedded import EmbeddedServer
from sheaf.http.limits import Limits
from sheaf.http.patience import Patience
from tests.engine.harness import wait_until
from tests.http.conftest import GOOD, Serve, connect, dribbling, head, read_answer

MIB = 2**20
#: A valid request of a mebibyte and a fifth.
LARGE = b"{" + b" " * (MIB + MIB // 5) + json.dumps(GOOD).encode()[1:]
#: Half of it is for one address: five of these. By its rate from the first byte on, one could take 128 s.
LIMITS = Limits(max_body=2 * MIB, max_memory=13 * MIB, body_timeout=3, idle_timeout=1.5, min_rate=8192)


def begin(server: EmbeddedServer) -> socket.socket:
    """Send a body at once, but for its last 4 KiB."""
    connection = connect(server)
    connection.sendall(head(**{"content-length": str(len(LARGE) + 4096)}) + LARGE)
    return connection


def post(server: EmbeddedServer) -> int:
    headers = {"content-type": "application/json"}
    url = f"{server.url}/echo/predict"
    return httpx.post(url, content=LARGE, headers=headers, timeout=20).status_code


def test_a_fast_beginning_buys_no_slow_rest(serve: Serve) -> None:
    server = serve(limits=LIMITS)
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(begin(server)) for _ in range(5)]
        wait_until(lambda: post(server) == 503)
        for connection in slow:
            stack.enter_context(dribbling(connection, b" "))
        # By the rate from the first byte it would be two minutes.
        wait_until(lambda: post(server) == 200, 30)
        for connection in slow:
            status, problem = read_answer(connection)
            assert (status, problem["code"]) == (408, "too_slow")


def test_a_body_that_keeps_its_rate_is_taken_however_long_it_takes(serve: Serve) -> None:
    limits = Limits(body_timeout=0.2, idle_timeout=0.2, min_rate=10_000)
    content = b"{" + b" " * 20_000 + json.dumps(GOOD).encode()[1:]
    with connect(serve(limits=limits)) as connection:
        connection.sendall(head(**{"content-length": str(len(content))}))
        pause = threading.Event()
        for start in range(0, len(content), 1000):
            connection.sendall(content[start : start + 1000])
            pause.wait(0.03)
        assert read_answer(connection)[0] == 200


@pytest.mark.parametrize(
    ("pieces", "ends"),
    [
        ([(0, 0)], 10),  # nothing came
        ([(0, 32 * MIB), (9, 1), (18, 1), (27, 1)], 30),  # fast, then as slow as it may be
        ([(0, 1), (9, 1), (18, 1), (27, 1)], 30),  # slow from the beginning
        ([(t, 8192) for t in range(100)], 99 + 10),  # at the rate: until it pauses
        ([(t, 4096) for t in range(60)], 40),  # at half of it, which is too slow
        ([*((t, 8192) for t in range(100)), *((100 + 5 * n, 1) for n in range(3))], 109),
    ],
)
def test_the_rate_is_that_of_late(pieces: list[tuple[float, int]], ends: float) -> None:
    patience = Patience(Limits(), 0.0)
    until = patience.until(0.0)
    for now, came in pieces:
        if now > until:
            break
        until = patience.until(now, came)
    assert until == pytest.approx(ends, abs=1)
