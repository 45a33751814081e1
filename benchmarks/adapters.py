"""Images of a FLUX with LoRA adapters: batches that mix them, beside the library with one set at a time.

    python benchmarks/adapters.py [--requests 32] [--adapters 8] [--device cuda --dtype bfloat16] [--quick]

All requests are there at the start, each for one of the adapters in turn. One by one, and grouped by their
adapter, the library's pipeline is called after its own `set_adapters`; mixed batches go through this
project's engine, which puts the adapters of each row into the same forward. The same requests without
adapters show what adapters cost. The transformer has FLUX's architecture and random weights, which take the
same time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

# Before torch is imported here.
os.environ |= {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "HF_HUB_OFFLINE": "1"}

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from benchmarks._report import goal, report, table
from sheaf.api.diffusion import DiffusionRequest
from sheaf.engine import ModelRuntime
from sheaf.lora import LoRAAdapter, LoRAConfig
from sheaf.scheduling.batch import BatchPolicy
from sheaf.spec import ModelSpec
from tests.backends.diffusion.adapter_files import STANDARD, make_adapter
from tests.backends.diffusion.checkpoints import make_flux

TOKENS = 64
ONE, GROUPED, MIXED, NONE = "one by one", "grouped by adapter", "mixed batches", "without adapters"

#: Seconds from the start to the answer, and the pixels in 0…255, by the seed of each request.
Done = dict[int, tuple[float, Any]]


def workload(given: argparse.Namespace) -> list[DiffusionRequest]:
    """Requests that name one adapter after the other."""
    return [
        DiffusionRequest(
            model_name="flux",
            prompt="a photo of a cat",
            seed=seed,
            height=given.side,
            width=given.side,
            num_inference_steps=given.steps,
            guidance_scale=3.5,
            adapters=[f"a{seed % given.adapters}"],
        )
        for seed in range(given.requests)
    ]


def by_library(pipeline: Any, requests: Sequence[DiffusionRequest], most: int) -> Done:
    """The pipeline called for batches of equal adapters, of up to `most` requests."""
    import torch

    done: Done = {}
    left, started = list(requests), time.perf_counter()
    while left:
        alike = [request for request in left if request.adapters == left[0].adapters][:most]
        pipeline.set_adapters(alike[0].adapters, [1.0])
        images = pipeline(
            prompt=[request.prompt for request in alike],
            height=alike[0].height,
            width=alike[0].width,
            num_inference_steps=alike[0].num_inference_steps,
            guidance_scale=alike[0].guidance_scale,
            generator=[torch.Generator("cpu").manual_seed(request.seed or 0) for request in alike],
            max_sequence_length=TOKENS,
        ).images
        at = time.perf_counter() - started
        done |= {r.seed or 0: (at, np.asarray(image)) for r, image in zip(alike, images, strict=True)}
        left = [request for request in left if request not in alike]
    return done


def by_engine(runtime: ModelRuntime, requests: Sequence[DiffusionRequest]) -> Done:
    """The engine given all requests at once."""
    ended: dict[int, float] = {}
    started = time.perf_counter()
    futures = [runtime.submit(request) for request in requests]
    for request, future in zip(requests, futures, strict=True):
        seed = request.seed or 0
        future.add_done_callback(lambda _, seed=seed: ended.setdefault(seed, time.perf_counter() - started))
    found = {request.seed or 0: future.result() for request, future in zip(requests, futures, strict=True)}
    return {seed: (ended[seed], answer.image.to_numpy()) for seed, answer in found.items()}


def largest_difference(found: dict[str, Done]) -> int:
    """Most shades of 255 by which a picture differs from the one that was drawn alone."""
    alone = found[ONE]
    others = (done for name, done in found.items() if name not in {ONE, NONE})
    return max(int(np.abs(done[s][1].astype(int) - alone[s][1]).max()) for done in others for s in alone)


def milliseconds_of_a_switch(pipeline: Any) -> float:
    """What `set_adapters` takes, between two of them."""
    taken: list[float] = []
    for name in ("a0", "a1") * 5:
        started = time.perf_counter()
        pipeline.set_adapters([name], [1.0])
        taken.append(time.perf_counter() - started)
    return statistics.median(taken) * 1e3


def measure(given: argparse.Namespace, folder: Path) -> None:
    import torch
    from diffusers import FluxPipeline

    sizes = {"heads": given.width // 64, "head_dim": 64, "text_width": given.width}
    blocks = {"layers": given.blocks, "single_layers": 2 * given.blocks}
    checkpoint = str(make_flux(folder / "flux", **sizes, **blocks))
    pipeline: Any = FluxPipeline.from_pretrained(checkpoint, dtype=getattr(torch, given.dtype))
    pipeline.set_progress_bar_config(disable=True)
    names = [f"a{k}" for k in range(given.adapters)]
    for seed, name in enumerate(names):
        make_adapter(folder / name, pipeline, seed=seed, rank=given.rank, alpha=given.rank)
    for name in names:
        pipeline.load_lora_weights(str(folder / name), weight_name=STANDARD, adapter_name=name)
    pipeline.to(given.device)

    lora = LoRAConfig(adapters={name: LoRAAdapter(source=name) for name in names}, root=folder)
    settings = {
        "model_id": checkpoint,
        "device": given.device,
        "dtype": given.dtype,
        "max_sequence_length": TOKENS,
    }
    policy = BatchPolicy(max_batch_size=given.batch)
    spec = ModelSpec(name="flux", backend="flux", backend_kwargs=settings, batch_policy=policy, lora=lora)
    runtime = ModelRuntime(spec)
    runtime.start()
    requests = workload(given)
    plain = [request.model_copy(update={"adapters": []}) for request in requests]
    ways: dict[str, Callable[[], Done]] = {
        ONE: partial(by_library, pipeline, requests, 1),
        GROUPED: partial(by_library, pipeline, requests, given.batch),
        MIXED: partial(by_engine, runtime, requests),
        NONE: partial(by_engine, runtime, plain),
    }
    by_engine(runtime, requests[: given.adapters])  # loads them
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    latency: dict[str, list[float]] = {name: [] for name in ways}
    busy: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, Done] = {}
    for repeat in range(given.repeats):
        # Every other time backwards, so that a drift of the machine favours nobody.
        for name in list(ways) if repeat % 2 == 0 else list(ways)[::-1]:
            began = time.process_time()
            done = found[name] = ways[name]()
            busy[name].append(time.process_time() - began)
            seconds[name].append(max(at for at, _ in done.values()))
            latency[name].append(statistics.mean(at for at, _ in done.values()))
            sys.stderr.write(f"{name}: {seconds[name][-1]:.1f} s\n")
    adapters = runtime.backend._adapters  # type: ignore[attr-defined] # noqa: SLF001 - its size is told nowhere else
    size = adapters.size
    runtime.stop()

    rate = {name: given.requests / statistics.median(taken) for name, taken in seconds.items()}
    mean = {name: statistics.median(taken) for name, taken in latency.items()}
    processor = {name: statistics.median(taken) for name, taken in busy.items()}
    switch = milliseconds_of_a_switch(pipeline)
    parameters = sum(p.numel() for name, p in pipeline.transformer.named_parameters() if "lora" not in name)
    rows = [
        [
            name,
            f"{rate[name]:.2f}",
            f"{rate[name] / rate[ONE]:.2f}",
            f"{mean[name]:.2f}",
            f"{processor[name]:.2f}",
        ]
        for name in ways
    ]
    model = f"FLUX of {parameters / 1e6:.1f} M parameters, {given.side} x {given.side} pixels"
    work = (
        f"{given.requests} requests of {given.steps} steps for {given.adapters} adapters of rank {given.rank}"
    )
    text = (
        f"{model}, {given.dtype} on {given.device}; {work}, up to {given.batch} in a batch\n"
        f"{table(['', 'images/s', 'x one', 'mean s', 'processor s'], rows)}\n"
        f"a switch by set_adapters takes {switch:.1f} ms"
    )
    # The processor's own time says the same as the clock, and nothing of who else is on the machine.
    spent = processor if given.device == "cpu" else {name: given.requests / rate[name] for name in ways}
    goals = [
        goal("time, grouped over mixed", spent[GROUPED] / spent[MIXED], 1, "times", least=True),
        goal("time, one by one over mixed", spent[ONE] / spent[MIXED], 1, "times", least=True),
        goal("time, mixed over without adapters", spent[MIXED] / spent[NONE], 1.25, "times"),
    ]
    figures = {
        "ways": {
            name: {"rate": rate[name], "mean_seconds": mean[name], "processor_seconds": processor[name]}
            for name in ways
        },
        "switch_milliseconds": switch,
        "adapter_bytes": size,
        "parameters": parameters,
        "largest_difference": largest_difference(found),
        "device": torch.cuda.get_device_name() if given.device.startswith("cuda") else given.device,
        "dtype": given.dtype,
    }
    report("adapters", text, goals, figures)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--adapters", type=int, default=8)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8, help="most requests in a batch")
    parser.add_argument("--side", type=int, default=128, help="sides of the images in pixels")
    parser.add_argument("--width", type=int, default=256, help="of the transformer, a multiple of 64")
    parser.add_argument("--blocks", type=int, default=4, help="double blocks; twice as many are single")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--quick", action="store_true", help="a toy, to see that it runs")
    given = parser.parse_args()
    if given.quick:
        given.requests, given.adapters, given.rank, given.steps, given.repeats = 6, 3, 2, 2, 1
        given.side, given.width, given.blocks = 64, 64, 1
    with tempfile.TemporaryDirectory() as folder:
        measure(given, Path(folder))


if __name__ == "__main__":
    main()
