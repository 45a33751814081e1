"""Runs every code sample of the document as a reader would: copied to a file, against a running server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest

from sheaf.contract.operations import all_operations
from tests.contract.echo import name_of

DOCUMENT = json.loads(files("sheaf").joinpath("http", "document", "openapi.json").read_text(encoding="utf-8"))
TYPESCRIPT = Path(__file__).parents[2] / "clients/typescript"
#: Seconds one sample may take; reached only where it hangs.
PATIENCE = 120


class LiveServer(Protocol):
    """A server that holds the model which the samples name."""

    url: str


@dataclass(frozen=True)
class Sample:
    operation: str
    lang: str
    source: str
    #: The worked requests that the sample sends; none for those that only ask.
    requests: tuple[dict[str, Any], ...]
    path: str

    @property
    def name(self) -> str:
        return f"{self.operation}-{self.lang}"


def _samples() -> Iterator[Sample]:
    for path, item in DOCUMENT["paths"].items():
        operation = item.get("post") or item["get"]
        examples = (
            operation.get("requestBody", {})
            .get("content", {})
            .get("application/json", {})
            .get("examples", {})
        )
        for sample in operation["x-codeSamples"]:
            chosen = (
                examples.get(sample["example"])
                if "example" in sample
                else next(iter(examples.values()), None)
            )
            body = chosen["value"] if chosen else {}
            requests = body.get("requests", [body] if body else [])
            yield Sample(operation["operationId"], sample["lang"], sample["source"], tuple(requests), path)


RESPONSES = {name_of(operation): operation.response for operation in all_operations()}
SAMPLES = {sample.name: sample for sample in _samples()}


def _of(lang: str) -> list[str]:
    return [name for name, sample in SAMPLES.items() if sample.lang == lang]


def _run(command: list[str], server: LiveServer, folder: Path) -> str:
    environment = {**os.environ, "SHEAF_BASE_URL": server.url, "NO_PROXY": "127.0.0.1,localhost"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def _check_printed(sample: Sample, output: str) -> None:
    """A forecast prints its numbers, another answer its first field, and the list a line for each model."""
    if not sample.requests:
        assert re.search(r"^statsforecast\b.*\btime_series\b", output, re.MULTILINE), output
        return
    if "horizon" not in sample.requests[0]:
        assert output.endswith("\n")  # an echo's text may be empty
        assert "undefined" not in output
        return
    printed = [json.loads(found) for found in re.findall(r"\[[^\[\]]*\]", output)]
    assert [len(values) for values in printed] == [request["horizon"] for request in sample.requests], output
    assert all(isinstance(value, int | float) for values in printed for value in values)


def _check_body(sample: Sample, output: str) -> None:
    """A curl sample prints the answer itself."""
    if "text/event-stream" in _responses(sample)["200"]["content"]:
        data = [line.removeprefix("data:") for line in output.splitlines() if line.startswith("data:")]
        answers = [json.loads(data[-1])]
        assert answers[0]["done"] is True
    else:
        body = json.loads(output)
        answers = body.get("responses", [body])
    if sample.requests:
        assert [answer["model_name"] for answer in answers] == [r["model_name"] for r in sample.requests]
        for answer, request in zip(answers, sample.requests, strict=True):
            asked = ".".join(request[name] for name in ("model_type", "operation") if name in request)
            contract = RESPONSES[asked].model_validate(answer)
            assert len(getattr(contract, "mean", ())) == request.get("horizon", 0)
    elif "models" in answers[0]:
        assert "statsforecast" in [model["name"] for model in answers[0]["models"]]
    else:
        assert answers[0]["status"] in ("ok", "ready")


def _responses(sample: Sample) -> dict[str, Any]:
    item = DOCUMENT["paths"][sample.path]
    return (item.get("post") or item["get"])["responses"]


def test_samples_are_those_of_the_served_document(live_server: LiveServer):
    served = httpx.get(f"{live_server.url}/openapi.json").raise_for_status().json()
    for sample in SAMPLES.values():
        named = re.search(r"\}/([^/]+)/", sample.source)  # those that only ask name it in their address
        name = sample.requests[0]["model_name"] if sample.requests else named[1] if named else ""
        path = sample.path.replace("{model_name}", name)
        operation = next(iter(served["paths"][path].values()))
        assert sample.source in [shown["source"] for shown in operation["x-codeSamples"]]


@pytest.mark.parametrize("name", _of("python"))
def test_python_sample_runs(name: str, live_server: LiveServer, tmp_path: Path):
    script = tmp_path / "sample.py"
    script.write_text(SAMPLES[name].source, encoding="utf-8")
    _check_printed(SAMPLES[name], _run([sys.executable, str(script)], live_server, tmp_path))


@pytest.mark.parametrize("name", _of("shell"))
def test_curl_sample_runs(name: str, live_server: LiveServer, tmp_path: Path):
    script = tmp_path / "sample.sh"
    script.write_text(SAMPLES[name].source + "\n", encoding="utf-8")
    _check_body(SAMPLES[name], _run(["bash", "-euo", "pipefail", str(script)], live_server, tmp_path))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """All TypeScript samples through the compiler at once, in a folder where `sheaf-client` is installed."""
    folder = tmp_path_factory.mktemp("samples")
    modules = folder / "node_modules"
    modules.mkdir()
    (modules / "sheaf-client").symlink_to(TYPESCRIPT, target_is_directory=True)
    (modules / "@types").symlink_to(TYPESCRIPT / "node_modules/@types", target_is_directory=True)
    for name in _of("typescript"):
        (folder / f"{name}.mts").write_text(SAMPLES[name].source, encoding="utf-8")
    compiler = TYPESCRIPT / "node_modules/typescript/bin/tsc"
    options = [
        "--strict",
        "--target",
        "es2022",
        "--lib",
        "es2022,dom",
        "--module",
        "nodenext",
        "--types",
        "node",
    ]
    done = subprocess.run(
        ["node", str(compiler), *options, *(f"{name}.mts" for name in _of("typescript"))],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return folder, done


@pytest.mark.node
def test_typescript_samples_have_the_right_types(compiled: tuple[Path, subprocess.CompletedProcess[str]]):
    _, done = compiled
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.node
@pytest.mark.parametrize("name", _of("typescript"))
def test_typescript_sample_runs(
    name: str,
    compiled: tuple[Path, subprocess.CompletedProcess[str]],
    live_server: LiveServer,
):
    folder, _ = compiled
    _check_printed(SAMPLES[name], _run(["node", f"{name}.mjs"], live_server, folder))
