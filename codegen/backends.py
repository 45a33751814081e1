"""Finds which backends ship for each model type by reading their source: nothing is imported for the pages.

A backend's name stands in its `@register_backend`, its type in `model_type` of the class or of one that it
extends; both are text, so neither the server nor a model's library need be installed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from codegen.bundle import SchemaError

_DECORATOR, _TYPE = "register_backend", "model_type"


@dataclass(frozen=True)
class ShippedBackend:
    """One backend: the name that specs give, its model type, and the stem of its module."""

    name: str
    model_type: str
    module: str


def shipped_backends(folder: Path) -> list[ShippedBackend]:
    """The backends of a package, in order of names; raises `SchemaError` for one whose type is not found."""
    found = [(path, node) for path in sorted(folder.rglob("*.py")) for node in _classes(path)]
    by_name = {node.name: node for _, node in found}
    return sorted(
        (
            ShippedBackend(name, _type_of(node, by_name, path), path.stem)
            for path, node in found
            for name in _registered(node)
        ),
        key=lambda backend: backend.name,
    )


def _classes(path: Path) -> Iterator[ast.ClassDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return (node for node in tree.body if isinstance(node, ast.ClassDef))


def _registered(node: ast.ClassDef) -> Iterator[str]:
    for call in node.decorator_list:
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == _DECORATOR:
            # Further names are for who knows the backend by another one.
            yield from (str(arg.value) for arg in call.args[:1] if isinstance(arg, ast.Constant))


def _type_of(node: ast.ClassDef, classes: dict[str, ast.ClassDef], path: Path) -> str:
    for kind in _lineage(node, classes):
        for line in kind.body:
            targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
            value = getattr(line, "value", None)
            named = any(isinstance(target, ast.Name) and target.id == _TYPE for target in targets)
            if named and isinstance(value, ast.Constant):
                return str(value.value)
    raise SchemaError(f"{path}: {node.name} does not say its {_TYPE}")


def _lineage(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> Iterator[ast.ClassDef]:
    """The class and those it extends, in the order of their bases."""
    yield node
    for base in node.bases:
        named = base.value if isinstance(base, ast.Subscript) else base
        if isinstance(named, ast.Name) and named.id in classes:
            yield from _lineage(classes[named.id], classes)
