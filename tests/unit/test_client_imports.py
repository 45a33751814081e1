"""The client package: no circle of imports in it, and a public home for all that the server needs of it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import sheaf_client
from sheaf_client import _errors, errors

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "sdk/src/sheaf_client"
SERVER = ROOT / "server/src/sheaf"


def test_the_server_imports_no_private_module_of_the_client() -> None:
    """Nor does it ask the client's lazy root for what has a home: the root leads to all of the client."""
    found = {
        (path.relative_to(SERVER).as_posix(), name)
        for path in SERVER.rglob("*.py")
        for name in names_imported(path)
        if name.partition(".")[0] == "sheaf_client"
    }
    assert len(found) > 100
    private = {(p, name) for p, name in found if any(part.startswith("_") for part in name.split("."))}
    assert private == set()
    modules = import_graph(CLIENT).keys()
    assert {(p, name) for p, name in found if name.count(".") == 1 and name not in modules} == set()


def names_imported(path: Path) -> set[str]:
    """What a file imports, by its full name."""
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {
        name
        for node in tree
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [f"{node.module}.{alias.name}" for alias in node.names]
        )
    }


def test_no_imports_of_the_client_go_in_a_circle() -> None:
    """Not even those that wait inside a function; those for type checkers alone may."""
    graph = import_graph(CLIENT)
    assert len(graph) > 100
    assert graph["sheaf_client._extensions.forecast_frame"] >= {"sheaf_client.operations.time_series"}
    assert graph["sheaf_client._local"] >= {"sheaf_client.errors"}
    assert circles(graph) == []


def import_graph(package: Path) -> dict[str, set[str]]:
    """Module → modules of the package that it imports at run time, at once or later."""
    modules = {_module(path, package): path for path in package.rglob("*.py")}
    return {name: _edges(name, path, modules.keys()) for name, path in modules.items()}


def _module(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def _edges(name: str, path: Path, modules: Collection[str]) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checked = [node for node in ast.walk(tree) if isinstance(node, ast.If) and _is_type_checking(node.test)]
    aside = {inner for node in checked for part in node.body for inner in ast.walk(part)}
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in aside:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            names = {f"{source}.{alias.name}" for alias in node.names}
            found |= (names & set(modules)) | ({source} if names - set(modules) else set())
    return found & set(modules)


def _is_type_checking(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one module: groups that lead to each other."""
    reached = {name: _reached(name, graph) for name in graph}
    groups = {tuple(sorted(other for other in reached[name] if name in reached[other])) for name in graph}
    return [list(group) for group in sorted(groups) if group]


def _reached(name: str, graph: dict[str, set[str]]) -> set[str]:
    """What the imports of a module lead to; itself only where they lead back to it."""
    found: set[str] = set()
    ahead = list(graph[name])
    while ahead:
        if (module := ahead.pop()) not in found:
            found.add(module)
            ahead += graph[module]
    return found


def test_all_errors_have_one_public_home() -> None:
    roots = {n: e for n, e in vars(_errors).items() if isinstance(e, type) and issubclass(e, Exception)}
    assert {n: getattr(errors, n) for n in roots} == roots
    assert roots.keys() <= set(errors.__all__)
    assert sheaf_client.AdaptersNotTakenError is sheaf_client.AdaptersNotSupportedError


def test_an_error_of_the_root_knows_every_code() -> None:
    """In an interpreter where nothing else was imported before."""
    code = (
        "from sheaf_client import ProblemError\n"
        "from sheaf_client.contracts.problem import Problem\n"
        "problem = Problem(type='/problems/overloaded', title='', status=503, code='overloaded')\n"
        "print(type(ProblemError.from_problem(problem)).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["OverloadedError"]
