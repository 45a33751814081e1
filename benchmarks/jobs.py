"""A queue in SQLite by how many jobs wait: putting one in line, taking a batch, idle and busy workers.

    python benchmarks/jobs.py [--waiting 1000,100000,1000000] [--calls 300] [--jobs 20000] [--redis URL]

The depths take turns, call by call, so that a busy moment hits them all; the ratio to the smallest is what
tells of depth. Beside them is a bare insert of the same row, committed, which is what SQLite takes for it.
The workers are processes whose model costs nothing; with `--redis` they do the same from that queue, which is
emptied.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._models import BODY, MODEL, Echo
from benchmarks._report import goal, interleaved, median_ms, report, table
from sheaf import ModelSpec
from sheaf.worker import JobQueue, SheafWorker, open_queue

#: Jobs taken at once.
BATCH = 32
#: Seconds that an idle worker is watched.
WATCHED = 3.0


@dataclass
class Depth:
    """A queue with so many jobs in it."""

    count: int
    queue: JobQueue
    bare: sqlite3.Connection

    def enqueue(self) -> None:
        """Put a job in line."""
        self.queue.enqueue(BODY)

    def lease(self) -> None:
        """Take a batch; nobody answers it."""
        if len(self.queue.lease({MODEL: BATCH}, 0)) != BATCH:
            raise RuntimeError("the queue has fewer jobs than it was given")

    def insert(self) -> None:
        """What SQLite takes for a row and its index."""
        with self.bare as db:
            db.execute("INSERT INTO bare VALUES (?, ?)", (str(uuid4()), json.dumps(BODY)))


def filled(folder: Path, count: int, *, due: float = 0.0) -> Depth:
    """A file with jobs that were put there at once."""
    path = folder / f"{count}-{uuid4().hex}.db"
    queue, body = open_queue(f"sqlite:///{path}"), json.dumps(BODY)
    db = sqlite3.connect(path)
    db.execute("PRAGMA synchronous = NORMAL")
    rows = ((str(uuid4()), MODEL, body, due) for _ in range(count))
    with db:
        db.executemany("INSERT INTO jobs (id, model, body, due, created) VALUES (?, ?, ?, ?, 0)", rows)
        db.execute("CREATE TABLE bare (id TEXT UNIQUE, body TEXT)")
    return Depth(count, queue, db)


def by_depth(folder: Path, counts: list[int], calls: int) -> dict[int, dict[str, float]]:
    """Milliseconds of each call at each depth; of a lease by job."""
    depths = [filled(folder, max(count, (calls // 4 + 1) * BATCH)) for count in counts]
    found: dict[int, dict[str, float]] = {count: {} for count in counts}
    for name, rounds, jobs in (("insert", calls, 1), ("enqueue", calls, 1), ("lease", calls // 4, BATCH)):
        steps: dict[str, Callable[[], object]] = {
            str(count): getattr(depth, name) for count, depth in zip(counts, depths, strict=True)
        }
        for count, samples in interleaved(steps, rounds).items():
            found[int(count)][name] = median_ms(samples) / jobs
    for depth in depths:
        depth.bare.close()
        depth.queue.close()
    return found


def idle(folder: Path, count: int) -> float:
    """The share of a core that looking for work takes beside jobs that all pause."""
    depth = filled(folder, count, due=time.time() + 3600)
    depth.queue.lease({MODEL: BATCH}, 0)  # the first look brings the file up to date
    began = time.process_time()
    depth.queue.lease({MODEL: BATCH}, WATCHED)
    share = (time.process_time() - began) / WATCHED
    depth.bare.close()
    depth.queue.close()
    return share


def through(url: str, jobs: int) -> dict[str, float]:
    """Jobs a second through two workers, and the processor's milliseconds of each job."""
    with open_queue(url) as queue:
        for _ in range(jobs):
            queue.enqueue(BODY)
        began = resource.getrusage(resource.RUSAGE_CHILDREN)
        workers = [subprocess.Popen([sys.executable, __file__, "--work", url]) for _ in range(2)]
        while queue.depth() > 0.9 * jobs:  # until both have loaded
            time.sleep(0.02)
        left, started = queue.depth(), time.perf_counter()
        while queue.depth():
            time.sleep(0.02)
        rate = left / (time.perf_counter() - started)
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
            worker.wait()
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime
    return {"rate": rate, "cpu_ms": 1e3 * spent / jobs}


def work(url: str) -> None:
    """What a worker's process does."""
    worker = SheafWorker(ModelSpec(name=MODEL, backend_cls=Echo), url)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    worker.run()


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--waiting", default="1000,100000,1000000")
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--redis", help="URL of a Redis queue to measure too; all of its database is deleted")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work)
        return
    counts = [int(count) for count in options.waiting.split(",")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        depths = by_depth(folder, counts, options.calls)
        share = idle(folder, min(100_000, counts[-1]))
        busy = {"SQLite": through(f"sqlite:///{folder}/busy.db", options.jobs)}
    if options.redis:
        import redis

        redis.Redis.from_url(options.redis).flushdb()
        busy["Redis"] = through(options.redis, options.jobs)
    told(depths, share, busy)


def told(depths: dict[int, dict[str, float]], share: float, busy: dict[str, dict[str, float]]) -> None:
    """Print the tables and the goals."""
    rows = [
        [f"{count:,} waiting", *(f"{seen[step]:.3f}" for step in ("insert", "enqueue", "lease"))]
        for count, seen in depths.items()
    ]
    text = table(["milliseconds", "bare insert", "enqueue", "lease, by job"], rows)
    lines = [[name, f"{seen['rate']:,.0f}", f"{seen['cpu_ms']:.2f}"] for name, seen in busy.items()]
    text += "\n\n" + table(["two workers", "jobs/s", "processor ms by job"], lines)
    least, most = depths[min(depths)], depths[max(depths)]
    goals = [
        goal(f"enqueue, {max(depths):,} waiting", most["enqueue"], 0.3, "ms"),
        goal(f"lease by job, {max(depths):,} waiting", most["lease"], 0.3, "ms"),
        goal("enqueue, deepest by shallowest", most["enqueue"] / least["enqueue"], 2, "times"),
        goal("lease, deepest by shallowest", most["lease"] / least["lease"], 2, "times"),
        goal("an idle worker beside pausing jobs", share, 0.03, "cores"),
        goal("two workers", busy["SQLite"]["rate"], 2000, "jobs/s", least=True),
    ]
    figures: dict[str, Any] = {"depths": depths, "idle": share, "workers": busy}
    report("jobs", text, goals, figures)


if __name__ == "__main__":
    main()
