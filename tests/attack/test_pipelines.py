"""Several requests on their way at once: each whole one has its answer, and who leaves costs nothing more."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from sheaf.api.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf.embedded import EmbeddedServer
from sheaf.spec import ModelSpec
from tests.attack.conftest import Serve
from tests.echoes import Echo, Gated
from tests.engine.harness import wait_until
from tests.http.conftest import GOOD, answers_of, connect, head, read_all, read_answer, whole

GATED = ModelSpec(name="echo", backend_cls=Gated, batch_policy={"max_batch_size": 1})


def reset(connection: socket.socket) -> None:
    """Leave at once, whatever is on its way."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def gated(server: EmbeddedServer) -> Gated:
    backend = server._models.get("echo").backend
    assert isinstance(backend, Gated)
    return backend


def counted(server: EmbeddedServer, status: int) -> int:
    told = server._models.telemetry.exposition().decode().splitlines()
    start = f'sheaf_requests_total{{model="echo",route="predict",status="{status}"}}'
    return sum(int(float(line.split()[-1])) for line in told if line.startswith(start))


def numbered(count: int) -> bytes:
    return b"".join(whole({**GOOD, "history": [float(n)], "horizon": 1}) for n in range(count))


@pytest.mark.parametrize("how", ["resets", "closes"])
def test_who_leaves_with_several_on_their_way_is_seen_to(
    serve: Serve, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    server = serve(GATED)
    backend = gated(server)
    busy = connect(server)
    busy.sendall(whole())
    assert backend.entered.wait(20)
    leaving = [connect(server) for _ in range(10)]
    for connection in leaving:
        connection.sendall(whole() * 2)
    # One waits in line for each; the second is begun after the first.
    wait_until(lambda: server._models.get("echo").depth == 10)
    for connection in leaving:
        reset(connection) if how == "resets" else connection.close()
    wait_until(lambda: server._models.get("echo").depth == 0)
    wait_until(lambda: counted(server, 499) == 10)
    backend.gate.set()
    with busy:
        assert read_answer(busy)[0] == 200
    assert (counted(server, 200), counted(server, 500)) == (1, 0)
    assert backend.sizes == [1]
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("garbage", [b"\x00\x01 garbage\r\n\r\n", head()[:-2] + b"a b\r\n\r\n"])
@pytest.mark.parametrize("backend", [Echo, Gated], ids=["at once", "later"])
def test_what_was_whole_is_answered_before_the_connection_ends(
    serve: Serve, garbage: bytes, backend: type[Echo]
) -> None:
    server = serve(ModelSpec(name="echo", backend_cls=backend))
    with connect(server) as connection:
        connection.sendall(numbered(200) + garbage)
        if backend is Gated:
            assert gated(server).entered.wait(20)
            gated(server).gate.set()
        answers = answers_of(read_all(connection))
    assert [status for status, _, _ in answers] == [200] * 200 + [400]
    values = [json.loads(content)["mean"] for _, _, content in answers[:-1]]
    assert values == [[float(n)] for n in range(200)]
    assert json.loads(answers[-1][2])["code"] == "malformed"
    assert answers[-1][1]["connection"] == "close"


def test_a_body_that_breaks_behind_others_takes_none_along(serve: Serve) -> None:
    server = serve(GATED)
    with connect(server) as connection:
        connection.sendall(numbered(2) + head(**{"transfer-encoding": "chunked"}) + b"4\r\n{")
        assert gated(server).entered.wait(20)
        connection.sendall(b"   no end of a chunk\r\n")
        gated(server).gate.set()
        answers = answers_of(read_all(connection))
    assert [status for status, _, _ in answers] == [200, 200, 400]


class Held(Echo):
    """Waits in each call until the gate is open."""

    gate = threading.Event()
    begun = threading.Semaphore(0)

    def batch_predict(self, requests: Sequence[TimeSeriesRequest]) -> list[TimeSeriesResponse | Exception]:
        self.begun.release()
        assert self.gate.wait(20)
        return super().batch_predict(requests)


def test_what_comes_after_the_garbage_is_not_served(serve: Serve) -> None:
    server = serve(ModelSpec(name="echo", backend_cls=Held))
    Held.gate.clear()
    with connect(server) as connection:
        connection.sendall(whole() + b"garbage\r\n\r\n")
        assert Held.begun.acquire(timeout=20)
        connection.sendall(whole() * 3)
        Held.gate.set()
        assert [status for status, _, _ in answers_of(read_all(connection))] == [200, 400]


def test_many_whole_requests_are_answered_in_their_order(serve: Serve) -> None:
    server, rest = serve(), bytearray()
    with connect(server) as connection:
        connection.sendall(numbered(500))
        for number in range(500):
            status, answer = read_answer(connection, rest)
            assert (status, answer["mean"]) == (200, [float(number)])


def test_few_of_many_requests_are_read_ahead(serve: Serve) -> None:
    server = serve(GATED)
    with connect(server) as connection:
        connection.sendall(whole())
        assert gated(server).entered.wait(20)
        small, count = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 3000
        sending = threading.Thread(target=connection.sendall, args=(small * count + whole(),))
        sending.start()
        (protocol,) = protocols(server)
        wait_until(lambda: protocol.flow.read_paused)
        # A head takes kilobytes once it is read, and time: so few that others wait for none of it.
        assert 1 <= len(protocol.pipeline) < 50
        gated(server).gate.set()
        rest = bytearray()
        statuses = [read_answer(connection, rest)[0] for _ in range(count + 2)]
        sending.join()
    assert statuses == [200] + [404] * count + [200]


def test_requests_that_are_read_later_are_answered_to_who_sends_no_more(serve: Serve) -> None:
    server = serve()
    with connect(server) as connection:
        connection.sendall(numbered(300))
        connection.shutdown(socket.SHUT_WR)
        answers = answers_of(read_all(connection))
    assert [json.loads(content)["mean"] for _, _, content in answers] == [[float(n)] for n in range(300)]


def protocols(server: EmbeddedServer) -> list[Any]:
    """The connections of a server, as it holds them."""
    assert server._server is not None
    return list(server._server.server_state.connections)
