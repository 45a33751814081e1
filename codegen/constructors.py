"""Gives the request contracts a constructor that type checkers read, and that is not there at run time.

Pydantic takes a tuple for a list and text for an enum; by the fields alone, a type checker refuses both, and
even a `list[float]` for a `list[float | None]`.
"""

from __future__ import annotations

import ast
from pathlib import Path

from codegen.bundle import Bundle
from codegen.contracts import nested_parameters
from codegen.fields import Contracts
from codegen.inputs import Inputs

_FUTURE = "from __future__ import annotations\n"
_IMPORTS = ("from collections.abc import Mapping, Sequence", "from typing import TYPE_CHECKING")


def add_constructors(bundle: Bundle, folder: Path) -> None:
    """Write the constructors into the contract modules in `folder`."""
    contracts = Contracts(bundle, folder, Inputs(bundle, arrays=False))
    nested = nested_parameters(bundle)
    for task in bundle.tasks:
        path = folder / f"{task.module}.py"
        names = {op.request for op in task.operations}
        names |= {name for name in nested if bundle.schemas[name].module == task.module}
        path.write_text(_with_constructors(path.read_text(encoding="utf-8"), contracts, names), "utf-8")


def _with_constructors(source: str, contracts: Contracts, names: set[str]) -> str:
    lines = source.splitlines()
    tree = ast.parse(source)
    types: list[str] = []
    for node in reversed(tree.body):
        if isinstance(node, ast.ClassDef) and node.name in names:
            fields = sorted(contracts.fields(node.name), key=lambda f: f.default is not None)
            types += [f.type for f in fields]
            keywords = [f"{f.name}: {f.type}{f' = {f.default}' if f.default else ''}" for f in fields]
            constructor = f"def __init__(self, *, {', '.join(keywords)}) -> None: ..."
            lines[node.end_lineno : node.end_lineno] = ["", "    if TYPE_CHECKING:", f"        {constructor}"]
    text = "\n".join(lines).replace(_FUTURE, "\n".join([_FUTURE, *_IMPORTS, ""]), 1)
    first = text.index("\n\nclass ")
    given = _imports(contracts, types, present=_names(tree))
    return "\n".join([text[:first], "if TYPE_CHECKING:", *given, text[first:], ""])


def _imports(contracts: Contracts, types: list[str], present: set[str]) -> list[str]:
    found = [(module, [n for n in names if n not in present]) for module, names in contracts.imports(types)]
    return [f"    from {module} import {', '.join(names)}" for module, names in found if names]


def _names(tree: ast.Module) -> set[str]:
    """What a module defines or imports."""
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return classes | {alias.asname or alias.name for node in imports for alias in node.names}
