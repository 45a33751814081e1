"""Fields behind a body are bounded as its head is, and are nothing of the request."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest

from sheaf.http.keys import Access, ApiKey, hash_of
from sheaf.http.limits import Limits
from tests.http.conftest import GOOD, Serve, connect, head, read_all, read_answer, whole

LIMITS = Limits(max_head=4096)
KEYS = Access(keys=(ApiKey(name="ann", sha256=hash_of("ordinary")),))
CONTENT = json.dumps(GOOD).encode()
CHUNKED = head(**{"transfer-encoding": "chunked"}) + b"%x\r\n%b\r\n0\r\n" % (len(CONTENT), CONTENT)


@pytest.mark.parametrize("access", [None, KEYS], ids=["open", "with keys and none sent"])
def test_endless_trailers_end_with_the_limit_of_heads(serve: Serve, access: Access | None) -> None:
    server = serve(limits=LIMITS, access=access)
    with connect(server) as attacker:
        sent = 0
        attacker.sendall(CHUNKED)
        with suppress(ConnectionError):
            while sent < 64 * 2**20:
                sent += attacker.send(b"a:b\r\n" * 200)
    assert sent < 8 * 2**20  # what the sockets of both ends hold
    with connect(server) as other:
        other.sendall(whole(**{"x-api-key": "ordinary"}))
        assert read_answer(other)[0] == 200


@pytest.mark.parametrize("part", [b"a:b\r\n", b"x-much: ", b"1;x="], ids=["fields", "a field", "a chunk"])
def test_what_is_no_content_of_a_body_is_bounded(serve: Serve, part: bytes) -> None:
    with connect(serve(limits=LIMITS)) as connection:
        connection.sendall(CHUNKED if b":" in part else CHUNKED[:-3])
        # The body has not ended, so that nothing was answered yet.
        with suppress(ConnectionError):
            connection.sendall(part * 2 + b"a" * 2**20)
        answer = read_all(connection)
        # What the server has not read may reset the answer away.
        assert not answer or answer.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")


def test_trailers_are_no_headers_of_the_request(serve: Serve) -> None:
    with connect(serve(limits=LIMITS)) as connection:
        connection.sendall(CHUNKED + b"x-request-id: of-the-trailer\r\nx-sheaf-timeout: 0\r\n\r\n" + whole())
        rest = bytearray()
        for _ in range(2):
            status, answer = read_answer(connection, rest)
            assert status == 200
            assert answer["request_id"] != "of-the-trailer"
