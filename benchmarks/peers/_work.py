"""What the peers compute, by the variable WORK: plain JSON values in and out, a batch at a time.

It needs nothing of this project, so that every peer's own interpreter can import it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

#: Requests in one call of the model, at most.
MAX_BATCH = int(os.environ.get("MAX_BATCH", "64"))
#: Seconds that a caller waits, at most.
TIMEOUT = float(os.environ.get("TIMEOUT", "30"))

#: As many digits as true times have.
USAGE = {"compute_seconds": 0.00023856400002841838, "queue_seconds": 0.0001257970002370712}

Work = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


def load() -> Work:
    """The work that WORK names: `echo`, `sleep` for a fixed SERVICE_MS, or `forecast` by CHECKPOINT."""
    return {"echo": lambda: echo, "sleep": _load_sleep, "forecast": _load_forecast}[os.environ["WORK"]]()


def echo(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The end of each history, in an answer of the size of Sheaf's."""
    return [answer(item, item["history"][-item["horizon"] :], len(items)) for item in items]


def answer(
    item: dict[str, Any], mean: list[float], size: int, quantiles: dict[str, list[float]] | None = None
) -> dict[str, Any]:
    return {
        "request_id": "5f3a0c9e-1d57-4c2b-9d3e-7f1b8a2c4e60",
        "model_type": "time_series",
        "model_name": item["model_name"],
        "metadata": {
            "usage": {**USAGE, "batch_size": size, "cache_hit": False},
            "warnings": [],
        },
        "mean": mean,
        "point": "mean",
        "quantiles": quantiles,
        "samples": None,
        "horizon": item["horizon"],
        "frequency": item["frequency"],
        "timestamps": None,
        "item_id": None,
    }


def _load_sleep() -> Work:
    seconds = float(os.environ["SERVICE_MS"]) / 1e3

    def sleep(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        time.sleep(seconds)
        return echo(items)

    return sleep


def _load_forecast() -> Work:
    # torch and the model's library are the project's own copies, so that everybody runs the same.
    sys.path.append(os.environ["PROJECT_PACKAGES"])
    import torch
    from chronos import BaseChronosPipeline

    torch.set_num_threads(1)
    pipeline = BaseChronosPipeline.from_pretrained(os.environ["CHECKPOINT"], device_map="cpu")

    def forecast(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        first = items[0]
        levels = first["quantile_levels"]
        found, mean = pipeline.predict_quantiles(
            [torch.tensor(item["history"]) for item in items],
            prediction_length=first["horizon"],
            quantile_levels=levels,
        )
        return [
            answer(item, line, len(items), dict(zip(map(str, levels), zip(*rows, strict=True), strict=True)))
            for item, line, rows in zip(items, mean.tolist(), found.tolist(), strict=True)
        ]

    return forecast
