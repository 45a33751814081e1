"""Code of the caller's around each try of a call, and the one log line that every try leaves.

Middleware sees a `Send` and a function that sends it; what it returns is the try's answer.

    def stamp(send, next):
        return next(dataclasses.replace(send, headers={**send.headers, "x-team": "seismology"}))

    client = Sheaf(middleware=[stamp])
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger("sheaf_client")

#: Headers whose values a log may show; any other may be a secret of someone's.
_SHOWN = frozenset(
    {
        *("accept", "accept-encoding", "content-encoding", "content-length", "content-type"),
        *("idempotency-key", "retry-after", "traceparent", "x-request-id", "x-sheaf-timeout"),
    }
)


@dataclass(frozen=True)
class Send:
    """One try on its way: what goes over the wire. `attempt` counts from 1."""

    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    content: bytes | None = field(repr=False)
    timeout: httpx.Timeout = field(repr=False)
    stream: bool
    attempt: int = 1


Next: TypeAlias = "Callable[[Send], httpx.Response]"
AsyncNext: TypeAlias = "Callable[[Send], Awaitable[httpx.Response]]"
Middleware: TypeAlias = "Callable[[Send, Next], httpx.Response]"
"""Called around each try of a `Sheaf`; it may change what is sent, answer itself, or raise."""
AsyncMiddleware: TypeAlias = "Callable[[Send, AsyncNext], Awaitable[httpx.Response]]"
"""The same for an `AsyncSheaf`."""


def through(middleware: Sequence[Middleware], send: Next) -> Next:
    """`send` with the middleware around it, the first one outermost."""
    for layer in reversed(middleware):
        send = _around(layer, send)
    return send


def _around(layer: Middleware, inner: Next) -> Next:
    return lambda step: layer(step, inner)


def through_async(middleware: Sequence[AsyncMiddleware], send: AsyncNext) -> AsyncNext:
    """`send` with the middleware around it, the first one outermost."""
    for layer in reversed(middleware):
        send = _around_async(layer, send)
    return send


def _around_async(layer: AsyncMiddleware, inner: AsyncNext) -> AsyncNext:
    return lambda step: layer(step, inner)


class Line:
    """The log line of one try, while the try is on its way."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._started = time.perf_counter()
        self.response: httpx.Response | None = None

    def write(self, error: BaseException | None) -> None:
        send, response = self._send, self.response
        logger.info(
            "%s %s %s %.1f ms request=%s attempt=%d",
            send.method,
            send.path,
            type(error).__name__ if error is not None or response is None else response.status_code,
            1000 * (time.perf_counter() - self._started),
            send.headers.get("x-request-id", "-"),
            send.attempt,
        )
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("sent %s", shown(send.headers))
            if response is not None:
                logger.debug("received %s", shown(response.headers))


@contextmanager
def logged(send: Send) -> Generator[Line]:
    """Log one try: its line at INFO, its headers at DEBUG, its body never."""
    line = Line(send)
    if not logger.isEnabledFor(logging.INFO):
        yield line
        return
    try:
        yield line
    except BaseException as error:
        line.write(error)
        raise
    line.write(None)


def shown(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers as a log may have them."""
    return {name: value if name.lower() in _SHOWN else "(hidden)" for name, value in headers.items()}


def log_as_told() -> None:
    """Write the log to standard error at the level that `SHEAF_LOG` names, where it names one."""
    level = os.environ.get("SHEAF_LOG", "").upper()
    if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        return
    logger.setLevel(level)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
