"""Images of a FLUX while requests of unequal lengths keep coming: batches of steps beside the usual ways.

    python benchmarks/diffusion.py [--requests 16] [--load 1.0] [--device cuda --dtype bfloat16] [--quick]

The transformer has FLUX's architecture and random weights, which take the same time. Requests of 4, 20, 28
or 50 steps arrive at random, so fast that calls one by one would be busy for `--load` of the time; everybody
gets the same requests at the same moments. One by one, and in batches of whole requests (of equal steps, as
the library's call allows), the pipeline itself is called; batches of steps go through this project's engine.

On a processor the clock is this process's own processor time, with leaps over the moments in which nobody
waits: it says what a machine of one's own would show. On an accelerator it is the wall's.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

# Before torch is imported here.
os.environ |= {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "HF_HUB_OFFLINE": "1"}

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from benchmarks._load import percentile
from benchmarks._report import goal, report, table
from sheaf.api.diffusion import DiffusionRequest
from sheaf.engine import ModelRuntime
from sheaf.scheduling.batch import BatchPolicy
from sheaf.spec import ModelSpec
from tests.backends.diffusion.checkpoints import make_flux

STEPS = (4, 20, 28, 50)
PROMPTS = ("a photo of a cat", "a city at night", "an astronaut riding a horse on the moon")
TOKENS = 64
ONE, WHOLE, TURNS, SHORTEST = "one by one", "whole requests", "steps", "steps, shortest first"


@dataclass(frozen=True)
class Arrival:
    """A request and when it comes, in seconds from the start."""

    at: float
    request: DiffusionRequest


@dataclass(frozen=True)
class Figures:
    """What the callers saw; latencies in seconds."""

    rate: float
    mean: float
    p99: float
    short_mean: float
    short_p99: float


Done = dict[int, tuple[float, Any]]


class Clock:
    """Seconds from its making; `own` counts this process's work alone."""

    def __init__(self, *, own: bool) -> None:
        self.own = own
        self._read = time.process_time if own else time.perf_counter
        self._start = self._read()

    def now(self) -> float:
        return self._read() - self._start

    def wait(self, until: float, idle: Callable[[], bool]) -> None:
        """Return at that moment; where nobody is at work, the moment is at once."""
        while (left := until - self.now()) > 0:
            if not self.own:
                time.sleep(left)
            elif idle():
                self._start -= left
            else:
                time.sleep(0.005)


def workload(count: int, gap: float, steps: Sequence[int], side: int) -> list[Arrival]:
    """Requests whose gaps are exponential with that mean, the same at every run."""
    rng, at, coming = random.Random(4), 0.0, list[Arrival]()
    for seed in range(count):
        fields = {
            "height": side,
            "width": side,
            "guidance_scale": 3.5,
            "num_inference_steps": rng.choice(steps),
        }
        request = DiffusionRequest(model_name="flux", prompt=rng.choice(PROMPTS), seed=seed, **fields)
        coming.append(Arrival(at, request))
        at += rng.expovariate(1 / gap)
    return coming


def call(pipeline: Any, requests: Sequence[DiffusionRequest]) -> list[bytes]:
    """Files of the pipeline's own call for requests of equal steps and sizes."""
    import torch

    first = requests[0]
    images = pipeline(
        prompt=[request.prompt for request in requests],
        height=first.height,
        width=first.width,
        num_inference_steps=first.num_inference_steps,
        guidance_scale=first.guidance_scale,
        generator=[torch.Generator("cpu").manual_seed(request.seed or 0) for request in requests],
        max_sequence_length=TOKENS,
    ).images
    files: list[bytes] = []
    for image in images:
        buffer = io.BytesIO()
        image.save(buffer, format="png")
        files.append(buffer.getvalue())
    return files


