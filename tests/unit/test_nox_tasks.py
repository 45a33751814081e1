"""What the project's tasks are made of: programs side by side, and installing where pip is told to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: A task of another folder, made of ours.
TASK = """
import sys
import nox
sys.path.insert(0, {root!r})
from noxfile import held, install_by_uv, run_pytest, side_by_side

@nox.session(venv_backend="none")
def task(session):
    def says(text, status=0):
        code = f"print('it says ' + {{text!r}}); exit({{status}})"
        return lambda: held(session, sys.executable, "-c", code)

    {body}
"""


def run(folder: Path, body: str, **settings: str) -> tuple[int, str]:
    (folder / "pytest.ini").touch()  # tests of this folder are named from it, wherever it is
    (folder / "noxfile.py").write_text(TASK.format(root=str(ROOT), body=body), encoding="utf-8")
    command = [sys.executable, "-m", "nox", "-f", str(folder / "noxfile.py"), "-s", "task"]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **settings}  # they take seconds
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


#: Tests that fail as often as a file says, which each of them shortens.
FLAKY = """
import pathlib

def once_less(name):
    kept = pathlib.Path(name)
    left = int(kept.read_text())
    kept.write_text(str(max(0, left - 1)))
    return left

def test_sound():
    assert once_less("sound") == 0

def test_waits():
    assert once_less("waits") == 0
"""


@pytest.mark.parametrize(
    ("fails", "status", "told"),
    [
        ({}, 0, None),
        ({"waits": 1}, 0, "passed the second time alone: test_flaky.py::test_waits"),
        ({"waits": 1, "sound": 1}, 0, "alone: test_flaky.py::test_sound, test_flaky.py::test_waits"),
        ({"waits": 2}, 1, "once more, one by one: test_flaky.py::test_waits"),
    ],
)
def test_a_test_that_fails_beside_others_has_one_more_go(
    tmp_path: Path, fails: dict[str, int], status: int, told: str | None
) -> None:
    (tmp_path / "test_flaky.py").write_text(FLAKY, encoding="utf-8")
    for name in ("sound", "waits"):
        (tmp_path / name).write_text(str(fails.get(name, 0)), encoding="utf-8")
    ended, said = run(tmp_path, 'run_pytest(session, "-q")')
    assert ended == status, said
    assert (told or "2 passed") in said
    assert ("once more" in said) == bool(fails)
    assert said.count("2 passed") == (not fails)


def test_many_that_fail_are_a_fault(tmp_path: Path) -> None:
    tests = "import pytest\n@pytest.mark.parametrize('i', range(4))\ndef test_it(i):\n    assert False\n"
    (tmp_path / "test_broken.py").write_text(tests, encoding="utf-8")
    status, said = run(tmp_path, 'run_pytest(session, "-q")')
    assert status == 1
    assert "4 failed" in said
    assert "once more" not in said


def test_a_file_that_cannot_be_read_the_first_time_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "test_first.py").write_text(
        "import pathlib\n"
        "seen = pathlib.Path('seen')\n"
        "if not seen.exists():\n"
        "    seen.touch()\n"
        "    raise RuntimeError\n"
        "def test_it(): pass\n"
    )
    (tmp_path / "test_second.py").write_text("def test_it(): assert False\n")
    status, said = run(tmp_path, 'run_pytest(session, "-q")')
    assert status == 1
    assert "once more" not in said
