"""A host whose library is not installed says which extra brings it, in one line."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from sheaf.extras import install_command

PYPROJECT = Path(__file__).parents[2] / "server" / "pyproject.toml"
JOB = "spec: statsforecast\nsource: {path: in.jsonl}\nsink: {path: out}\n"


def run_without(library: str, code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a process where a library cannot be imported."""
    (folder / "job.yaml").write_text(JOB)
    (folder / "in.jsonl").write_text("{}\n")
    return subprocess.run(
        [sys.executable, "-c", f"import sys\nsys.modules[{library!r}] = None\n{code}"],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("library", "extra", "code"),
    [
        ("ray", "ray", "from sheaf.server import ModelServer"),
        ("modal", "modal", "from sheaf.modal_server import ModalServer\nModalServer('statsforecast').app"),
        ("packaging", "modal", "from sheaf.modal_server import requirements\nrequirements()"),
    ],
)
def test_a_host_names_the_extra_that_it_needs(library: str, extra: str, code: str, tmp_path: Path) -> None:
    done = run_without(library, code, tmp_path)
    said = done.stderr.strip().splitlines()[-1]
    assert said.startswith("ModuleNotFoundError: ")
    assert f" needs {library}" in said
    assert said.endswith(f": {install_command(extra)}")


@pytest.mark.parametrize(
    ("library", "extra", "command"),
    [
        ("pyarrow", "batch", ["batch", "job.yaml"]),
        ("ray", "batch", ["batch", "job.yaml"]),
        ("redis", "jobs", ["worker", "statsforecast", "--queue", "redis://127.0.0.1:1/0"]),
    ],
)
def test_the_command_says_it_in_one_line(
    library: str, extra: str, command: list[str], tmp_path: Path
) -> None:
    done = run_without(library, f"sys.argv[1:] = {command!r}\nfrom sheaf.cli import main\nmain()", tmp_path)
    assert done.returncode == 1
    (said,) = done.stderr.strip().splitlines()
    assert said.startswith("sheaf: ")
    assert not (tmp_path / "out").exists()
    assert f" needs {library}" in said
    assert said.endswith(f": {install_command(extra)}")


def test_the_command_names_the_libraries_themselves() -> None:
    """Ours is a name of another project's on the package index."""
    extras = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    (chronos, torch), (redis,) = extras["chronos"], extras["jobs"]
    assert (chronos.split(">=")[0], torch.split(">=")[0]) == ("chronos-forecasting", "torch")
    assert install_command("chronos") == f'pip install "{chronos}" "{torch}"'
    assert install_command("worker") == install_command("jobs") == f'pip install "{redis}"'
    assert install_command("nonsense") == 'pip install "./server[nonsense]"'
