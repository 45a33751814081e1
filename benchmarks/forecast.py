"""Forecasts of Chronos-Bolt (tiny): this project beside the library's own loop and beside its peers.

    python benchmarks/forecast.py [--seconds 10] [--callers 1,8,32] [--repeats 3] [--only NAME,NAME]

The checkpoint has the architecture of chronos-bolt-tiny and random weights, which take the same time. Each
request is one series of 512 values, a horizon of 64 and three quantiles. The bare loop calls the library in
this process on tensors made before, at the batch size that suits it best; the peers call it in their servers.
Everybody has one torch thread.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

# Before torch is imported here.
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from benchmarks._load import LOADER, Figures, call_by_threads, load, median_of, settle
from benchmarks._models import MODEL
from benchmarks._peers import PeerMissingError
from benchmarks._report import goal, report, table
from benchmarks._servers import StartError, Target, on_server_cores, ours, peer, placement, serving
from sheaf.spec import ModelSpec
from sheaf_client import Sheaf
from tests.backends.time_series.checkpoints import make_chronos_bolt

#: chronos-bolt-tiny, as its config.json has it.
TINY = {"d_model": 256, "d_kv": 64, "d_ff": 1024, "num_layers": 4, "num_decoder_layers": 4, "num_heads": 4}
CONTEXT, HORIZON = 512, 64
LEVELS = [0.1, 0.5, 0.9]
BATCHES = (1, 2, 4, 8, 16, 32, 64)
SERIES: dict[str, Any] = {
    "history": [
        round(float(v), 3)
        for v in 100 + 10 * np.sin(np.arange(CONTEXT) / 4) + np.random.default_rng(0).normal(size=CONTEXT)
    ],
    "horizon": HORIZON,
    "frequency": "1h",
    "output_mode": "quantiles",
    "quantile_levels": LEVELS,
}
BODY = {"model_name": MODEL, **SERIES}
LABELS = {
    "local": "Sheaf.local, keywords *",
    "embedded": "Sheaf, embedded server",
    "litserve": "LitServe, batched",
    "bentoml": "BentoML, adaptive batching",
    "ray-tuned": "Ray @serve.batch, tuned",
}


def deployment(checkpoint: str, batch: int) -> dict[str, Any]:
    """The model as this project serves it, by everything but its name."""
    kwargs = {"model_id": checkpoint, "num_threads": 1}
    policy = {"max_batch_size": batch, "linger": 0.1}
    return {"backend": "chronos2", "backend_kwargs": kwargs, "batch_policy": policy}


def servers(checkpoint: str, batch: int) -> dict[str, Callable[[], Target]]:
    """How the servers are started, each when its turn comes; all with the batch size that suits the model."""
    spec = deployment(checkpoint, batch)
    work = {"WORK": "forecast", "CHECKPOINT": checkpoint, "MAX_BATCH": str(batch)}
    return {
        "embedded": lambda: ours("embedded", spec, BODY),
        "litserve": lambda: peer("litserve_app", BODY, {**work, "WINDOW": "0.005"}),
        "bentoml": lambda: peer("bentoml_app", BODY, work),
        "ray-tuned": lambda: peer("ray_app", BODY, work, "tuned"),
    }


def time_bare(checkpoint: str, batches: list[int], seconds: float) -> dict[int, Figures]:
    """Series a second and milliseconds of a call of the library alone, by batch size."""
    import torch
    from chronos import BaseChronosPipeline

    torch.set_num_threads(1)
    pipeline = BaseChronosPipeline.from_pretrained(checkpoint, device_map="cpu")
    found: dict[int, Figures] = {}
    for size in batches:
        series = [torch.tensor(SERIES["history"]) for _ in range(size)]

        def call(series: list[Any] = series) -> object:
            return pipeline.predict_quantiles(series, prediction_length=HORIZON, quantile_levels=LEVELS)

        call()
        calls = call_by_threads(call, 1, seconds)
        found[size] = dataclasses.replace(calls, rate=calls.rate * size)
    return found


def time_local(checkpoint: str, batch: int, callers: list[int], seconds: float) -> dict[int, Figures]:
    """Figures by callers of the client of this process, each a thread."""
    spec = ModelSpec(name=MODEL, **deployment(checkpoint, batch))
    with Sheaf.local([spec]) as client:
        call = partial(client.time_series.forecast, model=MODEL, **SERIES)
        call_by_threads(call, 1, seconds / 5)
        return {count: call_by_threads(call, count, seconds) for count in callers}


def time_server(target: Target, callers: list[int], seconds: float) -> dict[int, Figures]:
    """Figures by callers of one server."""
    with serving(target) as server:
        answer = json.loads(server.answer)
        answer = answer[0] if isinstance(answer, list) else answer
        assert len(answer["mean"]) == HORIZON
        assert len(answer["quantiles"]["0.9"]) == HORIZON
        settle(server, target.body)
        return {count: load(server, target.body, count, seconds) for count in callers}


def describe(
    bare: dict[int, Figures], medians: dict[str, dict[int, Figures]], skipped: dict[str, str], best: float
) -> str:
    """The table: the bare loop by batch size, then everybody by callers."""
    rows: list[list[str]] = []
    groups = {"the library's own call, batches of *": bare}
    groups |= {LABELS[name]: by_count for name, by_count in medians.items()}
    for label, by_count in groups.items():
        for i, (count, figures) in enumerate(by_count.items()):
            cells = [f"{figures.rate:.1f}", f"{figures.rate / best:.2f}", f"{figures.p50:.1f}"]
            cells += [f"{figures.p99:.1f}", str(figures.failed or "")]
            rows.append([label if i == 0 else "", str(count), *cells])
    text = f"Chronos-Bolt tiny, {CONTEXT} values in, {HORIZON} steps out; one torch thread each\n"
    text += f"Servers loaded by {LOADER}, another process; {placement()}\n"
    text += "Peers share this project's torch and the model's library; all else is of their own environment\n"
    text += table(["", "callers", "series/s", "x bare", "p50 ms", "p99 ms", "failed"], rows)
    text += "\n* called by threads of this process"
    for name, reason in skipped.items():
        text += f"\nskipped {LABELS[name]}: {reason}"
    return text


def goals(
    bare: dict[int, Figures], medians: dict[str, dict[int, Figures]], best: float
) -> list[dict[str, Any]]:
    """What is wanted, for the targets that ran."""
    kept: list[dict[str, Any]] = []
    for name in ("embedded", "local"):
        by_count = medians.get(name, {})
        if 32 in by_count:
            title = f"series/s, {LABELS[name]} over the best bare loop, 32 callers"
            kept.append(goal(title, by_count[32].rate / best, 0.9, "times", least=True))
        if 1 in by_count and 1 in bare:
            title = f"p50, {LABELS[name]} over the bare call, 1 caller"
            kept.append(goal(title, by_count[1].p50 / bare[1].p50, 1.3, "times"))
    return kept


def measure(
    checkpoint: str, names: list[str], callers: list[int], batches: list[int], seconds: float, repeats: int
) -> tuple[dict[int, Figures], dict[str, dict[int, Figures]], dict[str, str]]:
    """Medians over repeats of the bare loop and of every target, and why some were skipped."""
    bare: list[dict[int, Figures]] = []
    found: dict[str, list[dict[int, Figures]]] = {name: [] for name in names}
    skipped: dict[str, str] = {}
    start: dict[str, Callable[[], Target]] = {}
    best = 0
    for repeat in range(repeats):
        with on_server_cores():
            bare.append(time_bare(checkpoint, batches, seconds / 4))
        if repeat == 0:  # everybody batches as it suits the model best
            best = max(bare[0], key=lambda size: bare[0][size].rate)
            start = servers(checkpoint, best)
        # Every other time backwards, so that a drift of the machine favours nobody.
        for name in names if repeat % 2 == 0 else names[::-1]:
            if name in skipped:
                continue
            started = time.monotonic()
            try:
                if name == "local":
                    with on_server_cores():
                        found[name].append(time_local(checkpoint, best, callers, seconds))
                else:
                    found[name].append(time_server(start[name](), callers, seconds))
            except (PeerMissingError, StartError) as error:
                skipped[name] = str(error)
            sys.stderr.write(f"{name}: {time.monotonic() - started:.0f} s\n")

    def medians(several: list[dict[int, Figures]]) -> dict[int, Figures]:
        return {count: median_of([figures[count] for figures in several]) for count in several[0]}

    kept = {name: medians(several) for name, several in found.items() if several}
    return medians(bare), kept, skipped


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="seconds of load for each figure")
    parser.add_argument("--callers", default="1,8,32", help="numbers of callers")
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)), help="of the bare loop")
    parser.add_argument("--repeats", type=int, default=3, help="times each target has its turn")
    parser.add_argument("--only", default=",".join(LABELS), help=f"of {', '.join(LABELS)}")
    given = parser.parse_args()
    callers, batches = ([int(n) for n in text.split(",")] for text in (given.callers, given.batches))

    with tempfile.TemporaryDirectory() as folder:
        path = str(make_chronos_bolt(folder, sizes=TINY))
        bare, medians, skipped = measure(
            path, given.only.split(","), callers, batches, given.seconds, given.repeats
        )
    best = max(figures.rate for figures in bare.values())
    content = {
        "bare": {size: dataclasses.asdict(figures) for size, figures in bare.items()},
        "targets": {
            name: {count: dataclasses.asdict(figures) for count, figures in by_count.items()}
            for name, by_count in medians.items()
        },
        "best_bare": best,
        "skipped": skipped,
        "load": LOADER,
        "placement": placement(),
    }
    report("forecast", describe(bare, medians, skipped, best), goals(bare, medians, best), content)


if __name__ == "__main__":
    main()
