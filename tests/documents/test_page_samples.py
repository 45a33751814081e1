"""Runs every sample of the documentation pages against a server that has a model of each type.

The models follow their contracts and compute nothing, so this holds the samples to the clients and the
routes; `test_samples` runs those of the real backend, with real answers.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest

from sheaf.embedded import EmbeddedServer
from sheaf.spec import ModelSpec
from tests.contract.echo import EchoBackend

ROOT = Path(__file__).parents[2]
TYPESCRIPT = ROOT / "clients/typescript"
_BLOCK = re.compile(r"^    ```(python|typescript|shell)\n(.*?)^    ```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Sample:
    name: str
    lang: str
    source: str


def samples() -> Iterator[Sample]:
    for path in sorted((ROOT / "docs/models").glob("*.md")):
        counts: dict[str, int] = {}
        for lang, source in _BLOCK.findall(path.read_text(encoding="utf-8")):
            counts[lang] = counts.get(lang, 0) + 1
            yield Sample(f"{path.stem}_{counts[lang]}", lang, dedent(source))


SAMPLES = {(sample.lang, sample.name): sample for sample in samples()}


def of(lang: str) -> list[str]:
    return [name for kind, name in SAMPLES if kind == lang]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server with each model under the name that the samples call it by."""
    named: dict[str, str] = {}
    for name in of("python"):
        model_type = name.rsplit("_", 1)[0]
        found = re.search(r'\bmodel="([^"]+)"', SAMPLES["python", name].source)
        assert found is not None
        named[found[1]] = model_type
    specs = [ModelSpec(name=name, backend_cls=EchoBackend.of(kind)) for name, kind in named.items()]
    with EmbeddedServer(specs, port=0) as server:
        yield server.url


def test_every_language_has_a_sample_of_every_operation() -> None:
    assert of("python") == of("typescript") == of("shell")
    assert (
        len({name.rsplit("_", 1)[0] for name in of("python")})
        == len(list((ROOT / "docs/models").glob("*.md"))) - 1
    )


@pytest.mark.parametrize("name", of("python"))
def test_python_sample_runs(name: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHEAF_BASE_URL", url)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(SAMPLES["python", name].source, f"{name}.py", "exec"), {})  # noqa: S102
    assert printed.getvalue().endswith("\n")


@pytest.mark.parametrize("name", of("shell"))
def test_curl_sample_runs(name: str, url: str) -> None:
    environment = {**os.environ, "SHEAF_BASE_URL": url, "NO_PROXY": "127.0.0.1"}
    command = ["bash", "-euo", "pipefail", "-c", SAMPLES["shell", name].source]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=True
    ).stdout
    events = [line.removeprefix("data:") for line in done.splitlines() if line.startswith("data:")]
    answer = json.loads(events[-1] if events else done)
    assert answer["model_type"] == name.rsplit("_", 1)[0]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All TypeScript samples through the strict compiler at once, where `sheaf-client` is installed."""
    folder = tmp_path_factory.mktemp("pages")
    modules = folder / "node_modules"
    modules.mkdir()
    (modules / "sheaf-client").symlink_to(TYPESCRIPT, target_is_directory=True)
    (modules / "@types").symlink_to(TYPESCRIPT / "node_modules/@types", target_is_directory=True)
    for name in of("typescript"):
        (folder / f"{name}.mts").write_text(SAMPLES["typescript", name].source, encoding="utf-8")
    options = ["--strict", "--target", "es2022", "--lib", "es2022,dom", "--module", "nodenext"]
    compiler = str(TYPESCRIPT / "node_modules/typescript/bin/tsc")
    command = ["node", compiler, *options, "--types", "node", *(f"{name}.mts" for name in of("typescript"))]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    return folder


@pytest.mark.node
@pytest.mark.parametrize("name", of("typescript"))
def test_typescript_sample_runs(name: str, compiled: Path, url: str) -> None:
    environment = {**os.environ, "SHEAF_BASE_URL": url}
    command = ["node", f"{name}.mjs"]
    done = subprocess.run(
        command, cwd=compiled, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.endswith("\n")
