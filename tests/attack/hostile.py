"""A server of raw sockets that answers as a test says, and the calls of a client in each of its forms."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import UUID

import pytest

from sheaf_client import AsyncSheaf, BadResponseError, Sheaf, SheafError

CALL: dict[str, Any] = {"model": "m", "history": [1.0, 2.0], "horizon": 1, "frequency": "1h"}
#: Gives the pieces of what is sent for a request, endless ones too.
Answer = Callable[[bytes], Iterable[bytes]]
#: Small, so that endless answers end soon.
LIMIT = 2**20


class Hostile:
    """Listens on a free port; the last answer serves all requests that follow. Counts what it sends."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = answers
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.requests: list[bytes] = []
        self.sent = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self._open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            while request := _read_request(connection):
                self.requests.append(request)
                answer = self._answers[min(len(self.requests), len(self._answers)) - 1]
                closes = False
                for piece in answer(request):
                    connection.sendall(piece)
                    self.sent += len(piece)
                    closes = closes or b"connection: close" in piece[:4096].lower()
                if closes:
                    return

    def close(self) -> None:
        for one in (self._socket, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def _read_request(connection: socket.socket) -> bytes:
    read = b""
    while b"\r\n\r\n" not in read:
        if not (data := connection.recv(65536)):
            return b""
        read += data
    length = re.search(rb"content-length: (\d+)", read, re.IGNORECASE)
    wanted = read.index(b"\r\n\r\n") + 4 + (int(length[1]) if length else 0)
    while len(read) < wanted:
        read += connection.recv(65536) or b"\0" * wanted
    return read


@contextmanager
def hostile(*answers: Answer) -> Generator[Hostile]:
    server = Hostile(*answers)
    try:
        yield server
    finally:
        server.close()


def head(status: str = "200 OK", /, **fields: object) -> bytes:
    """The head of an answer; of one that ends with its connection where no length is said."""
    lines = {"content-type": "application/json", **{k.replace("_", "-"): v for k, v in fields.items()}}
    if not lines.keys() & {"content-length", "transfer-encoding"}:
        lines["connection"] = "close"
    return (
        f"HTTP/1.1 {status}\r\n".encode()
        + b"".join(f"{k}: {v}\r\n".encode() for k, v in lines.items())
        + b"\r\n"
    )


def whole(body: bytes, status: str = "200 OK", **fields: object) -> Answer:
    return lambda _: [head(status, content_length=len(body), **fields) + body]


def forecast(request: bytes, **more: Any) -> dict[str, Any]:
    """A right answer."""
    asked = re.search(rb"x-request-id: (\S+)", request, re.IGNORECASE)
    assert asked is not None
    told = {"request_id": asked[1].decode(), "model_type": "time_series", "model_name": "m", "mean": [1.0]}
    return {**told, "horizon": 1, "frequency": "1h", **more}


def good(request: bytes) -> Iterable[bytes]:
    return whole(json.dumps(forecast(request)).encode())(request)


def events(make: Callable[[bytes], Iterable[bytes]], **fields: object) -> Answer:
    """A stream of these bytes, which ends with its connection where no length is said."""
    return lambda request: [head(content_type="text/event-stream", **fields), *make(request)]


def endless(first: bytes, rest: bytes) -> Answer:
    def pieces(_: bytes) -> Iterator[bytes]:
        yield first
        while True:
            yield rest

    return pieces


Ask = Callable[..., Any]


def ask(url: str, **settings: Any) -> Any:
    with Sheaf(url, **settings) as client:
        return client.time_series.forecast(**CALL)


def ask_stream(url: str, **settings: Any) -> Any:
    with Sheaf(url, **settings) as client:
        return client.time_series.stream(**CALL).final()


def ask_awaited(url: str, **settings: Any) -> Any:
    async def run() -> Any:
        async with AsyncSheaf(url, **settings) as client:
            return await client.time_series.forecast(**CALL)

    return asyncio.run(run())


def ask_stream_awaited(url: str, **settings: Any) -> Any:
    async def run() -> Any:
        async with AsyncSheaf(url, **settings) as client:
            return await client.time_series.stream(**CALL).final()

    return asyncio.run(run())


CALLS: list[Ask] = [ask, ask_awaited]
STREAMS: list[Ask] = [ask_stream, ask_stream_awaited]
NOBODY = UUID(int=0)

EVENTS = "text/event-stream"
RAISE = "max_answer_bytes"
each_call = pytest.mark.parametrize("ask", CALLS)
each_stream = pytest.mark.parametrize("ask", STREAMS)
each = pytest.mark.parametrize("ask", CALLS + STREAMS)


def refused(ask: Ask, *answers: Answer, kind: type[SheafError] = BadResponseError, **settings: Any) -> str:
    """What the error says; the server was asked once and sent no more than sockets and the limit hold."""
    with hostile(*answers) as server:
        with pytest.raises(kind) as caught:
            ask(server.url, **{"max_answer_bytes": LIMIT, "timeout": 30, **settings})
        assert len(server.requests) == 1
        assert server.sent < LIMIT + 16 * 2**20
    return str(caught.value)
