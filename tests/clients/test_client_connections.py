"""Connections that break under the Python client: tried again once where no answer had begun, never later."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import httpx
import pytest

from sheaf_client import AsyncSheaf, BadResponseError, ConnectionFailedError, ProgressEvent, Sheaf
from sheaf_client._retry import RetryPolicy
from sheaf_client.errors import OverloadedError
from tests.clients.scripted import ANSWER, EVENTS, ID, refusal, scripted
from tests.clients.scripted import CALL as CALL_BY_ID

#: Each call with an identifier of its own.
CALL = {name: value for name, value in CALL_BY_ID.items() if name != "request_id"}
#: What a server does with one request of that identifier; false closes the connection.
Deed: TypeAlias = Callable[[socket.socket, str], bool]


class Scripted:
    """A server of bare sockets: one deed per request, the last for all that follow.

    `received` has the number of the connection and the idempotency key of each request.
    """

    def __init__(self, *deeds: Deed) -> None:
        self._deeds = deeds
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.received: list[tuple[int, str]] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        number = 0
        while True:
            connection, _ = self._listener.accept()
            with connection, connection.makefile("rb") as sent:
                number += 1
                while headers := _read(sent):
                    if "stop" in headers:
                        return
                    deed = self._deeds[min(len(self.received), len(self._deeds) - 1)]
                    self.received.append((number, headers["idempotency-key"]))
                    if not deed(connection, headers["x-request-id"]):
                        break

    def close(self) -> None:
        with socket.create_connection(self._listener.getsockname()) as last:
            last.sendall(b"GET / HTTP/1.1\r\nstop: now\r\n\r\n")
            self._thread.join(20)
        self._listener.close()


def _read(sent: Any) -> dict[str, str]:
    """The headers of the next request, its body skipped; empty where the client has left."""
    if not sent.readline():
        return {}
    headers: dict[str, str] = {}
    while line := sent.readline().strip():
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    sent.read(int(headers.get("content-length", "0")))
    return headers


def says(head: str, body: bytes, *, goes_on: bool = False) -> Deed:
    def deed(connection: socket.socket, request_id: str) -> bool:
        connection.sendall(f"{head}\r\n\r\n".encode() + body.replace(ID.encode(), request_id.encode()))
        return goes_on

    return deed


BODY = json.dumps(ANSWER).encode()
SIZED = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(BODY)}"
answers = says(SIZED, BODY, goes_on=True)


def closes(connection: socket.socket, request_id: str) -> bool:
    return False


def resets(connection: socket.socket, request_id: str) -> bool:
    """A close that the client sees as ECONNRESET."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


@pytest.fixture
def serve() -> Iterator[Callable[..., Scripted]]:
    servers: list[Scripted] = []

    def start(*deeds: Deed) -> Scripted:
        servers.append(Scripted(*deeds))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def forecasts(url: str, times: int = 1, **settings: Any) -> None:
    with Sheaf(url, timeout=20, **settings) as client:
        for _ in range(times):
            assert client.time_series.forecast(**CALL).mean == [1.0]


def awaited_forecasts(url: str, times: int = 1, **settings: Any) -> None:
    async def use() -> None:
        async with AsyncSheaf(url, timeout=20, **settings) as client:
            for _ in range(times):
                assert (await client.time_series.forecast(**CALL)).mean == [1.0]

    asyncio.run(use())


both_clients = pytest.mark.parametrize("ask", [forecasts, awaited_forecasts])
both_ends = pytest.mark.parametrize("ends", [closes, resets])


@both_clients
@both_ends
def test_a_kept_connection_that_the_server_closes_is_made_again(
    serve: Callable[..., Scripted], ask: Callable[..., None], ends: Deed
) -> None:
    server = serve(answers, ends, answers)
    ask(server.url, times=2, max_retries=1)
    assert [number for number, _ in server.received] == [1, 1, 2]
    first, second, third = [key for _, key in server.received]
    assert first != second == third


