"""What type checkers tell users of the client: nothing about right code, each mistake in wrong code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests/typing"
FILES = ("user_code.py", "wrong_code.py")
COMMANDS = {
    "pyright": ["-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "--project", str(FOLDER)],
    "mypy": [
        *(
            "-m",
            "mypy",
            "--output=json",
            f"--config-file={FOLDER}/mypy.ini",
            f"--cache-dir={FOLDER}/.mypy_cache",
        ),
        *(str(FOLDER / name) for name in FILES),
    ],
}

pytestmark = pytest.mark.node

#: Errors by file: line and message.
Reported = dict[str, list[tuple[int, str]]]


@pytest.fixture(scope="module")
def reported() -> dict[str, Reported]:
    """What each checker says; they run side by side, over all files at once."""
    running = {
        name: subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for name, command in COMMANDS.items()
    }
    outputs = {name: process.communicate()[0] for name, process in running.items()}
    return {"pyright": _group(_pyright(outputs["pyright"])), "mypy": _group(_mypy(outputs["mypy"]))}


def _pyright(output: str) -> Iterator[tuple[str, int, str]]:
    report = json.loads(output)
    assert report["summary"]["filesAnalyzed"] == len(FILES)
    for item in report["generalDiagnostics"]:
        yield item["file"], item["range"]["start"]["line"] + 1, item["message"]


def _mypy(output: str) -> Iterator[tuple[str, int, str]]:
    for item in map(json.loads, output.splitlines()):
        if item["severity"] == "error":
            yield item["file"], item["line"], item["message"]


def _group(found: Iterator[tuple[str, int, str]]) -> Reported:
    groups: Reported = {}
    for file, line, message in found:
        groups.setdefault(Path(file).name, []).append((line, message))
    return groups


@pytest.mark.parametrize("checker", COMMANDS)
def test_right_code_has_no_errors(reported: dict[str, Reported], checker: str) -> None:
    assert reported[checker].get("user_code.py", []) == []


@pytest.mark.parametrize("checker", COMMANDS)
def test_each_mistake_is_reported_and_nothing_else(reported: dict[str, Reported], checker: str) -> None:
    source = (FOLDER / "wrong_code.py").read_text().splitlines()
    marked = [number for number, line in enumerate(source, 1) if "# wrong: " in line]
    found = {line for line, _ in reported[checker]["wrong_code.py"]}
    assert len(marked) > 20
    assert sorted(found) == marked
    assert reported[checker].keys() <= set(FILES)
