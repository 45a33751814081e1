"""Calls on one table of 500 rows and 20 columns: its context kept, against a fit for each call.

    python benchmarks/context.py [--calls 100] [--refits 3] [--rows 500] [--callers 16] [--only NAME,NAME]

Each call asks for 10 rows. The library's own fit and predict is the baseline: it takes `--refits` turns,
whose median counts for each of the `--calls`. TabPFN has the published sizes of version 2 and random weights,
which take the same time. Everybody has one thread for the model.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

# Before torch and scikit-learn are imported here.
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import prometheus_client

from benchmarks._report import goal, median_ms, report, table
from sheaf.spec import ModelSpec
from sheaf_client import Sheaf
from tests.backends.tabular.checkpoints import make_tabpfn

QUERY_ROWS, COLUMNS = 10, 20
LABELS = {"sklearn": "HistGradientBoosting", "tabpfn": "TabPFN, v2's size"}


@dataclass
class Figures:
    """What one library gave.

    Attributes:
        refit_ms: one call that fits and predicts, by the library alone.
        first_ms: the first call of this project, which fits.
        rows_ms: a call that sends the rows again.
        id_ms: a call that sends the identifier.
        alone: calls a second of one caller.
        together: calls a second of several callers at once.
        batch: requests that shared a pass then, on the mean.
        context_mb: memory of the kept context, in 10⁶ bytes.
        difference: the largest between the probabilities of a cached and a refitted call.
    """

    refit_ms: float
    first_ms: float
    rows_ms: float
    id_ms: float
    alone: float
    together: float
    batch: float
    context_mb: float
    difference: float


def times_of(call: Callable[[], object], count: int) -> list[float]:
    """Seconds of each of so many calls."""
    taken: list[float] = []
    for _ in range(count):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return taken


def library_call(name: str, checkpoint: str, rows: Any, labels: Any, query: Any) -> Callable[[], Any]:
    """Fit and predict as the library has it, settings as the backend's."""
    if name == "sklearn":
        from sklearn.ensemble import HistGradientBoostingClassifier

        leaf = min(20, len(rows) // 10)
        settings: dict[str, Any] = {"early_stopping": False, "random_state": 0, "min_samples_leaf": leaf}
        return lambda: HistGradientBoostingClassifier(**settings).fit(rows, labels).predict_proba(query)
    import torch
    from tabpfn import ModelSpecs, TabPFNClassifier

    torch.set_num_threads(1)
    fixed: dict[str, Any] = {"device": "cpu", "inference_precision": torch.float32}
    loaded = TabPFNClassifier(model_path=checkpoint, **fixed)
    settings = loaded.get_inference_config()
    specs = ModelSpecs(loaded.models_[0], loaded.configs_[0], settings)
    return lambda: TabPFNClassifier(model_path=specs, **fixed).fit(rows, labels).predict_proba(query)


def measure(name: str, checkpoint: str, rows_count: int, calls: int, refits: int, callers: int) -> Figures:
    """Time one library alone and through this project."""
    rng = np.random.default_rng(0)
    rows, query = rng.normal(size=(rows_count, COLUMNS)), rng.normal(size=(QUERY_ROWS, COLUMNS))
    labels = np.digitize(rows[:, 0] + rows[:, 1], [-0.6, 0.6])
    refit = library_call(name, checkpoint, rows, labels, query)
    expected: list[Any] = []
    refit_times = times_of(lambda: expected.append(refit()), refits)

    settings = {"model_id": checkpoint} if name == "tabpfn" else {}
    asked: dict[str, Any] = {"model": name, "query_X": query.tolist(), "output_mode": "probabilities"}
    with Sheaf.local([ModelSpec(name=name, backend=name, backend_kwargs=settings)], timeout=None) as client:
        context = {"context_X": rows.tolist(), "context_y": labels.tolist()}
        with_rows = partial(client.tabular.predict, **asked, **context)
        started = time.perf_counter()
        first = with_rows()
        first_ms = (time.perf_counter() - started) * 1e3
        with_id = partial(client.tabular.predict, **asked, context_id=first.context_id)
        difference = float(np.abs(np.array(with_id().probabilities) - expected[0]).max())
        row_times, id_times = times_of(with_rows, calls), times_of(with_id, calls)
        started = time.perf_counter()
        with ThreadPoolExecutor(callers) as threads:
            answers = list(threads.map(lambda _: with_id(), range(calls)))
        together = time.perf_counter() - started
        # Each pass counts once: a request in a pass of n is an n-th of it.
        passes = sum(1 / answer.metadata.usage.batch_size for answer in answers)
        kept = client.tabular.predict(**asked, context_id=first.context_id)
        assert kept.metadata.context_hit is True
        size = prometheus_client.REGISTRY.get_sample_value("sheaf_context_bytes", {"model": name}) or 0
    return Figures(
        refit_ms=median_ms(refit_times),
        first_ms=first_ms,
        rows_ms=median_ms(row_times),
        id_ms=median_ms(id_times),
        alone=1 / statistics.mean(id_times),
        together=calls / together,
        batch=calls / passes,
        context_mb=size / 1e6,
        difference=difference,
    )


def describe(found: dict[str, Figures], rows: int, calls: int, refits: int, callers: int) -> str:
    lines: list[list[str]] = []
    for name, figures in found.items():
        lines += [
            [LABELS[name], "library: fit and predict", f"{figures.refit_ms:.1f}", "1.0"],
            ["", "first call, which fits", f"{figures.first_ms:.1f}", ratio(figures, figures.first_ms)],
            ["", "rows sent again", f"{figures.rows_ms:.1f}", ratio(figures, figures.rows_ms)],
            ["", "context_id sent", f"{figures.id_ms:.1f}", ratio(figures, figures.id_ms)],
        ]
    text = f"{rows} rows of {COLUMNS} columns, {QUERY_ROWS} rows asked; Sheaf.local, one model thread\n"
    text += f"A refit is the median of {refits}, and stands for each of the {calls} calls: not all were run\n"
    text += table(["", "call", "ms", "x faster"], lines)
    for name, figures in found.items():
        seconds = [each * calls / 1e3 for each in (figures.refit_ms, figures.rows_ms, figures.id_ms)]
        text += f"\n{LABELS[name]}, {calls} calls: {seconds[0]:.0f} s refitted (scaled), {seconds[1]:.1f} s "
        text += f"with rows, {seconds[2]:.1f} s by identifier; {figures.alone:.1f} calls/s by one caller, "
        text += f"{figures.together:.1f} by {callers}, {figures.batch:.1f} to a pass; "
        text += f"context {figures.context_mb:.1f} MB; largest difference {figures.difference:.0e}"
    return text


def ratio(figures: Figures, milliseconds: float) -> str:
    return f"{figures.refit_ms / milliseconds:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=100, help="cached calls of each kind")
    parser.add_argument("--refits", type=int, default=3, help="fits of the library that are timed")
    parser.add_argument("--rows", type=int, default=500, help="rows of the context")
    parser.add_argument("--callers", type=int, default=16, help="callers at once")
    parser.add_argument("--only", default=",".join(LABELS), help=f"of {', '.join(LABELS)}")
    parser.add_argument("--quick", action="store_true", help="tiny model, few rows and calls: for tests")
    given = parser.parse_args()
    if given.quick:
        given.calls, given.refits, given.rows, given.callers = 8, 1, 60, 4
    found: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = ""
        for name in given.only.split(","):
            if name == "tabpfn":
                sizes = None if given.quick else {}
                checkpoint = str(make_tabpfn(folder, "tabpfn_v2", "classifier", sizes=sizes))
            found[name] = measure(name, checkpoint, given.rows, given.calls, given.refits, given.callers)
    goals: list[dict[str, Any]] = []
    for name, figures in found.items():
        title = f"{LABELS[name]}: {given.calls} calls with rows over as many refits"
        goals.append(goal(title, figures.refit_ms / figures.rows_ms, 10, "times faster", least=True))
        title = f"{LABELS[name]}: cached against refitted probabilities"
        goals.append(goal(title, figures.difference, 1e-6, "largest difference"))
    text = describe(found, given.rows, given.calls, given.refits, given.callers)
    content = {name: asdict(figures) for name, figures in found.items()}
    report("context", text, goals, {**content, "calls": given.calls, "refits": given.refits})


if __name__ == "__main__":
    main()
