"""The benchmarks run alone and print a table and a line of JSON. What they measure is judged elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(name: str, *arguments: str, folder: Path) -> tuple[str, dict[str, Any]]:
    command = [sys.executable, str(BENCHMARKS / name), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=True)
    *text, last = done.stdout.splitlines()
    return "\n".join(text), json.loads(last)


def test_wire_gives_every_step_in_both_forms(tmp_path: Path) -> None:
    text, content = run("wire.py", "--rounds", "1", "--side", "64", folder=tmp_path)
    steps = {"client encode", "server decode", "server encode", "client decode", "four steps", "whole call"}
    assert "client encode" in text
    for figures in content["figures"]["milliseconds"].values():
        assert figures.keys() == steps | {"body bytes"}
    sizes = [figures["body bytes"] for figures in content["figures"]["milliseconds"].values()]
    pixels = 4 * 4 * 64 * 64
    assert sizes[0] > pixels * 4 / 3 > sizes[1] > pixels
    assert [goal["limit"] for goal in content["goals"]] == [0.1]


def test_sdk_says_that_it_skips_peers_that_are_not_there(tmp_path: Path) -> None:
    text, content = run(
        "sdk.py", "--rounds", "2", "--calls", "5", "--peers", str(tmp_path / "python"), folder=tmp_path
    )
    assert "peers skipped" in text
    assert {"empty interpreter", "import sheaf_client", "first Sheaf()"} <= content["figures"][
        "starts"
    ].keys()
    assert content["figures"]["calls"].keys() == {"httpx", "keywords", "contract"}
    assert [goal["limit"] for goal in content["goals"]][1:] == [700, 1.3]
