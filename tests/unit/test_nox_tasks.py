"""What the project's tasks are made of: programs side by side, and installing where pip is told to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: A task of another folder, made of ours.
TASK = """
import sys
import nox
sys.path.insert(0, {root!r})
from noxfile import held, install_by_uv, side_by_side

@nox.session(venv_backend="none")
def task(session):
    def says(text, status=0):
        code = f"print('it says ' + {{text!r}}); exit({{status}})"
        return lambda: held(session, sys.executable, "-c", code)

    {body}
"""


def run(folder: Path, body: str, **settings: str) -> tuple[int, str]:
    (folder / "noxfile.py").write_text(TASK.format(root=str(ROOT), body=body), encoding="utf-8")
    command = [sys.executable, "-m", "nox", "-f", str(folder / "noxfile.py"), "-s", "task"]
    environment = {**os.environ, **settings}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_what_is_done_side_by_side_is_told_whole(tmp_path: Path) -> None:
    status, said = run(tmp_path, 'side_by_side(session, says("one"), says("two"))')
    assert (status, said.count("it says one"), said.count("it says two")) == (0, 1, 1)


def test_one_that_fails_fails_the_task_once_all_have_ended(tmp_path: Path) -> None:
    status, said = run(tmp_path, 'side_by_side(session, says("one", 3), says("two"), says("three", 4))')
    assert status == 1
    assert [said.count(f"it says {text}") for text in ("one", "two", "three")] == [1, 1, 1]
    assert "failed with exit code 3" in said
    assert "failed with exit code 4" in said


def test_pip_installs_where_its_settings_name_another_index(tmp_path: Path) -> None:
    body = 'session.log(install_by_uv(session, "no such lock", ["no-such-package"]))'
    status, said = run(tmp_path, body, PIP_INDEX_URL="http://127.0.0.1:9/simple")
    assert status == 0, said
    assert "nox > False" in said
    assert "install" not in said
