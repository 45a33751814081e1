"""The locks: exact versions of what each environment asks for, in a form that pip takes on any machine."""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def noxfile() -> ModuleType:
    spec = importlib.util.spec_from_file_location("noxfile", ROOT / "noxfile.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["noxfile"] = module  # a class of it looks for its module
    spec.loader.exec_module(module)
    return module


NOXFILE = noxfile()
ENVIRONMENTS = sorted(NOXFILE.ENVIRONMENTS)


def locked(name: str) -> dict[str, str]:
    """The versions of a lock, by the name of the package."""
    lines = (ROOT / "locks" / f"{name}.txt").read_text(encoding="utf-8").splitlines()[1:]
    return {canonicalize_name(package): version for package, version in (line.split("==") for line in lines)}


def wanted(name: str) -> list[Requirement]:
    """What an environment asks for: its tools, and what both packages need with its extras."""
    environment = NOXFILE.ENVIRONMENTS[name]
    found = [Requirement(tool) for tool in environment.tools]
    if not environment.extras:
        return found
    found += [Requirement(tool) for tool in NOXFILE.BUILD]
    packages = {}
    for folder in ("sdk", "server"):
        project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        packages[project["name"]] = project.get("optional-dependencies", {})
        found += [Requirement(need) for need in project["dependencies"]]
    extras, seen = list(environment.extras), set[str]()
    while extras:
        extra = extras.pop()
        if extra in seen:
            continue
        seen.add(extra)
        for need in map(Requirement, packages["sheaf-serve"][extra]):
            if need.name == "sheaf-serve":
                extras += need.extras
            else:
                found.append(need)
    return [need for need in found if need.name not in packages]


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_lock_holds_names_and_versions_alone(name: str) -> None:
    header, *lines = (ROOT / "locks" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    assert header.startswith("# Made by `nox -s lock`")
    assert lines
    # No address, no hash, no local build such as +cpu: other platforms have other files of the same version.
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9A-Za-z.!]+", line)] == []


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_lock_has_a_version_that_is_allowed_of_all_that_is_asked_for(name: str) -> None:
    versions = locked(name)
    for need in wanted(name):
        if need.marker is None or need.marker.evaluate():
            assert need.specifier.contains(versions[canonicalize_name(need.name)], prereleases=True), need


def test_there_is_a_lock_for_each_environment() -> None:
    assert sorted(path.stem for path in (ROOT / "locks").glob("*.txt")) == ENVIRONMENTS


def test_what_pip_installed_becomes_constraints_for_other_machines() -> None:
    frozen = "torch==2.13.0+cpu\npip==26.0\nnvidia-cublas-cu12==1.0\nnvidia-ml-py3==7.3\nB==1\na==2\n-e git+x"
    text = NOXFILE.constraints(frozen)
    assert text.splitlines()[1:] == ["a==2", "B==1", "nvidia-ml-py3==7.3", "torch==2.13.0"]