def by_calls(pipeline: Any, coming: Sequence[Arrival], most: int, clock: Clock) -> Done:
    """The pipeline called for the one that waits longest, with others of as many steps, up to `most`."""
    done: Done = {}
    left = list(coming)
    while left:
        clock.wait(left[0].at, idle=lambda: True)
        now, steps = clock.now(), left[0].request.num_inference_steps
        alike = [a for a in left if a.at <= now and a.request.num_inference_steps == steps] or left[:1]
        batch = alike[:most]
        files = call(pipeline, [arrival.request for arrival in batch])
        for arrival, file in zip(batch, files, strict=True):
            done[arrival.request.seed or 0] = clock.now() - arrival.at, file
        left = [arrival for arrival in left if arrival not in batch]
    return done


def by_steps(runtime: ModelRuntime, coming: Sequence[Arrival], clock: Clock) -> Done:
    """The engine given every request at its moment."""
    done: Done = {}
    futures: list[Future[Any]] = []

    def note(arrival: Arrival, future: Future[Any]) -> None:
        done[arrival.request.seed or 0] = clock.now() - arrival.at, future.result().image.bytes

    for arrival in coming:
        clock.wait(arrival.at, idle=lambda: len(done) == len(futures))
        future = runtime.submit(arrival.request)
        future.add_done_callback(partial(note, arrival))
        futures.append(future)
    for future in futures:
        future.result()
    return done


def figures_of(coming: Sequence[Arrival], done: Done) -> Figures:
    shortest = min(arrival.request.num_inference_steps for arrival in coming)
    latency = {arrival.request.seed: done[arrival.request.seed or 0][0] for arrival in coming}
    short = [latency[a.request.seed] for a in coming if a.request.num_inference_steps == shortest]
    makespan = max(arrival.at + latency[arrival.request.seed] for arrival in coming)
    everyone = list(latency.values())
    return Figures(
        len(coming) / makespan,
        statistics.mean(everyone),
        percentile(everyone, 0.99),
        statistics.mean(short),
        percentile(short, 0.99),
    )


def seconds_of_an_image(pipeline: Any, steps: Sequence[int], side: int, *, own: bool) -> tuple[float, float]:
    """Seconds of a step, and of an image of the mean number of steps, one by one."""
    few, many = 2, 8

    def timed(count: int) -> float:
        request = workload(1, 1.0, [count], side)[0].request
        clock = Clock(own=own)
        call(pipeline, [request])
        return clock.now()

    timed(few)
    lows, highs = zip(*((timed(few), timed(many)) for _ in range(3)), strict=True)
    step = max(1e-4, (min(highs) - min(lows)) / (many - few))
    return step, min(lows) + step * (statistics.mean(steps) - few)


def largest_difference(found: dict[str, Done]) -> int:
    """Most shades of 255 by which a picture differs from the one that was drawn alone."""
    from PIL import Image

    def pixels(file: bytes) -> Any:
        return np.asarray(Image.open(io.BytesIO(file))).astype(int)

    alone = {seed: pixels(file) for seed, (_, file) in found[ONE].items()}
    others = (done for name, done in found.items() if name != ONE)
    return max(int(np.abs(pixels(done[s][1]) - alone[s]).max()) for done in others for s in alone)


def describe(medians: dict[str, Figures], given: argparse.Namespace, step: float, parameters: int) -> str:
    rows = [
        [
            name,
            f"{f.rate:.2f}",
            f"{f.rate / medians[ONE].rate:.2f}",
            *(f"{value:.2f}" for value in (f.mean, f.p99, f.short_mean, f.short_p99)),
        ]
        for name, f in medians.items()
    ]
    text = (
        f"FLUX of {parameters / 1e6:.1f} M parameters, {given.side} x {given.side} pixels, {given.dtype} on "
    )
    text += f"{given.device}; a step alone takes {step * 1e3:.1f} ms; {given.requests} requests; "
    text += f"seconds {'of this process' if given.device == 'cpu' else 'of the wall'}\n"
    header = ["", "images/s", "x one", "mean s", "p99 s", "short mean s", "short p99 s"]
    return text + table(header, rows)


