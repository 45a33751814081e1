"""What the tests of the HTTP surface share: a server on a free port, and plain sockets."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from sheaf.embedded import EmbeddedServer
from sheaf.http.keys import Access
from sheaf.http.limits import Limits
from sheaf.spec import ModelSpec, SpecLike
from tests.echoes import Echo

GOOD: dict[str, Any] = {"history": [1.0, 2.0], "horizon": 2, "frequency": "1h"}
ECHO = ModelSpec(name="echo", backend_cls=Echo)
Serve = Callable[..., EmbeddedServer]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """`serve(models, limits, access)` starts a server that runs until the test ends."""
    for name in ("SHEAF_API_KEYS", "SHEAF_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    with ExitStack() as stack:

        def start(
            models: list[SpecLike] | SpecLike = ECHO,
            limits: Limits | None = None,
            access: Access | None = None,
        ) -> EmbeddedServer:
            return stack.enter_context(EmbeddedServer(models, port=0, limits=limits, access=access))

        yield start


def head(path: str = "/echo/predict", **headers: str) -> bytes:
    """The head of a POST in JSON, ended by an empty line."""
    lines = {"host": "localhost", "content-type": "application/json", **headers}
    text = f"POST {path} HTTP/1.1\r\n" + "".join(f"{key}: {value}\r\n" for key, value in lines.items())
    return (text + "\r\n").encode()


def whole(body: Any = GOOD, path: str = "/echo/predict", **headers: str) -> bytes:
    """A whole request."""
    content = json.dumps(body).encode()
    return head(path, **{"content-length": str(len(content)), **headers}) + content


def connect(server: EmbeddedServer) -> socket.socket:
    return connect_to(server.url)


def connect_to(url: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])))
    connection.settimeout(20)
    return connection


def read_all(connection: socket.socket) -> bytes:
    """What comes until the server closes the connection; it must do so."""
    parts: list[bytes] = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def read_answer(connection: socket.socket, rest: bytearray | None = None) -> tuple[int, dict[str, Any]]:
    """The next answer on a connection that is kept; `rest` keeps what came after it."""
    read = bytearray() if rest is None else rest
    while b"\r\n\r\n" not in read:
        read += connection.recv(65536) or _ended()
    start, _, content = bytes(read).partition(b"\r\n\r\n")
    lines = dict(line.split(b": ", 1) for line in start.split(b"\r\n")[1:])
    length = int(lines[b"content-length"])
    while len(content) < length:
        content += connection.recv(65536) or _ended()
    read[:] = content[length:]
    assert rest is not None or not read
    return int(start.split()[1]), json.loads(content[:length])


def answers_of(content: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Status, head and body of each answer on a connection, without what comes before answers (100)."""
    found: list[tuple[int, dict[str, str], bytes]] = []
    while content:
        start, _, content = content.partition(b"\r\n\r\n")
        status, *lines = start.decode("latin-1").split("\r\n")
        fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        length = int(fields.get("content-length", 0))
        if not status.startswith("HTTP/1.1 1"):
            found.append((int(status.split()[1]), fields, content[:length]))
        content = content[length:]
    return found


def _ended() -> bytes:
    raise AssertionError("the connection ended before the answer")


@contextlib.contextmanager
def dribbling(connection: socket.socket, piece: bytes) -> Iterator[None]:
    """Sends a piece again and again meanwhile, for as long as the other end takes them."""
    stop = threading.Event()

    def dribble() -> None:
        with contextlib.suppress(OSError):
            while not stop.wait(0.05):
                connection.sendall(piece)

    thread = threading.Thread(target=dribble)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
