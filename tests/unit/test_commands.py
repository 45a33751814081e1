"""Commands that cannot be done say why in plain words: no traceback, no values of variables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sheaf.cli import app

FILES = {
    "broken.yaml": b"models: [statsforecast\naccess: {keys: [{name: ann, sha256: hunter2}]}",
    "binary.yaml": b"\xff\xfe\x00",
    "unknown.yaml": b"models: [{name: a, backend: nonesuch}]",
    "secret.yaml": b"models: [statsforecast]\naccess: {keys: [{name: ann, sha256: hunter2}]}",
}
READING = [
    ("broken.yaml", "line 2, column 7"),
    ("binary.yaml", "no YAML: "),
    ("unknown.yaml", "no backend is called 'nonesuch'"),
    ("missing.yaml", "No such file"),
    ("nonesuch", "no backend is called 'nonesuch'"),
]
ALL: list[tuple[list[str], str]] = [
    *((["serve", file], words) for file, words in READING),
    *((["openapi", file], words) for file, words in READING),
    (["serve", "secret.yaml"], "sha256"),
    (["serve", "statsforecast", "--host", "nowhere.invalid"], "not known"),
    (["serve", "statsforecast", "--port", "99999"], "--port"),
    (
        ["worker", "statsforecast", "--queue", "sqlite:///jobs.db", "--metrics-port", "99999"],
        "--metrics-port",
    ),
    (["key", "new", "no/name"], "name: "),
]


@pytest.mark.parametrize(("arguments", "words"), ALL, ids=[" ".join(arguments) for arguments, _ in ALL])
def test_a_command_that_cannot_be_done_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str], words: str
) -> None:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    for name in ("SHEAF_API_KEYS", "SHEAF_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    # Typer's own refusals are drawn in a box, as wide as the terminal.
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "TERM": "dumb"})
    assert done.exit_code in (1, 2)
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert words in done.output
    assert "hunter2" not in done.output
    assert "Traceback" not in done.output
    assert done.exit_code == 2 or sum(line.startswith("sheaf: ") for line in done.output.splitlines()) >= 1


def test_no_version_of_typer_shows_the_values_of_variables() -> None:
    assert not app.pretty_exceptions_enable
    assert not app.pretty_exceptions_show_locals
