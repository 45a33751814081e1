"""What every benchmark prints: a table for people, then one line of JSON with the machine it ran on."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any


def median_ms(samples: Sequence[float]) -> float:
    """Median of seconds, in milliseconds."""
    return statistics.median(samples) * 1e3


def interleaved(steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each step in each round; the steps take turns, so that a busy moment hits them all."""
    for run in steps.values():
        run()
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, run in steps.items():
            started = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - started)
    return taken


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:  # noqa: PTH123
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns under their names: the first to the left, the rest to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        first, *rest = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join([first, *rest]).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


def goal(name: str, value: float, limit: float, unit: str, *, least: bool = False) -> dict[str, Any]:
    """A figure beside the most it may be, or with `least` the least it must be."""
    met = value >= limit if least else value <= limit
    return {
        "goal": name,
        "value": round(value, 4),
        "limit": limit,
        "unit": unit,
        "bound": "at least" if least else "at most",
        "met": met,
    }


def report(benchmark: str, text: str, goals: Sequence[dict[str, Any]], figures: dict[str, Any]) -> None:
    """Print the table, the goals in words, and everything as one line of JSON."""
    print(text)
    for entry in goals:
        verdict = "met" if entry["met"] else "MISSED"
        bound = f"{entry['bound']} {entry['limit']:g}"
        print(f"{verdict:>6}  {entry['goal']}: {entry['value']:g} {entry['unit']}, {bound}")
    content = {"benchmark": benchmark, "goals": list(goals), "figures": figures, "machine": machine()}
    sys.stdout.write(json.dumps(content) + "\n")
