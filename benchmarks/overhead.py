"""What serving costs around a model that costs nothing: this project beside raw Starlette and its peers.

    python benchmarks/overhead.py [--seconds 5] [--callers 1,8,32,64] [--repeats 3] [--only NAME,NAME]

Every target echoes the end of a series of 96 values, in an answer of the same size. Servers run one at a
time on the same core and are loaded from another one; models in this process are called from its own
threads or tasks, beside which nothing else runs. `--only` takes the names of `--list`.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._load import LOADER, Figures, call_by_tasks, call_by_threads, load, median_of, settle
from benchmarks._models import BODY, MODEL, SERIES, Echo
from benchmarks._peers import PeerMissingError
from benchmarks._report import goal, interleaved, report, table
from benchmarks._servers import StartError, Target, on_server_cores, ours, peer, placement, serving
from sheaf.api.time_series import TimeSeriesRequest
from sheaf.engine import ModelRuntime
from sheaf.spec import ModelSpec
from sheaf_client import AsyncSheaf, Sheaf

SPEC = {"model": "Echo", "batch_policy": {"max_batch_size": 64}}
LANE = {**SPEC, "model": "LaneEcho"}
ECHO = {"WORK": "echo"}
LABELS = {
    "starlette-bare": "raw Starlette, plain JSON",
    "starlette": "raw Starlette, same contract",
    "starlette-threads": "the same, on Starlette's threads",
    "embedded": "Sheaf, embedded server",
    "lane": "Sheaf, a model on its lane",
    "bentoml": "BentoML, adaptive batching",
    "litserve": "LitServe, batched, 1 ms window",
    "litserve-wide": "LitServe, batched, 5 ms window",
    "ray": "Sheaf behind Ray's own proxy",
    "ray-haproxy": "Sheaf on Ray Serve, as it starts it",
    "ray-plain": "Ray @serve.batch, as documented",
    "ray-tuned": "Ray @serve.batch, tuned",
}
#: Made when their turn comes: a peer's environment may have to be made first.
SERVERS: dict[str, Callable[[], Target]] = {
    "starlette-bare": lambda: peer("starlette_app", BODY, ECHO, "bare"),
    "starlette": lambda: peer("starlette_app", BODY, ECHO, "checked"),
    "starlette-threads": lambda: peer("starlette_app", BODY, ECHO, "threaded"),
    "embedded": lambda: ours("embedded", SPEC, BODY),
    "lane": lambda: ours("embedded", LANE, BODY),
    "bentoml": lambda: peer("bentoml_app", BODY, ECHO),
    "litserve": lambda: peer("litserve_app", BODY, ECHO),
    "litserve-wide": lambda: peer("litserve_app", BODY, {**ECHO, "WINDOW": "0.005"}),
    "ray": lambda: ours("ray", SPEC, BODY),
    "ray-haproxy": lambda: ours(
        "ray", SPEC, BODY, RAY_SERVE_ENABLE_HA_PROXY="1", RAY_SERVE_HAPROXY_NBTHREAD="1"
    ),
    "ray-plain": lambda: peer("ray_app", BODY, ECHO, "plain"),
    "ray-tuned": lambda: peer("ray_app", BODY, ECHO, "tuned"),
}
IN_PROCESS = {
    "engine": "ModelRuntime.predict_now",
    "local": "Sheaf.local, request made before",
    "keywords": "Sheaf.local, keywords",
    "async": "AsyncSheaf.local, request made before",
}
PEERS = ("bentoml", "litserve", "litserve-wide", "ray-plain", "ray-tuned")

Found = dict[str, dict[int, list[Figures]]]


@contextmanager
def engine(spec: ModelSpec) -> Iterator[ModelRuntime]:
    """A loaded model without a client."""
    runtime = ModelRuntime(spec)
    runtime.start()
    try:
        yield runtime
    finally:
        runtime.stop()


def measure_in_process(name: str, callers: list[int], seconds: float) -> dict[int, Figures]:
    """Figures by number of callers of one way into the engine."""
    request = TimeSeriesRequest.model_validate(BODY)
    spec = ModelSpec(name=MODEL, backend_cls=Echo, batch_policy={"max_batch_size": 64})  # type: ignore[arg-type]
    if name == "async":
        return asyncio.run(_by_tasks(spec, request, callers, seconds))
    with Sheaf.local([spec]) as client, engine(spec) as runtime:
        calls: dict[str, Callable[[], object]] = {
            "engine": lambda: runtime.predict_now(request),
            "local": lambda: client.time_series.forecast(request),
            "keywords": lambda: client.time_series.forecast(model=MODEL, **SERIES),
        }
        call = calls[name]
        call_by_threads(call, 1, seconds / 5)
        return {count: call_by_threads(call, count, seconds) for count in callers}


async def _by_tasks(
    spec: ModelSpec, request: TimeSeriesRequest, callers: list[int], seconds: float
) -> dict[int, Figures]:
    async with AsyncSheaf.local([spec]) as client:
        call = partial(client.time_series.forecast, request)
        await call_by_tasks(call, 1, seconds / 5)
        return {count: await call_by_tasks(call, count, seconds) for count in callers}


def measure_calls(rounds: int) -> dict[str, float]:
    """Microseconds of one caller's calls, taking turns with the bare call of the model; medians."""
    echo = Echo()
    request = TimeSeriesRequest.model_validate(BODY)
    spec = ModelSpec(name=MODEL, backend_cls=Echo)
    with Sheaf.local([spec]) as client, engine(spec) as runtime:
        taken = interleaved(
            {
                "bare call": lambda: echo.batch_predict([request]),
                "contract, bare call": lambda: echo.batch_predict(
                    [TimeSeriesRequest(model_name=MODEL, **SERIES)]
                ),
                "ModelRuntime.predict_now": lambda: runtime.predict_now(request),
                "Sheaf.local, request made before": lambda: client.time_series.forecast(request),
                "Sheaf.local, keywords": lambda: client.time_series.forecast(model=MODEL, **SERIES),
            },
            rounds,
        )
    return {name: statistics.median(seconds) * 1e6 for name, seconds in taken.items()}


