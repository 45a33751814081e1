"""Runs README from top to bottom as a reader would: each block in its turn, as printed.

What a reader downloads is there already: a hub's cache with small checkpoints under README's names,
so the models' numbers mean nothing and all else is real. Servers get a free port, and FLUX the CPU.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.backends.diffusion.adapter_files import make_adapter
from tests.backends.diffusion.checkpoints import make_flux
from tests.backends.time_series.checkpoints import make_chronos_bolt

pytestmark = pytest.mark.torch
ROOT = Path(__file__).parents[2]
TYPESCRIPT = ROOT / "clients/typescript"
URL = "http://127.0.0.1:8000"
#: A machine that tests has no GPU, which a reader of this block needs.
ON_CPU = ('backend="flux",', 'backend="flux", backend_kwargs={"device": "cpu", "dtype": "float32"},')
#: The port of Ray Serve may be taken here.
DEPLOYED = "ModelServer(models=[chronos])"
#: Seconds a block may take; reached only where it hangs.
PATIENCE = 300
#: Blocks that are read and not run, by how they begin, and why.
NOT_RUN = {
    "pip install ./sdk": "installs; `test_what_is_installed_exists` looks at the names",
    "python3 -m pip install nox && python3 -m nox -s demo": "a session of nox; CI runs it",
    "python3 -m pip install nox && python3 -m nox -s tests": "a session of nox; CI runs it",
    "from sheaf.modal_server import ModalServer": "needs an account at Modal; see test_modal.py",
}
#: What Python blocks run in: a notebook without the pages. Each line in is a block, each line out its result.
KERNEL = """
import contextlib, io, json, sys, traceback
names = {"__name__": "__main__"}
replies = sys.stdout
for line in sys.stdin:
    printed, failed = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        try:
            exec(compile(json.loads(line), "README.md", "exec"), names)
        except BaseException:
            failed = traceback.format_exc()
    print(json.dumps([printed.getvalue(), failed]), file=replies, flush=True)
"""


class Block(NamedTuple):
    line: int
    section: str
    lang: str
    source: str


def blocks() -> Iterator[Block]:
    """The fenced blocks of README, with the heading that each stands under."""
    section, start, lang, source = "", 0, "", list[str]()
    for number, line in enumerate((ROOT / "README.md").read_text(encoding="utf-8").splitlines(), 1):
        if start and line == "```":
            yield Block(start, section, lang, "\n".join(source) + "\n")
            start, source = 0, []
        elif start:
            source.append(line)
        elif line.startswith("```"):
            start, lang = number, line[3:]
        elif line.startswith("#"):
            section = line.lstrip("# ")


BLOCKS = list(blocks())


def why_not(block: Block) -> str | None:
    return next((why for begin, why in NOT_RUN.items() if block.source.startswith(begin)), None)


def params() -> Iterator[Any]:
    for block in BLOCKS:
        marks = [pytest.mark.node] if block.lang == "ts" else []
        if any(part in block.source for part in (DEPLOYED, "sheaf batch", "# job.yaml")):
            marks = [pytest.mark.ray]
        name = re.sub(r"\W+", "-", block.section.lower())
        if why_not(block) is None:
            yield pytest.param(block, id=f"{name}-{block.lang}-{block.line}", marks=marks)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class Reader:
    """Somebody who goes through README in a folder of their own."""

    def __init__(self, folder: Path, hub: Path) -> None:
        self.folder = folder
        self.url = URL
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "HF_HUB_CACHE": str(hub),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }
        self.started: list[subprocess.Popen[str]] = []
        self._kernel: subprocess.Popen[str] | None = None

    def read(self, block: Block) -> str:
        """Do what the block says; what it printed."""
        on_port = DEPLOYED.replace(")", f", port={free_port()})")
        source = block.source.replace(URL, self.url).replace(*ON_CPU).replace(DEPLOYED, on_port)
        return {"bash": self.shell, "python": self.python, "ts": self.typescript, "yaml": self.write}[
            block.lang
        ](source)

    def write(self, source: str) -> str:
        name = source.splitlines()[0].removeprefix("# ")
        (self.folder / name).write_text(source, encoding="utf-8")
        return name

    def python(self, source: str) -> str:
        if self._kernel is None:
            self._kernel = subprocess.Popen(
                [sys.executable, "-c", KERNEL],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            self.started.append(self._kernel)
        assert self._kernel.stdin is not None
        assert self._kernel.stdout is not None
        print(json.dumps(source), file=self._kernel.stdin, flush=True)
        reply = self._kernel.stdout.readline()
        assert reply, "the process ended"
        printed, failed = json.loads(reply)
        assert failed is None, failed
        return str(printed)

    def shell(self, source: str) -> str:
        stays = source.startswith(("sheaf serve", "sheaf worker"))
        if stays:
            return self.start(source.split("#", maxsplit=1)[0].strip())
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", source],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, command: str) -> str:
        """Start what stays; of servers one at a time, as they have one port."""
        serves = command.startswith("sheaf serve")
        if serves:
            for server in self.started:
                if "serve" in server.args:
                    server.terminate()
                    server.wait(PATIENCE)
            port = free_port()
            command, self.url = f"{command} --port {port}", f"http://127.0.0.1:{port}"
        log = self.folder / f"{len(self.started)}.log"
        with log.open("w") as out:
            began = subprocess.Popen(
                command.split(), cwd=self.folder, env=self.environment, stdout=out, stderr=out, text=True
            )
        self.started.append(began)
        if serves:
            self._wait_until_ready(began, log)
        return command

    def _wait_until_ready(self, server: subprocess.Popen[str], log: Path) -> None:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            assert server.poll() is None, log.read_text()
            try:
                answer = httpx.get(f"{self.url}/models", timeout=5)
            except httpx.TransportError:
                time.sleep(0.1)
                continue
            if answer.status_code == 401 or all(model["ready"] for model in answer.json()["models"]):
                return
            time.sleep(0.1)
        raise AssertionError(log.read_text())

    def typescript(self, source: str) -> str:
        modules = self.folder / "node_modules"
        modules.mkdir()
        (modules / "sheaf-client").symlink_to(TYPESCRIPT, target_is_directory=True)
        (self.folder / "readme.mts").write_text(source, encoding="utf-8")
        compiler = TYPESCRIPT / "node_modules/typescript/bin/tsc"
        options = "--strict --target es2022 --lib es2022,dom --module nodenext"
        return self.shell(f"node {compiler} {options} readme.mts && node readme.mjs")

    def leave(self) -> None:
        if self._kernel is not None and self._kernel.stdin is not None:
            self._kernel.stdin.close()  # a program that ends takes what it deployed along
            self._kernel.wait(PATIENCE)
        for process in reversed(self.started):
            process.kill()
            process.wait()


def put_on_the_hub(hub: Path, name: str, made: Path) -> None:
    """A checkpoint as the hub's library keeps what it has downloaded."""
    folder = hub / f"models--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("0" * 40)
    (folder / "snapshots").mkdir()
    made.rename(folder / "snapshots" / ("0" * 40))


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    from diffusers import FluxPipeline

    folder, hub = tmp_path_factory.mktemp("readme"), tmp_path_factory.mktemp("hub")
    for size in ("small", "base"):
        put_on_the_hub(hub, f"amazon/chronos-bolt-{size}", make_chronos_bolt(hub / size))
    flux = make_flux(hub / "flux", guidance=False)
    for seed, name in enumerate(["sketch", "ink"]):
        pipe = FluxPipeline.from_pretrained(flux)
        make_adapter(folder / "loras", pipe, seed=seed, file=f"{name}.safetensors")
    put_on_the_hub(hub, "black-forest-labs/FLUX.1-schnell", flux)
    reader = Reader(folder, hub)
    yield reader
    reader.leave()


