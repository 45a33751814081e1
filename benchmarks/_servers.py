"""Servers under measurement: one up at a time, each a process group of its own on the same cores."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks._models import MODEL
from benchmarks._peers import PROJECT_PACKAGES, SCRIPTS, interpreter

ROOT = Path(__file__).parents[1]
#: Seconds that a server may take to answer its first request.
START = 120.0
_CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
#: The last core makes the load, the others serve; with one core, or UNPINNED=1, nothing is pinned.
_PINNED = shutil.which("taskset") is not None and "UNPINNED" not in os.environ
SERVER_CORES = _CORES[:-1] if _PINNED else []
LOAD_CORES = _CORES[-1:] if SERVER_CORES else []


@dataclass(frozen=True)
class Target:
    """A server that can be started, and the request that it is measured with.

    Attributes:
        command: with `{port}` in place of the port.
        body: what every request's JSON body holds.
    """

    command: list[str]
    path: str
    body: Any
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    url: str
    port: int
    process: psutil.Process
    #: The body of its first answer.
    answer: bytes

    def family(self) -> list[psutil.Process]:
        """The server and the processes it started; to list them takes milliseconds."""
        return [self.process, *self.process.children(recursive=True)]


def resident(processes: Sequence[psutil.Process]) -> float:
    """Resident memory in MiB; shared pages count in each."""
    total = 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 2**20


class StartError(RuntimeError):
    """A server did not come up; the message ends with its last output."""


def pinned(command: list[str], cores: list[int]) -> list[str]:
    """The command on these cores, or as it is where nothing is pinned."""
    return ["taskset", "-c", ",".join(map(str, cores)), *command] if cores else command


@contextmanager
def on_server_cores() -> Iterator[None]:
    """Threads started inside run where the servers do."""
    if not SERVER_CORES:
        yield
        return
    os.sched_setaffinity(0, SERVER_CORES)
    try:
        yield
    finally:
        os.sched_setaffinity(0, _CORES)


def placement() -> str:
    """Where things ran, in words."""
    if not SERVER_CORES:
        return "nothing pinned to a core"
    return f"every server on core {SERVER_CORES}, the load on {LOAD_CORES}".translate({91: None, 93: None})


@contextmanager
def serving(target: Target) -> Iterator[Running]:
    """Start a target, wait until it answers its request, and end it with everything it started.

    Raises `StartError` where it does not come up.
    """
    port = _free_port()
    command = pinned([part.format(port=port) for part in target.command], SERVER_CORES)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0", **target.env}
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            url = f"http://127.0.0.1:{port}{target.path}"
            answer = _first_answer(target, url, process)
            if answer is None:
                output.seek(0)
                raise StartError(f"{' '.join(command)} did not come up: {output.read()[-2000:]}")
            yield Running(url, port, psutil.Process(process.pid), answer)
        finally:
            _end(process)


def _first_answer(target: Target, url: str, process: subprocess.Popen[bytes]) -> bytes | None:
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and process.poll() is None:
        try:
            response = httpx.post(url, json=target.body, timeout=10)
        except httpx.TransportError:
            response = None
        if response is not None and response.status_code == 200:
            return response.content
        time.sleep(0.1)
    return None


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    # Some leave children in sessions of their own.
    _, alive = psutil.wait_procs(family, timeout=5)
    for child in alive:
        child.kill()
    psutil.wait_procs(alive, timeout=5)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def ours(host: str, spec: dict[str, Any], body: dict[str, Any], **env: str) -> Target:
    """A model of this project on the `embedded` host or on `ray`; like the peers it logs no calls."""
    script = str(ROOT / "benchmarks/_serve.py")
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    text = json.dumps({"name": MODEL, **spec}).replace("{", "{{").replace("}", "}}")
    command = [sys.executable, script, host, "{port}", text]
    return Target(
        command, f"/{MODEL}/time_series/forecast", body, {"PYTHONPATH": path, "SHEAF_LOG": "warning", **env}
    )


def peer(script: str, body: dict[str, Any], work: dict[str, str], *arguments: str) -> Target:
    """A script of benchmarks/peers, run by the environment it needs; `work` are its variables.

    Raises `PeerMissingError` where its environment cannot be made.
    """
    env = {"PROJECT_PACKAGES": PROJECT_PACKAGES, **work}
    file = str(SCRIPTS / f"{script}.py")
    if script == "bentoml_app":
        home = SCRIPTS.parent / ".peers/bentoml/home"
        env |= {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True", "PYTHONPATH": str(SCRIPTS)}
        command = [str(interpreter("bentoml")), "-m", "bentoml", "serve", f"{script}:Peer"]
        command += ["--working-dir", str(SCRIPTS), "--host", "127.0.0.1", "--port", "{port}"]
        return Target(command, "/predict", {"requests": [body]}, env)
    if script == "litserve_app":
        env["PYTHONPATH"] = ""
    python = str(interpreter("litserve")) if script == "litserve_app" else sys.executable
    return Target([python, file, *arguments, "{port}"], "/predict", body, env)