def measure_server(target: Target, callers: list[int], seconds: float) -> tuple[dict[int, Figures], int]:
    """Figures by number of callers, and the bytes of an answer."""
    with serving(target) as server:
        settle(server, target.body)
        figures = {count: load(server, target.body, count, seconds) for count in callers}
        return figures, len(server.answer)


def describe(
    calls: dict[str, float],
    medians: dict[str, dict[int, Figures]],
    sizes: dict[str, int],
    skipped: dict[str, str],
) -> str:
    """The tables: calls of one caller, then every target under load."""
    bare = {"Sheaf.local, keywords": "contract, bare call"}
    rows = [
        [name, f"{us:.1f}", f"{us - calls[bare.get(name, 'bare call')]:.1f}"] for name, us in calls.items()
    ]
    text = "One caller in this process, median call, microseconds\n"
    text += table(["", "call", "over the bare call"], rows)
    text += "\n(keywords: over the bare call with the making of its contract)\n\n"
    text += f"Under load; servers loaded by {LOADER}, another process; {placement()}\n"
    text += f"Bodies of {len(json.dumps(BODY))} bytes; a peer's work is on plain JSON, without checks\n"
    rows = []
    for name, by_count in medians.items():
        label = f"{IN_PROCESS[name]} *" if name in IN_PROCESS else LABELS[name]
        for count, figures in by_count.items():
            rows.append(
                [
                    label,
                    str(count),
                    f"{figures.rate:.0f}",
                    f"{figures.p50:.2f}",
                    f"{figures.p99:.2f}",
                    str(figures.failed or ""),
                    str(sizes.get(name, "")),
                ]
            )
            label = ""
    text += table(["", "callers", "calls/s", "p50 ms", "p99 ms", "failed", "answer bytes"], rows)
    text += "\n* called and timed by threads or tasks of the same process, without HTTP"
    for name, reason in skipped.items():
        text += f"\nskipped {LABELS[name]}: {reason}"
    return text


