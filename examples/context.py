"""Send a table once, then ask it by its identifier: the model is fitted the first time only.

python examples/context.py        # needs "./server[sklearn]"; no download
"""

from __future__ import annotations

import time

import numpy as np

from sheaf_client import Sheaf

generator = np.random.default_rng(0)
flats = np.column_stack([generator.uniform(30, 150, 500), generator.integers(1920, 2024, 500)])
rents = 9 * flats[:, 0] + 2 * (flats[:, 1] - 1920) + generator.normal(0, 60, 500)
asked = [[45, 1935], [80, 1999], [140, 2020]]

with Sheaf.local(["sklearn"]) as client:
    started = time.perf_counter()
    fields = {"task": "regression", "output_mode": "quantiles", "query_X": asked}
    table = {"context_X": flats.tolist(), "context_y": rents.tolist()}
    first = client.tabular.predict(model="sklearn", **table, **fields)
    print(f"fitted and answered in {1e3 * (time.perf_counter() - started):.0f} ms: {first.context_id}")

    started = time.perf_counter()
    again = client.tabular.predict(model="sklearn", context_id=first.context_id, **fields)
    print(f"answered from the kept context in {1e3 * (time.perf_counter() - started):.0f} ms")

    assert again.predictions == first.predictions
    print(again.to_pandas().round(0))
