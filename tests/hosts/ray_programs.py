"""A program that serves two models of its own on a cluster of Ray, and ends by a signal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

#: A program on somebody else's cluster, with a backend of its own and one in a module beside it.
PROGRAM = """
import os, signal, sys
import beside
from sheaf import ModelServer, ModelSpec
from sheaf.registry import register_backend
from sheaf.spec import ResourceConfig
from sheaf_client import Sheaf

@register_backend("inside")
class Inside(beside.Beside):
    '''Written in the program.'''

small = ResourceConfig(num_cpus=0.1)
def spec(name, backend):
    return ModelSpec(name=name, backend=backend, backend_kwargs={"add": 100}, resources=small)
server = ModelServer([spec("seventh", "inside"), spec("eighth", "beside")])
server.run()
with Sheaf(server.url) as client:
    call = dict(history=[1.0, 2.0], horizon=1, frequency="1h")
    print(*(client.time_series.forecast(model=m.name, **call).mean[0] for m in client.models.list()))
os.kill(os.getpid(), getattr(signal, sys.argv[1]))
"""
BESIDE = """
from sheaf.backends.base import ModelBackend, respond
from sheaf.api.time_series import TimeSeriesResponse
from sheaf.registry import register_backend

def last(request):
    return request.history[-1]

@register_backend("beside")
class Beside(ModelBackend):
    model_type = "time_series"
    def __init__(self, *, add):
        self.add = add
    def load(self):
        pass
    def batch_predict(self, requests):
        return [respond(r, TimeSeriesResponse, mean=[last(r) + self.add], horizon=1, frequency="1h")
                for r in requests]
"""


def run_program(folder: Path, how: str) -> subprocess.CompletedProcess[str]:
    import ray

    (folder / "program.py").write_text(PROGRAM)
    (folder / "beside.py").write_text(BESIDE)
    address = ray.get_runtime_context().gcs_address
    return subprocess.run(
        [sys.executable, str(folder / "program.py"), how],
        env={**os.environ, "RAY_ADDRESS": address},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