@pytest.mark.parametrize("block", list(params()))
def test_the_block_does_what_it_says(block: Block, reader: Reader) -> None:
    printed = reader.read(block)
    if re.search(r"print\(|console\.log|^curl|^sheaf key|^cat [^=]", block.source, re.MULTILINE):
        assert printed.strip()
        assert "Error" not in printed or block.section == "Errors"


def test_the_first_forecast_looks_like_one() -> None:
    """The numbers of a reader's first call: they go up and down with the season, and have a width."""
    block = next(block for block in BLOCKS if block.section == "First forecast" and block.lang == "python")
    names: dict[str, Any] = {}
    exec(compile(block.source, "README.md", "exec"), names)  # noqa: S102
    table = names["forecast"].to_pandas()
    names["client"].close()
    assert len(table) == 12
    widths = table["0.9"] - table["0.1"]
    assert (widths > 5).all()
    assert table["mean"].round(1).nunique() > 6


def test_what_is_installed_exists() -> None:
    """Folders, extras and sessions that README names."""
    extras = tomllib.loads((ROOT / "server/pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = {extra for group in re.findall(r"\./server\[([\w,-]+)\]", text) for extra in group.split(",")}
    assert named
    assert named <= extras.keys()
    spec = importlib.util.spec_from_file_location("noxfile", ROOT / "noxfile.py")
    assert spec is not None
    assert spec.origin is not None
    sessions = set(re.findall(r"^@nox\.session.*\ndef (\w+)", Path(spec.origin).read_text(), re.MULTILINE))
    assert set(re.findall(r"nox -s (\w+)", text)) <= sessions


def test_nothing_sends_a_reader_to_a_package_of_another_project() -> None:
    """`sheaf-serve` on the package index is not ours: pages and hints name the folder or the libraries."""
    found = subprocess.run(
        ["git", "grep", "-nE", r"install[^`]*sheaf-(serve|client)\b", "--", ".", ":!tests", ":!clients"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    assert found == ""
