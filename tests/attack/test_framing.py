"""What is no HTTP/1.1, or can be read in two ways, is answered by 400 and the end of the connection."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator

import pytest

from sheaf.embedded import EmbeddedServer
from tests.attack.conftest import Serve
from tests.http.conftest import ECHO, GOOD, answers_of, connect, head, read_all, read_answer, whole

CONTENT = json.dumps(GOOD).encode()
CHUNK = b"%x\r\n%b\r\n" % (len(CONTENT), CONTENT)
#: What a reader that is fooled would take for a request of its own.
SMUGGLED = b"GET /models HTTP/1.1\r\nhost: localhost\r\n\r\n"


def post(*lines: bytes, body: bytes = b"", first: bytes = b"POST /echo/predict HTTP/1.1") -> bytes:
    return b"\r\n".join([first, b"host: localhost", b"content-type: application/json", *lines, b"", body])


LENGTH = b"content-length: %d" % len(CONTENT)
CHUNKED = b"transfer-encoding: chunked"
REFUSED = {
    "both lengths": post(LENGTH, CHUNKED, body=CHUNK + b"0\r\n\r\n" + SMUGGLED),
    "both, the other way round": post(CHUNKED, LENGTH, body=CHUNK + b"0\r\n\r\n" + SMUGGLED),
    "length twice": post(LENGTH, b"content-length: 0", body=CONTENT),
    "length as a list": post(b"content-length: 5, 5", body=b"     "),
    "signed length": post(b"content-length: +5", body=b"     "),
    "negative length": post(b"content-length: -5", body=b"     "),
    "hexadecimal length": post(b"content-length: 0x5", body=b"     "),
    "length of 2^64": post(b"content-length: 18446744073709551616", body=b"     "),
    "length with a space": post(b"content-length: 1 0", body=b"     "),
    "length before a space": post(b"content-length : 5", body=b"     "),
    "xchunked": post(b"transfer-encoding: xchunked", body=CHUNK + b"0\r\n\r\n"),
    "chunked and more": post(b"transfer-encoding: chunked, identity", body=CHUNK + b"0\r\n\r\n"),
    "chunked with a tab": post(b"transfer-encoding:\x0bchunked", body=CHUNK + b"0\r\n\r\n"),
    "folded": post(b"transfer-encoding:\r\n chunked", body=CHUNK + b"0\r\n\r\n"),
    "a folded line": post(b"x: a\r\n b", LENGTH, body=CONTENT),
    "a bare LF": post(b"x: a\ny: b", LENGTH, body=CONTENT),
    "a bare CR": post(b"x: a\ry: b", LENGTH, body=CONTENT),
    "a bare LF at the end": b"GET /models HTTP/1.1\nhost: localhost\n\n",
    "an end that is none": b"GET /models HTTP/1.1\r\nhost: localhost\r\n\rX\r\n\r\n",
    "NUL in a name": post(b"x\x00y: a", LENGTH, body=CONTENT),
    "NUL in a value": post(b"x: a\x00b", LENGTH, body=CONTENT),
    "a line without a colon": post(b"x", LENGTH, body=CONTENT),
    "a name of nothing": post(b": a", LENGTH, body=CONTENT),
    "a space in a name": post(b"x y: a", LENGTH, body=CONTENT),
    "a chunk of too many digits": post(CHUNKED, body=b"0" * 15 + b"fffffffffffffffff\r\n" + CONTENT),
    "a negative chunk": post(CHUNKED, body=b"-5\r\n     \r\n0\r\n\r\n"),
    "a chunk of 0x": post(CHUNKED, body=b"0x5\r\n     \r\n0\r\n\r\n"),
    "a chunk after a space": post(CHUNKED, body=b" 5\r\n     \r\n0\r\n\r\n"),
    "a chunk of no size": post(CHUNKED, body=b"\r\n     \r\n0\r\n\r\n"),
    "a chunk with a bare LF": post(CHUNKED, body=b"5\n     \r\n0\r\n\r\n"),
    "a chunk that goes on": post(CHUNKED, body=b"5\r\n      \r\n0\r\n\r\n"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/2.0 by its name": post(LENGTH, body=CONTENT, first=b"POST /echo/predict HTTP/2.0"),
    "HTTP/3.7": post(LENGTH, body=CONTENT, first=b"POST /echo/predict HTTP/3.7"),
    "HTTP/0.9": b"GET /models\r\n\r\n",
    "HTTP/0.9 by its name": b"GET /models HTTP/0.9\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "CONNECT": b"CONNECT x:1 HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "no host": b"GET /models HTTP/1.1\r\n\r\n",
    "no host among others": b"GET /models HTTP/1.1\r\naccept: */*\r\nuser-agent: x\r\n\r\n",
    "two hosts": b"GET /models HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n",
    "two hosts in HTTP/1.0": b"GET /models HTTP/1.0\r\nhost: localhost\r\nHost: y\r\n\r\n",
    "a host of two": b"GET /models HTTP/1.1\r\nhost: x y\r\n\r\n",
    "a host with a path": b"GET /models HTTP/1.1\r\nhost: x/y\r\n\r\n",
    "a host with a user": b"GET /models HTTP/1.1\r\nhost: x@y\r\n\r\n",
    "chunks in HTTP/1.0": post(CHUNKED, body=CHUNK + b"0\r\n\r\n", first=b"POST /echo/predict HTTP/1.0"),
    "two spaces before": b"GET  /models HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "two spaces behind": b"GET /models  HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "a tab": b"GET\t/models HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "a space at the end": b"GET /models HTTP/1.1 \r\nhost: localhost\r\n\r\n",
    "a space at the beginning": b" GET /models HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "a method in small letters": b"get /models HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "a name in small letters": b"GET /models http/1.1\r\nhost: localhost\r\n\r\n",
    "no address": b"GET  HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "an address of two": b"GET /a /models HTTP/1.1\r\nhost: localhost\r\n\r\n",
}
TAKEN = {
    "a length": post(LENGTH, body=CONTENT),
    "chunks": post(CHUNKED, body=CHUNK + b"0\r\n\r\n"),
    "chunks in other letters": post(b"Transfer-Encoding: Chunked", body=CHUNK + b"0\r\n\r\n"),
    "chunks with extensions": post(CHUNKED, body=CHUNK.replace(b"\r\n", b";a=b\r\n", 1) + b"0\r\n\r\n"),
    "fields behind chunks": post(CHUNKED, body=CHUNK + b"0\r\nx: y\r\n\r\n"),
    "an empty line before": b"\r\n" + post(LENGTH, body=CONTENT),
    "space around a value": post(b"x:  a \t", LENGTH, body=CONTENT),
    "a value of nothing": post(b"x:", LENGTH, body=CONTENT),
    "an absolute address": post(LENGTH, body=CONTENT, first=b"POST http://x/echo/predict HTTP/1.1"),
    "an address with a query": post(LENGTH, body=CONTENT, first=b"POST /echo/predict?a=b%20c HTTP/1.1"),
    "HTTP/1.0": post(LENGTH, body=CONTENT, first=b"POST /echo/predict HTTP/1.0"),
    "HTTP/1.0 without a host": post(LENGTH, body=CONTENT, first=b"POST /echo/predict HTTP/1.0").replace(
        b"host: localhost\r\n", b""
    ),
}


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer(ECHO, port=0) as running:
        yield running


@pytest.mark.parametrize("sent", REFUSED.values(), ids=REFUSED)
def test_it_is_refused_and_nothing_is_smuggled(
    server: EmbeddedServer, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(server) as connection:
        connection.sendall(sent + SMUGGLED)
        ((status, fields, content),) = answers_of(read_all(connection))
    assert (status, fields["connection"]) == (400, "close")
    assert json.loads(content)["code"] == "malformed"
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("sent", TAKEN.values(), ids=TAKEN)
def test_it_is_taken(server: EmbeddedServer, sent: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(sent)
        status, answer = read_answer(connection)
    assert (status, answer["mean"]) == (200, [2, 2])


def in_single_bytes(server: EmbeddedServer, sent: bytes) -> list[int]:
    """The statuses of all answers, with a whole request before; however the network cuts what is sent."""
    with connect(server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(whole())
        with contextlib.suppress(OSError):  # the server may have ended the connection by then
            for place in range(len(sent)):
                connection.sendall(sent[place : place + 1])
        return [status for status, _, _ in answers_of(read_all(connection))]


@pytest.mark.parametrize("sent", REFUSED.values(), ids=REFUSED)
def test_it_is_refused_byte_for_byte_and_behind_another(server: EmbeddedServer, sent: bytes) -> None:
    assert in_single_bytes(server, sent + SMUGGLED) == [200, 400]


@pytest.mark.parametrize("sent", TAKEN.values(), ids=TAKEN)
def test_it_is_taken_byte_for_byte_and_behind_another(server: EmbeddedServer, sent: bytes) -> None:
    last = [] if b"HTTP/1.0" in sent else [200]
    assert in_single_bytes(server, sent + whole(connection="close")) == [200, 200, *last]


def test_the_rest_of_a_get_is_its_body(serve: Serve) -> None:
    rest = bytearray()
    with connect(serve()) as connection:
        start = b"GET /echo/ready HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(SMUGGLED)
        connection.sendall(start + SMUGGLED + whole())
        assert read_answer(connection, rest)[1]["status"] == "ready"
        assert read_answer(connection, rest)[1]["mean"] == [2, 2]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_client_of_http_1_0_is_asked_for_nothing(server: EmbeddedServer, version: str) -> None:
    lines = [
        b"POST /echo/predict HTTP/" + version.encode(),
        b"host: localhost",
        b"content-type: application/json",
    ]
    start = b"\r\n".join([*lines, LENGTH, b"expect: 100-continue", b"connection: close", b"", b""])
    with connect(server) as connection:
        connection.sendall(start)
        if version == "1.1":
            assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(CONTENT)
        assert read_all(connection).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_behind_an_upgrade_is_no_request(serve: Serve, protocol: str, *, chunked: bool) -> None:
    hidden = whole()
    framing = {"transfer-encoding": "chunked"} if chunked else {"content-length": str(len(hidden))}
    with connect(serve()) as connection:
        connection.sendall(head(connection="Upgrade", upgrade=protocol, **framing))
        with contextlib.suppress(OSError):  # it is closed by now
            connection.sendall(hidden)
        answers = answers_of(read_all(connection))
    assert [status for status, _, _ in answers] == [400]
    assert answers[0][1]["connection"] == "close"


def test_who_would_change_the_protocol_is_answered_in_this_one(serve: Serve) -> None:
    fields = b"Host: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n"
    with connect(serve()) as connection:
        connection.sendall(b"GET /echo/health HTTP/1.1\r\n" + fields + b"\r\n" + whole())
        answers = answers_of(read_all(connection))
    assert [status for status, _, _ in answers] == [200]
    assert answers[0][1]["connection"] == "close"
