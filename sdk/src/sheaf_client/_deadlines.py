"""The time limit of a synchronous call, held at its socket.

httpx's limit is for each piece that comes or goes. Within a head, its interim answers and the trailers of a
body it reads piece after piece before anybody is asked, so a byte now and then would keep a call for ever.
An awaited call is cancelled from outside; in a synchronous one each read and write must know the limit.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import httpcore
import httpx

#: The moment of `time.monotonic` at which what this thread reads and writes must be done.
_ends: ContextVar[float | None] = ContextVar("ends", default=None)
#: What httpcore tells once it has made a stream: of a server, a proxy, or of TLS over either.
_MADE = ("connect_tcp.complete", "connect_unix_socket.complete", "start_tls.complete")


@contextmanager
def until(ends: float | None) -> Generator[None]:
    """Have reads and writes within, on connections of requests that were `watched`, end by a moment."""
    token = _ends.set(ends)
    try:
        yield
    finally:
        _ends.reset(token)


def watched(request: httpx.Request) -> httpx.Request:
    """The request, so that a connection that is made for it knows the limits of all calls over it."""
    request.extensions = {**request.extensions, "trace": _watch}
    return request


def _watch(event: str, info: Mapping[str, Any]) -> None:
    if event.endswith(_MADE):
        _time(info["return_value"])


def _time(stream: Any) -> None:
    """Have the reads and writes of a `httpcore.NetworkStream` know the limit of whoever calls them."""
    plain_read, plain_write = stream.read, stream.write

    def read(max_bytes: int, timeout: float | None = None) -> bytes:
        data: bytes = plain_read(max_bytes, timeout=_left(timeout, httpcore.ReadTimeout))
        return data

    def write(buffer: bytes, timeout: float | None = None) -> None:
        plain_write(buffer, timeout=_left(timeout, httpcore.WriteTimeout))

    stream.read, stream.write = read, write


def _left(timeout: float | None, error: type[Exception]) -> float | None:
    ends = _ends.get()
    if ends is None:
        return timeout
    left = ends - time.monotonic()
    if left <= 0:
        raise error("timed out")
    return left if timeout is None else min(timeout, left)