@both_clients
@both_ends
@pytest.mark.parametrize(("retries", "tries"), [(0, 1), (1, 2), (5, 2)])
def test_a_request_that_is_never_answered_is_sent_twice_at_most(
    serve: Callable[..., Scripted], ask: Callable[..., None], ends: Deed, retries: int, tries: int
) -> None:
    server = serve(ends)
    with pytest.raises(ConnectionFailedError) as caught:
        ask(server.url, max_retries=retries)
    assert (caught.value.unanswered, caught.value.unsent) == (True, False)
    assert len(server.received) == tries


@both_clients
@pytest.mark.parametrize(
    "breaks",
    [
        says(SIZED, BODY[:10]),
        says("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked", b"a\r\n" + BODY[:10] + b"\r\n"),
        says("HTTP/1.1 503 Busy\r\ncontent-length: 100", b"{"),
    ],
    ids=["sized", "chunked", "refusal"],
)
def test_a_call_whose_answer_had_begun_is_not_sent_again(
    serve: Callable[..., Scripted], ask: Callable[..., None], breaks: Deed
) -> None:
    server = serve(answers, breaks)
    with pytest.raises(ConnectionFailedError) as caught:
        ask(server.url, times=2)
    assert not caught.value.unanswered
    assert len(server.received) == 2


@both_clients
def test_what_is_not_http_is_a_bad_response_and_is_not_asked_again(
    serve: Callable[..., Scripted], ask: Callable[..., None]
) -> None:
    server = serve(answers, says("This is not HTTP", b""))
    with pytest.raises(BadResponseError, match="does not answer by HTTP"):
        ask(server.url, times=2)
    assert len(server.received) == 2


@pytest.mark.parametrize("kind", [httpx.Client, httpx.AsyncClient])
def test_a_reset_in_the_middle_of_an_answer_is_not_taken_for_no_answer(
    serve: Callable[..., Scripted], kind: type[httpx.Client | httpx.AsyncClient]
) -> None:
    begun = threading.Event()

    def breaks(connection: socket.socket, request_id: str) -> bool:
        says(SIZED, BODY[:10])(connection, request_id)
        assert begun.wait(20)
        return resets(connection, request_id)

    def note(response: httpx.Response) -> None:
        begun.set()

    async def note_async(response: httpx.Response) -> None:
        begun.set()

    ask, hook = (forecasts, note) if kind is httpx.Client else (awaited_forecasts, note_async)
    server = serve(breaks)
    with pytest.raises(ConnectionFailedError) as caught:
        ask(server.url, http_client=kind(event_hooks={"response": [hook]}))
    assert isinstance(caught.value.__cause__, httpx.ReadError)
    assert not caught.value.unanswered
    assert len(server.received) == 1


def test_a_stream_is_sent_again_until_it_begins_and_not_after(serve: Callable[..., Scripted]) -> None:
    read = threading.Event()

    def breaks(connection: socket.socket, request_id: str) -> bool:
        says("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream", EVENTS[0])(connection, request_id)
        assert read.wait(20)
        return resets(connection, request_id)

    server = serve(closes, breaks)
    with Sheaf(server.url) as client, client.time_series.stream(**CALL) as stream:
        assert isinstance(next(stream), ProgressEvent)
        read.set()
        with pytest.raises(ConnectionFailedError) as caught:
            next(stream)
    assert not caught.value.unanswered
    assert len(server.received) == 2


def test_a_refusal_between_does_not_allow_a_third_try_without_an_answer() -> None:
    client, seen = scripted(
        httpx.ReadError("reset"), refusal("overloaded"), httpx.WriteError("pipe"), max_retries=5
    )
    with pytest.raises(ConnectionFailedError):
        client.time_series.forecast(**CALL)
    assert len(seen) == 3


def test_an_unanswered_try_is_repeated_without_a_pause_and_within_the_deadline() -> None:
    policy = RetryPolicy(max_retries=2, deadline=100.0, draw=lambda: 0.0)
    lost = ConnectionFailedError(unanswered=True)
    assert policy.delay(lost, 0, 99.0, repeated=False) == 0
    assert policy.delay(lost, 0, 100.0, repeated=False) is None
    assert policy.delay(OverloadedError(retry_after=0.5), 1, 99.0, repeated=True) == 0.5
