"""Releases of the contract: which one a change is held against, what its command says, when it may break."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from codegen.breaking import breaking_changes, main, may_break
from codegen.bundle import SchemaError
from codegen.released import last_release, read_contract, write_release

SCHEMA = Path(__file__).parents[2] / "schema"


def test_the_schema_breaks_nothing_that_is_released() -> None:
    old, new = last_release(SCHEMA / "released"), read_contract(SCHEMA)
    assert old is not None
    assert breaking_changes(old, new) == [] or may_break(old["version"], new["version"])


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    ignored = shutil.ignore_patterns("cases", "released")
    return Path(shutil.copytree(SCHEMA, tmp_path / "schema", ignore=ignored))


def test_the_command_tells_and_fails_until_the_version_says_so(
    scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["--schema", str(scratch)]
    assert main(call) == 0
    assert capsys.readouterr().out == "Nothing is released yet.\n"
    assert main([*call, "--release"]) == 0
    assert main(call) == 0
    assert capsys.readouterr().out.endswith("Nothing breaks callers of 0.1.0.\n")

    task, frame = scratch / "tasks/time_series.yaml", scratch / "openapi.yaml"
    task.write_text(
        task.read_text(encoding="utf-8").replace("maximum: 16384", "maximum: 100"), encoding="utf-8"
    )
    assert main(call) == 1
    assert capsys.readouterr().out == "TimeSeriesRequest/horizon: upper bound 16384 → 100\n"

    assert main([*call, "--release"]) == 2
    assert "raise the version" in capsys.readouterr().err
    frame.write_text(
        frame.read_text(encoding="utf-8").replace("version: 0.1.0", "version: 0.2.0"), encoding="utf-8"
    )
    assert main(call) == 0
    assert "0.2.0 may break 0.1.0" in capsys.readouterr().out
    assert main([*call, "--release"]) == 0
    assert main(call) == 0
    assert capsys.readouterr().out.endswith("Nothing breaks callers of 0.2.0.\n")


def test_the_newest_release_is_the_one_compared_with(tmp_path: Path) -> None:
    for version in ("0.9.0", "0.10.0", "0.2.0"):
        write_release({"version": version, "operations": {}}, tmp_path)
    found = last_release(tmp_path)
    assert found is not None
    assert found["version"] == "0.10.0"
    assert json.loads((tmp_path / "0.9.0.json").read_text()) == {"version": "0.9.0", "operations": {}}
    (tmp_path / "newest.json").write_text("{}")
    with pytest.raises(SchemaError, match="newest"):
        last_release(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "allowed"),
    [
        ("0.1.0", "0.1.1", False),
        ("0.1.9", "0.2.0", True),
        ("0.2.0", "1.0.0", True),
        ("1.2.0", "1.3.0", False),
        ("1.9.9", "2.0.0", True),
        ("2.0.0", "1.9.9", False),
    ],
)
def test_a_version_says_whether_it_may_break(old: str, new: str, *, allowed: bool) -> None:
    assert may_break(old, new) is allowed
