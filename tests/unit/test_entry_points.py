"""Backends of other packages, which name them by an entry point: found by name, listed and served."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

#: A whole package as an installer leaves it: a module, and what the package says of itself.
YAGI = '''
from sheaf.api.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf.backends.base import ModelBackend, respond


class YagiBackend(ModelBackend[TimeSeriesRequest, TimeSeriesResponse]):
    """Yagi antennas in free space."""

    model_type = "time_series"

    def load(self):
        pass

    def predict(self, request):
        mean = [float(request.history[-1])] * request.horizon
        fields = {"mean": mean, "horizon": request.horizon, "frequency": request.frequency}
        return respond(request, TimeSeriesResponse, **fields)
'''
ENTRY_POINTS = """[sheaf.backends]
yagi = yagi_sheaf:YagiBackend
broken = yagi_sheaf:Missing
"""
BROKEN = "'yagi_sheaf:Missing' of another package, which cannot be used: AttributeError"
CALL = """
from sheaf import ModelSpec
from sheaf.registry import is_packaged
from sheaf_client import Sheaf

spec = ModelSpec(name="antennas", backend="yagi")
with Sheaf.local([spec]) as client:
    answer = client.time_series.forecast(model="antennas", history=[1.0, 4.0], horizon=2, frequency="1h")
    print(answer.mean, client.models.list()[0].backend, is_packaged("yagi"))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "yagi_sheaf.py").write_text(YAGI)
    told = tmp_path / "yagi_sheaf-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: yagi-sheaf\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text(ENTRY_POINTS)
    return tmp_path


def run(package: Path, *command: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(package), *sys.path])
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_is_served_by_its_name(package: Path) -> None:
    done = run(package, "-c", CALL)
    assert done.stdout.split("\n")[0] == "[4.0, 4.0] yagi True", done.stderr


def test_it_is_listed(package: Path) -> None:
    listed = run(package, "-m", "sheaf", "backends", "--json")
    (yagi,) = [entry for entry in json.loads(listed.stdout) if entry["name"] == "yagi"]
    assert yagi["class_path"] == "yagi_sheaf.YagiBackend"
    assert yagi["model_type"] == "time_series"
    assert yagi["summary"] == "Yagi antennas in free space."
    assert " yagi " in run(package, "-m", "sheaf", "backends").stdout


def test_one_that_cannot_be_loaded_hides_no_other(package: Path) -> None:
    listed = run(package, "-m", "sheaf", "backends", "--json")
    assert listed.returncode == 0, listed.stderr
    assert {"yagi", "statsforecast"} <= {entry["name"] for entry in json.loads(listed.stdout)}
    assert BROKEN in listed.stderr
    served = run(package, "-c", "from sheaf import ModelSpec; ModelSpec(name='m', backend='broken')")
    assert served.returncode == 1
    assert BROKEN in served.stderr
