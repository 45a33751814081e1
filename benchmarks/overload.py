"""Twice the load that a model can take: what is still answered in time, what is refused and how fast.

    python benchmarks/overload.py [--seconds 20] [--service-ms 20] [--batch 8] [--deadline 0.5] [--only NAME]

The model takes the same time for every batch. First closed loops find the peak of answers in time; then
requests come at random times, twice as many a second, each with a deadline after which its caller hangs up.
The client is a process of its own, and tells how busy it was and how late it sent.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._load import settle
from benchmarks._models import BODY
from benchmarks._peers import PeerMissingError
from benchmarks._report import goal, report, table
from benchmarks._servers import (
    LOAD_CORES,
    Running,
    StartError,
    Target,
    ours,
    peer,
    pinned,
    placement,
    resident,
    serving,
)

LABELS = {
    "embedded": "Sheaf, embedded server",
    "litserve": "LitServe, batched",
    "ray-tuned": "Ray @serve.batch, tuned",
}


@dataclass(frozen=True)
class Load:
    """How a model is loaded.

    Attributes:
        service_ms: milliseconds of a batch.
        batch: most requests of a batch.
        deadline: seconds within which an answer is of use.
        seconds: of load for each figure.
        excess: requests a second, in multiples of the peak.
    """

    service_ms: float
    batch: int
    deadline: float
    seconds: float
    excess: float

    @property
    def queue(self) -> int:
        """Requests that may wait: half of what the model can do within the deadline."""
        return max(self.batch, int(self.deadline / 2 / (self.service_ms / 1e3) * self.batch))

    def servers(self) -> dict[str, Callable[[], Target]]:
        """How the servers are started; each is made when its turn comes."""
        spec = {
            "model": "Sleep",
            "backend_kwargs": {"seconds": self.service_ms / 1e3},
            "batch_policy": {"max_batch_size": self.batch, "max_queue": self.queue},
        }
        work = {"WORK": "sleep", "SERVICE_MS": str(self.service_ms), "MAX_BATCH": str(self.batch)}
        work |= {"TIMEOUT": str(self.deadline), "MAX_QUEUE": str(self.queue)}
        return {
            "embedded": lambda: ours("embedded", spec, BODY),
            "litserve": lambda: peer("litserve_app", BODY, work),
            "ray-tuned": lambda: peer("ray_app", BODY, work, "tuned"),
        }


@dataclass
class Outcome:
    """What a server did with it."""

    peak: float
    #: The client's own line under the excess load.
    seen: dict[str, Any]
    #: MiB at the start of the excess load, in its middle and at its end, and the most between.
    memory: dict[str, float] = field(default_factory=dict)

    @property
    def goodput(self) -> float:
        return float(self.seen["good_per_second"])


def run_client(server: Running, body: str, load: Load, *arguments: str) -> dict[str, Any]:
    """The line of a client on its own core."""
    script = str(Path(__file__).parent / "_client.py")
    command = [sys.executable, script, server.url, body, "--seconds", str(load.seconds)]
    command += ["--deadline", str(load.deadline), *arguments]
    seen: dict[str, Any] = json.loads(subprocess.check_output(pinned(command, LOAD_CORES), text=True))
    return seen


def measure(target: Target, load: Load) -> Outcome:
    """Find the peak of one server, then load it beyond."""
    with serving(target) as server, tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(target.body, file)
        file.flush()
        settle(server, target.body)
        peaks = [
            run_client(server, file.name, load, "--callers", str(load.batch * times)) for times in (2, 3, 4)
        ]
        peak = max(seen["good_per_second"] for seen in peaks)
        if not peak:
            raise StartError(f"no answer came within {load.deadline} s")
        with Memory(server) as memory:
            seen = run_client(server, file.name, load, "--rate", str(load.excess * peak))
        return Outcome(peak, seen, memory.figures())


class Memory:
    """Watches the resident memory of a server from a thread."""

    def __init__(self, server: Running) -> None:
        # Listed once: looking through all processes of the machine would hold up what is measured.
        self._family = server.family()
        self._samples: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._samples.append(resident(self._family))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._samples.append(resident(self._family))

    def _watch(self) -> None:
        while not self._over.wait(0.25):
            self._samples.append(resident(self._family))

    def figures(self) -> dict[str, float]:
        """MiB at the start, in the middle and at the end, and the most."""
        samples = self._samples
        found = {"start": samples[0], "middle": samples[len(samples) // 2], "end": samples[-1]}
        return {name: round(value, 1) for name, value in {**found, "most": max(samples)}.items()}


def describe(outcomes: dict[str, Outcome], load: Load, skipped: dict[str, str]) -> str:
    """One column a server."""
    lines: list[tuple[str, Callable[[Outcome], str]]] = [
        ("peak, answers in time /s", lambda o: f"{o.peak:.0f}"),
        ("sent /s", lambda o: f"{o.seen['sent'] / load.seconds:.0f}"),
        ("answers in time /s", lambda o: f"{o.goodput:.0f}"),
        ("  over the peak", lambda o: f"{o.goodput / o.peak:.2f}"),
        ("  p50 / p99 ms", lambda o: _spread(o.seen["good"])),
        ("refused (429, 503)", lambda o: str(sum(o.seen["outcomes"].get(s, 0) for s in ("429", "503")))),
        ("  p50 / p99 ms", lambda o: _spread(o.seen["refused"])),
        ("  Retry-After, min / max s", lambda o: _spread(o.seen["retry_after"], "min", "max")),
        ("too late (504, or 200 late)", lambda o: _count(o, "504", "200 late")),
        ("hung up / broken", lambda o: f"{_count(o, 'hung up')} / {_count(o, 'broken')}"),
        ("memory, start / most MiB", lambda o: f"{o.memory['start']:.0f} / {o.memory['most']:.0f}"),
        ("  growth in the second half", lambda o: f"{o.memory['end'] - o.memory['middle']:.1f}"),
        (
            "client busy, sent late p99 ms",
            lambda o: f"{o.seen['client_busy']:.2f}, {o.seen['lag']['p99']:.1f}",
        ),
    ]
    rows = [[title, *(cell(outcome) for outcome in outcomes.values())] for title, cell in lines]
    capacity = load.batch / load.service_ms * 1e3
    text = f"A model of {load.service_ms:g} ms a batch of up to {load.batch}: {capacity:.0f} requests/s\n"
    text += f"Deadline {load.deadline:g} s; Sheaf and Ray may queue {load.queue}; {placement()}\n"
    text += f"{load.excess:g} x the peak for {load.seconds:g} s, Poisson arrivals, by benchmarks/_client.py\n"
    text += table(["", *(LABELS[name] for name in outcomes)], rows)
    for name, reason in skipped.items():
        text += f"\nskipped {LABELS[name]}: {reason}"
    return text


def _spread(found: dict[str, float], *names: str) -> str:
    return " / ".join(f"{found[name]:.1f}" for name in names or ("p50", "p99")) if found else "none"


def _count(outcome: Outcome, *names: str) -> str:
    return str(sum(outcome.seen["outcomes"].get(name, 0) for name in names))


def goals(ours: Outcome, load: Load) -> list[dict[str, Any]]:
    """What is wanted of this project's server."""
    refused, retry = ours.seen["refused"], ours.seen["retry_after"]
    growth = ours.memory["end"] - ours.memory["middle"]
    # To drain a full queue takes this long; to come back much later wastes the model's time.
    drain = math.ceil(load.queue / ours.peak)
    kept = [
        goal(
            "answers in time at excess load over the peak", ours.goodput / ours.peak, 0.9, "times", least=True
        ),
        goal("growth of memory in the second half", growth, 16, "MiB"),
    ]
    if refused:
        kept += [goal(f"refusal, {name}", refused[name], 10, "ms") for name in ("p50", "p99")]
        share = ours.seen["retry_after_count"] / ours.seen["refused_count"]
        kept.append(goal("refusals with Retry-After", share, 1, "of all", least=True))
    if retry:
        kept.append(goal("Retry-After, longest", retry["max"], 2 * drain, "s"))
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="seconds of load for each figure")
    parser.add_argument("--service-ms", type=float, default=20.0, help="milliseconds of a batch")
    parser.add_argument("--batch", type=int, default=8, help="most requests of a batch")
    parser.add_argument("--deadline", type=float, default=0.5, help="seconds")
    parser.add_argument("--excess", type=float, default=2.0, help="load in multiples of the peak")
    parser.add_argument("--only", default=",".join(LABELS), help=f"of {', '.join(LABELS)}")
    given = parser.parse_args()
    load = Load(given.service_ms, given.batch, given.deadline, given.seconds, given.excess)
    outcomes: dict[str, Outcome] = {}
    skipped: dict[str, str] = {}
    start = load.servers()
    for name in given.only.split(","):
        started = time.monotonic()
        try:
            outcomes[name] = measure(start[name](), load)
        except (PeerMissingError, StartError) as error:
            skipped[name] = str(error)
        sys.stderr.write(f"{name}: {time.monotonic() - started:.0f} s\n")
    content = {
        "targets": {
            name: {"peak": o.peak, "goodput": o.goodput, "memory": o.memory, **o.seen}
            for name, o in outcomes.items()
        },
        "skipped": skipped,
        "queue": load.queue,
        "placement": placement(),
    }
    wanted = goals(outcomes["embedded"], load) if "embedded" in outcomes else []
    report("overload", describe(outcomes, load, skipped), wanted, content)


if __name__ == "__main__":
    main()
