"""A client of raw sockets in a process of its own: open loop at a rate, or closed loop of some callers.

    python benchmarks/_client.py URL BODY_FILE --rate 800 --deadline 0.25 --seconds 5
    python benchmarks/_client.py URL BODY_FILE --callers 32 --seconds 5

With a rate, requests go out at the times of a Poisson process, whether or not earlier ones were answered,
and are timed from the moment they were due. A caller whose deadline passes hangs up. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

#: Seconds after its deadline that a caller still waits: the answer that says it passed is on its way.
GRACE = 0.25
#: Most connections at once.
MOST = 4000


class Connection(asyncio.Protocol):
    """One connection; a request at a time, answers with a content-length or in chunks."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.open = True
        self._data = b""
        self._waiting: asyncio.Future[tuple[int, dict[bytes, bytes]]] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(exc or ConnectionResetError())

    def ask(self, message: bytes) -> asyncio.Future[tuple[int, dict[bytes, bytes]]]:
        """Send a request; the future holds the status and the headers of its answer."""
        self._data = b""
        self._waiting = asyncio.get_running_loop().create_future()
        self.transport.write(message)
        return self._waiting

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0 or self._waiting is None or self._waiting.done():
            return
        first, *lines = self._data[:end].lower().split(b"\r\n")
        headers = {name: value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        if b"content-length" in headers:
            whole = len(self._data) >= end + 4 + int(headers[b"content-length"])
        else:
            whole = self._data.endswith(b"0\r\n\r\n")
        if whole:
            self._waiting.set_result((int(first.split()[1]), headers))


@dataclass
class Seen:
    """What became of the requests; times in seconds."""

    good: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    retry_after: list[float] = field(default_factory=list)
    lag: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    #: Seconds after the start at which each good answer came.
    came: list[float] = field(default_factory=list)


class Client:
    def __init__(self, url: str, body: bytes, deadline: float | None) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname, parts.port)
        self._deadline = deadline
        head = f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
        if deadline is not None:
            head += f"x-sheaf-timeout: {deadline}\r\n"
        self._message = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
        self._idle: list[Connection] = []
        self.seen = Seen()
        self._count = 0
        self.started = time.perf_counter()

    async def call(self, due: float) -> None:
        """One request, timed from when it was due."""
        patience = None if self._deadline is None else self._deadline + GRACE
        self.seen.lag.append(time.perf_counter() - due)
        connection: Connection | None = None
        try:
            async with asyncio.timeout(patience):
                connection = await self._connect()
                status, headers = await connection.ask(self._message)
        except (OSError, TimeoutError) as error:
            self.seen.outcomes["hung up" if isinstance(error, TimeoutError) else "broken"] += 1
            if connection is not None:
                connection.open = False
                connection.transport.abort()
            return
        finally:
            self._count -= 1
        taken = time.perf_counter() - due
        self._sort(status, headers, taken)
        if connection.open and headers.get(b"connection") != b"close":
            self._idle.append(connection)

    def _sort(self, status: int, headers: dict[bytes, bytes], taken: float) -> None:
        late = self._deadline is not None and taken > self._deadline
        self.seen.outcomes[f"{status} late" if late and status == 200 else str(status)] += 1
        if status == 200 and not late:
            self.seen.good.append(taken)
            self.seen.came.append(time.perf_counter() - self.started)
        elif status in (429, 503):
            self.seen.refused.append(taken)
            if b"retry-after" in headers:
                self.seen.retry_after.append(float(headers[b"retry-after"]))

    async def _connect(self) -> Connection:
        self._count += 1
        while self._idle:
            connection = self._idle.pop()
            if connection.open:
                return connection
        if self._count > MOST:
            raise OSError("too many connections")
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(Connection, *self._address))[1]

    async def keep_rate(self, rate: float, seconds: float, seed: int) -> None:
        """Requests at `rate` in a second, at random times."""
        chance = random.Random(seed)
        self.started = due = time.perf_counter()
        calls: set[asyncio.Task[None]] = set()
        while (due := due + chance.expovariate(rate)) < self.started + seconds:
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(self.call(due))
            calls.add(task)
            task.add_done_callback(calls.discard)
        await asyncio.gather(*calls)

    async def keep_busy(self, callers: int, seconds: float) -> None:
        """Each of the callers has one request out at any time."""
        self.started = time.perf_counter()
        end = self.started + seconds

        async def one() -> None:
            while (now := time.perf_counter()) < end:
                await self.call(now)

        await asyncio.gather(*(one() for _ in range(callers)))


def spread(values: list[float], scale: float = 1e3) -> dict[str, float]:
    """Median, 99th percentile and extremes, in milliseconds; empty of no values."""
    if not values:
        return {}
    ordered = sorted(values)
    picked = {name: ordered[int(share * (len(ordered) - 1))] for name, share in _SHARES.items()}
    return {name: round(value * scale, 4) for name, value in picked.items()}


_SHARES = {"min": 0.0, "p50": 0.5, "p99": 0.99, "max": 1.0}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("body", type=Path)
    parser.add_argument("--rate", type=float, help="requests in a second")
    parser.add_argument("--callers", type=int, help="callers of a closed loop, in place of a rate")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--deadline", type=float, help="seconds after which an answer is of no use")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(files[1], 2 * MOST), files[1]))

    async def run() -> tuple[Client, float]:
        client = Client(given.url, given.body.read_bytes(), given.deadline)
        if given.rate:
            await client.keep_rate(given.rate, given.seconds, given.seed)
        else:
            await client.keep_busy(given.callers or 1, given.seconds)
        return client, time.perf_counter() - client.started

    client, wall = asyncio.run(run())
    seen = client.seen
    # What still ran when the sending ended is answered work of another, lighter load.
    within = sum(came <= given.seconds for came in seen.came)
    print(
        json.dumps(
            {
                "sent": sum(seen.outcomes.values()),
                "good_count": len(seen.good),
                "refused_count": len(seen.refused),
                "retry_after_count": len(seen.retry_after),
                "good_per_second": within / given.seconds,
                "outcomes": dict(seen.outcomes),
                "good": spread(seen.good),
                "refused": spread(seen.refused),
                "retry_after": spread(seen.retry_after, 1),
                "lag": spread(seen.lag),
                "client_busy": round(time.process_time() / wall, 3),
            }
        )
    )


if __name__ == "__main__":
    main()
