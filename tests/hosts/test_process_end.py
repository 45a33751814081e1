"""Programs that end while a model works: promptly, by their own status, with their output written."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

pytest.importorskip("chgnet")
pytestmark = pytest.mark.torch

BEGIN = """
import atexit, sys, threading
from sheaf.spec import ModelSpec
from sheaf_client import Sheaf, SheafError
from tests.echoes import Echo

atexit.register(print, "handlers ran")
"""
#: Leaves a model at work that goes in and out of C++ for many seconds.
IN_TORCH = """
from ase.build import bulk

client = Sheaf.local(["chgnet"])
crystal = bulk("Cu", cubic=True).repeat((6, 6, 6))
try:
    client.materials.compute(crystal, model="chgnet", timeout=0.5)
except SheafError as error:
    print("left at work")
"""
#: One that stays in native code for longer than anybody waits.
ASLEEP = """
client = Sheaf.local([ModelSpec(name="m", backend_cls=Echo, backend_kwargs={"seconds": 600})])
try:
    client.time_series.forecast(model="m", history=[1], horizon=1, frequency="1h", timeout=0.5)
except SheafError as error:
    print("left at work")
"""
IN_CPP = """
import torch

client = Sheaf.local([ModelSpec(name="m", backend_cls=Echo)])
matrix, began = torch.rand(8000, 8000), threading.Event()

def multiply():
    began.set()
    for _ in range(20):
        try:
            matrix @ matrix
        except SystemExit:
            pass

client.transport._held.get("m")._lane.run_on_thread(multiply)
began.wait()
print("left at work")
"""
SERVED = """
from ase.build import bulk
from sheaf.embedded import EmbeddedServer

server = EmbeddedServer(["chgnet"], port=0).__enter__()
try:
    Sheaf(server.url).materials.compute(bulk("Cu", cubic=True).repeat((6, 6, 6)), model="chgnet", timeout=0.5)
except SheafError as error:
    print("left at work")
"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=600
    )


@pytest.mark.parametrize(
    ("work", "end", "status"),
    [
        (IN_TORCH, "", 0),
        (IN_TORCH, "raise ValueError('why')", 1),
        (IN_CPP, "sys.exit(3)", 3),
        (SERVED, "", 0),
        (ASLEEP, "sys.exit(3)", 3),
        (ASLEEP, "sys.exit('why')", 1),
    ],
    ids=["in torch", "in torch, by an error", "in C++", "served", "asleep", "asleep, by a text"],
)
def test_a_program_ends_by_its_own_status(work: str, end: str, status: int) -> None:
    done = run(BEGIN + work + end)
    assert done.returncode == status, done.stderr
    assert done.stdout.splitlines()[-2:] == ["left at work", "handlers ran"]
    assert ("why" in done.stderr) == ("why" in end)
    assert "terminate" not in done.stderr
    assert "Fatal" not in done.stderr


@pytest.mark.parametrize("work", [IN_TORCH, ASLEEP], ids=["in torch", "asleep"])
def test_ctrl_c_ends_a_program_that_waits_for_a_model(work: str) -> None:
    script = BEGIN + work + "print('waiting', flush=True)\nthreading.Event().wait()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        while program.stdout.readline() != "waiting\n":
            assert program.poll() is None
        program.send_signal(signal.SIGINT)
        written, errors = program.communicate(timeout=600)
    assert program.returncode == -signal.SIGINT
    assert written == "handlers ran\n"
    assert errors.rstrip().endswith("KeyboardInterrupt")


def test_a_handler_may_use_and_close_a_client_at_the_end() -> None:
    script = """
client = Sheaf.local([ModelSpec(name="m", backend_cls=Echo)])

def last():
    print(client.time_series.forecast(model="m", history=[5], horizon=1, frequency="1h").mean)
    client.close()

atexit.register(last)
"""
    done = run(BEGIN + script)
    assert (done.returncode, done.stdout) == (0, "[5.0]\nhandlers ran\n"), done.stderr


def test_those_who_still_wait_at_the_end_are_told() -> None:
    script = """
import atexit

requests = []

@atexit.register  # before the engine is there, so it is called after the models were stopped
def last():
    print(*(type(each.exception(60)).__name__ for each in requests))
    client.close()

from sheaf.api.time_series import TimeSeriesRequest
from sheaf.spec import ModelSpec
from sheaf_client import Sheaf
from tests.echoes import Echo

slow = ModelSpec(
    name="m", backend_cls=Echo, backend_kwargs={"seconds": 0.5}, batch_policy={"max_batch_size": 1}
)
client = Sheaf.local([slow])
for _ in range(3):
    request = TimeSeriesRequest(model_name="m", history=[5], horizon=1, frequency="1h")
    requests.append(client.transport._held.get("m").submit(request))
"""
    done = run(script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1:] == ["UnavailableError"] * 2
