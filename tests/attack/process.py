"""A server in a process of its own, whose memory can be measured and limited."""

from __future__ import annotations

import gzip
import json
import random
import resource
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil

MIB = 2**20
#: What a server may grow to under attack.
MOST = 1024 * MIB
_PROGRAM = """
import importlib, sys
from sheaf.embedded import EmbeddedServer
module, _, name = sys.argv[1].partition(":")
with EmbeddedServer(getattr(importlib.import_module(module), name), port=0) as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""


@dataclass
class Served:
    """A server that runs, and the most memory that it was seen with."""

    url: str
    process: psutil.Process
    peak: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        """Look at its memory until it has ended."""
        while not self.ended.wait(0.005):
            try:
                self.peak = max(self.peak, self.process.memory_info().rss)
            except psutil.NoSuchProcess:
                return

    @property
    def alive(self) -> bool:
        return self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE

    def post(self, path: str, content: bytes, **headers: str) -> httpx.Response:
        given = {"content-type": "application/json", **headers}
        return httpx.post(self.url + path, content=content, headers=given, timeout=120)

    def flood(self, requests: Sequence[Attack]) -> Counter[int]:
        """Send all at once; how often each status came."""

        def send(attack: Attack) -> int:
            return self.post(attack.path, attack.content, **attack.headers).status_code

        with ThreadPoolExecutor(len(requests)) as pool:
            return Counter(pool.map(send, requests))


@dataclass(frozen=True)
class Attack:
    """One request of less than a mebibyte."""

    path: str
    content: bytes
    headers: dict[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        assert len(self.content) < MIB


@contextmanager
def served(models: str, limit: int | None = None) -> Generator[Served]:
    """A server over the models that `module:name` names, with at most `limit` bytes of memory."""

    def confine() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    command = [sys.executable, "-c", _PROGRAM, models]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, preexec_fn=confine) as process:  # noqa: PLW1509
        assert process.stdout is not None
        assert process.stdin is not None
        server = Served(process.stdout.readline().strip(), psutil.Process(process.pid))
        watching = threading.Thread(target=server.watch)
        watching.start()
        try:
            assert server.url
            yield server
        finally:
            server.ended.set()
            watching.join()
            process.kill()


def squeezed(text: str, path: str) -> Attack:
    """A JSON object compressed by gzip, with white space before it that keeps the ratio below the limit."""
    need = len(text) // 180
    noise = random.Random(1)
    spaces = "".join(noise.choices(" \t\n\r", k=5 * need))
    return Attack(path, gzip.compress((spaces + text).encode(), 6), {"content-encoding": "gzip"})


def as_text(body: Any) -> str:
    return json.dumps(body, separators=(",", ":"))
