"""Requests of unequal lengths share one model's steps: a short one joins a long one and leaves before it.

    pip install ./sdk "./server[diffusion]" && python examples/step_batching.py

The checkpoint is a tiny FLUX with random weights, made here: the pictures are noise, their steps are real.
"""

import sys
import tempfile
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from sheaf import ModelSpec
from sheaf_client import ProgressEvent, Sheaf
from tests.backends.diffusion.checkpoints import make_flux


def draw(client: Sheaf, steps: int, joined: threading.Event) -> None:
    request = {"prompt": f"a cat in {steps} steps", "height": 64, "width": 64, "preview_interval": 5}
    with client.diffusion.stream(model="flux", num_inference_steps=steps, **request) as stream:
        for event in stream:
            if isinstance(event, ProgressEvent):
                joined.set()
                print(f"{steps:>3} steps: {event.step:>2} of {event.total_steps}", "*" * event.step)
    print(f"{steps:>3} steps: done, at most {stream.final().metadata.usage.batch_size} shared a step")


with tempfile.TemporaryDirectory() as folder:
    settings = {"model_id": str(make_flux(folder)), "device": "cpu", "dtype": "float32"}
    with Sheaf.local([ModelSpec(name="flux", backend="flux", backend_kwargs=settings)]) as client:
        joined = threading.Event()
        long = threading.Thread(target=draw, args=(client, 20, joined))
        long.start()
        joined.wait()
        draw(client, 4, threading.Event())
        long.join()
