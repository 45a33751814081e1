"""Closed-loop load: so many callers, each with its next request as soon as the last is answered.

Servers are loaded by `wrk`, a separate process in C, or where it is missing by benchmarks/_client.py, which
is Python and takes more of its core. Models in this process are called from threads or tasks of it.
"""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._servers import LOAD_CORES, Running, pinned

HERE = Path(__file__).parent
LOADER = "wrk" if shutil.which("wrk") else "benchmarks/_client.py"


@dataclass(frozen=True)
class Figures:
    """What some callers saw: answers in a second, and milliseconds of a call."""

    rate: float
    p50: float
    p99: float
    #: Calls that got no answer of status 200.
    failed: int = 0


def median_of(several: Sequence[Figures]) -> Figures:
    """Each figure's median over repeats; failures are summed."""
    rate, p50, p99 = (statistics.median(getattr(f, name) for f in several) for name in ("rate", "p50", "p99"))
    return Figures(rate, p50, p99, sum(f.failed for f in several))


def load(server: Running, body: Any, callers: int, seconds: float) -> Figures:
    """Load a server over as many connections as there are callers."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(body, file)
        file.flush()
        return (_wrk if LOADER == "wrk" else _client)(server, file.name, callers, seconds)


def settle(server: Running, body: Any, callers: int = 8, most: int = 8) -> None:
    """Load a server, a second at a time, until it gets no faster; what starts late is then there."""
    before = 0.0
    for _ in range(most):
        rate = load(server, body, callers, 1).rate
        if before and rate <= 1.1 * before:
            return
        before = rate


def _wrk(server: Running, body: str, callers: int, seconds: float) -> Figures:
    # wrk takes whole seconds.
    command = ["wrk", "-t1", f"-c{callers}", f"-d{max(1, round(seconds))}s", "--timeout", "30s"]
    command += ["-s", str(HERE / "post.lua"), server.url, "--", body]
    done = subprocess.run(pinned(command, LOAD_CORES), capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    failed = found["refused"] + found["broken"]
    rate = (found["requests"] - found["refused"]) / found["microseconds"] * 1e6
    return Figures(rate, found["p50"] / 1e3, found["p99"] / 1e3, failed)


def _client(server: Running, body: str, callers: int, seconds: float) -> Figures:
    command = [sys.executable, str(HERE / "_client.py"), server.url, body]
    command += ["--seconds", str(seconds), "--callers", str(callers)]
    found = json.loads(subprocess.check_output(pinned(command, LOAD_CORES), text=True))
    p50, p99 = (found["good"].get(name, math.nan) for name in ("p50", "p99"))
    return Figures(found["good_per_second"], p50, p99, found["sent"] - found["good_count"])


def call_by_threads(call: Callable[[], object], callers: int, seconds: float) -> Figures:
    """Call a function from as many threads of this process; one caller is this thread."""
    start = threading.Barrier(callers)
    taken: list[list[float]] = [[] for _ in range(callers)]
    ends = [0.0] * callers

    def run(index: int) -> None:
        times = taken[index]
        start.wait()
        now = time.perf_counter()
        end = now + seconds
        while now < end:
            call()
            before, now = now, time.perf_counter()
            times.append(now - before)
        ends[index] = now - end

    threads = [threading.Thread(target=run, args=(i,)) for i in range(1, callers)]
    for thread in threads:
        thread.start()
    run(0)
    for thread in threads:
        thread.join()
    return _figures([t for times in taken for t in times], seconds + max(ends))


def call_by_tasks(call: Callable[[], Awaitable[object]], callers: int, seconds: float) -> Awaitable[Figures]:
    """Call a coroutine function from as many tasks of the running event loop."""

    async def run(times: list[float], end: float) -> None:
        now = time.perf_counter()
        while now < end:
            await call()
            before, now = now, time.perf_counter()
            times.append(now - before)

    async def run_all() -> Figures:
        times: list[float] = []
        started = time.perf_counter()
        await asyncio.gather(*(run(times, started + seconds) for _ in range(callers)))
        return _figures(times, time.perf_counter() - started)

    return run_all()


def _figures(times: list[float], seconds: float) -> Figures:
    return Figures(len(times) / seconds, *(percentile(times, share) * 1e3 for share in (0.5, 0.99)))


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share of the values lies; NaN of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else math.nan