def goals(calls: dict[str, float], medians: dict[str, dict[int, Figures]]) -> list[dict[str, Any]]:
    """What is wanted, for the targets that ran."""
    kept = [
        goal(
            "local call over the bare call",
            calls["Sheaf.local, request made before"] - calls["bare call"],
            60,
            "µs",
        ),
        goal(
            "local call by keywords over contract and bare call",
            calls["Sheaf.local, keywords"] - calls["contract, bare call"],
            60,
            "µs",
        ),
    ]
    wanted = [("embedded", "starlette", 0.9, None), ("lane", "starlette", 0.8, None)]
    wanted += [("lane", "starlette-threads", 1.0, None)]
    wanted += [("embedded", name, 1.0, None) for name in PEERS]
    wanted += [("ray-haproxy", "ray-plain", 3.0, 32), ("ray-haproxy", "ray-tuned", 0.95, None)]
    for mine, other, least, only in wanted:
        if mine not in medians or other not in medians:
            continue
        ratios = {
            count: figures.rate / medians[other][count].rate
            for count, figures in medians[mine].items()
            if only in (None, count)
        }
        if ratios:
            count = min(ratios, key=ratios.__getitem__)
            title = f"calls/s, {LABELS[mine]} over {LABELS[other]}, {count} callers"
            kept.append(goal(title, ratios[count], least, "times", least=True))
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds of load for each figure")
    parser.add_argument("--callers", default="1,8,32,64", help="numbers of callers")
    parser.add_argument("--repeats", type=int, default=3, help="times each target has its turn")
    parser.add_argument("--rounds", type=int, default=3000, help="calls of each kind for the call overhead")
    parser.add_argument("--only", default="", help="names of targets; all where absent")
    parser.add_argument("--list", action="store_true", help="print the names of the targets")
    given = parser.parse_args()
    if given.list:
        print(*IN_PROCESS, *SERVERS, sep="\n")
        return
    names = given.only.split(",") if given.only else [*IN_PROCESS, *SERVERS]
    callers = [int(count) for count in given.callers.split(",")]

    with on_server_cores():
        calls = measure_calls(given.rounds)
    found: Found = {name: {count: [] for count in callers} for name in names}
    sizes: dict[str, int] = {}
    skipped: dict[str, str] = {}
    for repeat in range(given.repeats):
        # Every other time backwards, so that a drift of the machine favours nobody.
        for name in names if repeat % 2 == 0 else reversed(names):
            started = time.monotonic()
            if name in IN_PROCESS:
                with on_server_cores():
                    figures = measure_in_process(name, callers, given.seconds)
            elif name not in skipped:
                try:
                    figures, sizes[name] = measure_server(SERVERS[name](), callers, given.seconds)
                except (PeerMissingError, StartError) as error:
                    skipped[name] = str(error)
                    continue
            else:
                continue
            for count, figure in figures.items():
                found[name][count].append(figure)
            sys.stderr.write(f"{name}: {time.monotonic() - started:.0f} s\n")
    medians = {
        name: {count: median_of(several) for count, several in by_count.items()}
        for name, by_count in found.items()
        if name not in skipped
    }
    text = describe(calls, medians, sizes, skipped)
    content = {
        "microseconds": calls,
        "servers": {
            name: {count: dataclasses.asdict(figures) for count, figures in by_count.items()}
            for name, by_count in medians.items()
        },
        "answer_bytes": sizes,
        "body_bytes": len(json.dumps(BODY)),
        "skipped": skipped,
        "load": LOADER,
        "placement": placement(),
    }
    report("overhead", text, goals(calls, medians), content)


if __name__ == "__main__":
    main()
