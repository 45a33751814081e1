"""Every example runs from a clean clone and says what it did; it makes what it needs, and asks no network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
#: Marks of the examples that need more than the everyday tests have.
MARKS: dict[str, list[pytest.MarkDecorator]] = {
    "adapters.py": [pytest.mark.torch],
    "step_batching.py": [pytest.mark.torch],
    "token_budget.py": [pytest.mark.torch],
    "graph_batch.py": [pytest.mark.torch],
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(path.name, marks=MARKS.get(path.name, [])) for path in sorted(EXAMPLES.glob("*.py"))],
)
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    said = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": "agg", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.strip()