def measure(given: argparse.Namespace, checkpoint: str) -> None:
    import torch

    settings: dict[str, Any] = {
        "model_id": checkpoint,
        "device": given.device,
        "dtype": given.dtype,
        "max_sequence_length": TOKENS,
    }

    def runtime(*, shortest: bool) -> ModelRuntime:
        policy = BatchPolicy(max_batch_size=given.batch, shortest_first=shortest)
        return ModelRuntime(
            ModelSpec(name="flux", backend="flux", backend_kwargs=settings, batch_policy=policy)
        )

    own = given.device == "cpu"
    runtimes = {TURNS: runtime(shortest=False), SHORTEST: runtime(shortest=True)}
    for started in runtimes.values():
        started.start()
    pipeline = runtimes[TURNS].backend.pipeline  # type: ignore[attr-defined]
    parameters = sum(weights.numel() for weights in pipeline.transformer.parameters())
    step, image = seconds_of_an_image(pipeline, given.steps, given.side, own=own)
    coming = workload(given.requests, image / given.load, given.steps, given.side)
    ways: dict[str, Callable[[Clock], Done]] = {
        ONE: lambda clock: by_calls(pipeline, coming, 1, clock),
        WHOLE: lambda clock: by_calls(pipeline, coming, given.batch, clock),
        **{name: partial(by_steps, started, coming) for name, started in runtimes.items()},
    }
    seen: dict[str, list[Figures]] = {name: [] for name in ways}
    found: dict[str, Done] = {}
    for repeat in range(given.repeats):
        # Every other time backwards, so that a drift of the machine favours nobody.
        for name in list(ways) if repeat % 2 == 0 else list(ways)[::-1]:
            began = time.monotonic()
            found[name] = ways[name](Clock(own=own))
            seen[name].append(figures_of(coming, found[name]))
            sys.stderr.write(f"{name}: {time.monotonic() - began:.0f} s\n")
    for started in runtimes.values():
        started.stop()
    medians = {
        name: Figures(
            *(statistics.median(column) for column in zip(*(asdict(f).values() for f in all_), strict=True))
        )
        for name, all_ in seen.items()
    }
    one, whole, turns, shortest = (medians[name] for name in (ONE, WHOLE, TURNS, SHORTEST))
    best = max(one.rate, whole.rate)
    goals = [
        goal("images/s of steps over the better of the others", turns.rate / best, 0.95, "times", least=True),
        goal(
            "latency of short requests, whole requests over steps",
            whole.short_mean / turns.short_mean,
            2,
            "times",
            least=True,
        ),
        goal(
            "mean latency, whole requests over steps, shortest first",
            whole.mean / shortest.mean,
            1,
            "times",
            least=True,
        ),
    ]
    content = {
        "ways": {name: asdict(figures) for name, figures in medians.items()},
        "steps": [arrival.request.num_inference_steps for arrival in coming],
        "step_seconds": step,
        "mean_gap_seconds": image / given.load,
        "parameters": parameters,
        "largest_difference": largest_difference(found),
        "device": torch.cuda.get_device_name() if given.device.startswith("cuda") else given.device,
        "dtype": given.dtype,
    }
    report("diffusion", describe(medians, given, step, parameters), goals, content)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--load", type=float, default=1.0, help="share of time one by one would be busy")
    parser.add_argument("--batch", type=int, default=8, help="most requests in a batch")
    parser.add_argument("--side", type=int, default=128, help="sides of the images in pixels")
    parser.add_argument("--width", type=int, default=256, help="of the transformer, a multiple of 64")
    parser.add_argument("--blocks", type=int, default=4, help="double blocks; twice as many are single")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--quick", action="store_true", help="a toy, to see that it runs")
    given = parser.parse_args()
    given.steps = STEPS
    if given.quick:
        given.requests, given.side, given.width, given.blocks, given.steps = 6, 64, 64, 1, (2, 5)
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"heads": given.width // 64, "head_dim": 64, "text_width": given.width}
        blocks = {"layers": given.blocks, "single_layers": 2 * given.blocks}
        measure(given, str(make_flux(folder, **sizes, **blocks)))


if __name__ == "__main__":
    main()
