"""What the potentials share, without any of their libraries."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from sheaf.backends.chgnet import CHGNetBackend
from sheaf.backends.mace import MACEBackend
from sheaf.extras import install_command
from tests.backends.materials.materials_cases import ask


@pytest.mark.parametrize(
    ("backend", "library", "command"),
    [
        (CHGNetBackend(), "chgnet", install_command("chgnet")),
        (CHGNetBackend(), "torch", install_command("chgnet")),
        (MACEBackend("m"), "mace", install_command("mace")),
        (MACEBackend("m"), "torch", install_command("mace")),
    ],
)
def test_a_missing_library_is_told_with_the_command_that_installs_it(
    backend: Any, library: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ("._models.chgnet", "._models.mace")
    for name in [n for n in sys.modules if n.split(".")[0] == library or any(part in n for part in own)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ModuleNotFoundError) as missing:
        backend.load()
    assert command in str(missing.value)


def test_importing_the_backends_imports_no_model_library() -> None:
    code = (
        "import sys, sheaf.backends.chgnet, sheaf.backends.mace;"
        "heavy = {'torch', 'chgnet', 'mace', 'e3nn', 'ase', 'pymatgen', 'pandas', 'scipy'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_backend_that_is_not_loaded_says_so() -> None:
    from ase import Atoms

    with pytest.raises(RuntimeError, match="load"):
        CHGNetBackend().check(ask(Atoms("H")))
