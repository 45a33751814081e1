"""Says what callers may give for a field: sequences and arrays for lists, text for enums and for times.

The contract's own `list[float | None]` would not do: to a type checker even a `list[float]` is no such list.
"""

from __future__ import annotations

import ast

from codegen.aliases import WIRE_TYPES, is_alias, python_type
from codegen.binary import MEDIA_TYPES, TENSOR_TYPES
from codegen.bundle import Bundle, Schema
from codegen.contracts import nested_parameters

#: Members that stand last in a union, however deep they come from.
_LAST = {"ArrayLike": 1, "None": 2}


def render_inputs(bundle: Bundle, header: str) -> str:
    """The module with the input form, `SeriesLike`, of every alias that has one."""
    inputs = Inputs(bundle)
    lines: list[str] = []
    for schema in (s for s in bundle.schemas.values() if is_alias(s) and "x-sheaf-type" not in s.body):
        if inputs.has_own_form(schema):
            expression = inputs.accepted(python_type(bundle, schema.name, schema.body))
            description = schema.body.get("description", schema.name)
            lines += [f"{schema.name}Like: TypeAlias = {expression}", f'"""{description}"""', ""]
    imports = [
        "from collections.abc import Mapping, Sequence",
        "from typing import TypeAlias",
        "",
        "from sheaf_client._inputs import ArrayLike",
    ]
    purpose = '"""What callers may give for the named values of the contracts."""'
    return "\n".join([header, "", purpose, "", *imports, "", *lines])


class Inputs:
    """Widens the types of the contracts to what people hold; without `arrays`, to what Pydantic accepts."""

    def __init__(self, bundle: Bundle, *, arrays: bool = True) -> None:
        self.bundle = bundle
        self.arrays = arrays
        self.nested = set(nested_parameters(bundle))

    def has_own_form(self, schema: Schema) -> bool:
        """Whether the schema has a `Like` type beside its own."""
        if "enum" in schema.body or schema.body.get("x-sheaf-type") in WIRE_TYPES:
            return True
        if not is_alias(schema):
            return False
        kinds = {"list", "dict"}
        tree = ast.parse(python_type(self.bundle, schema.name, schema.body))
        return any(isinstance(node, ast.Name) and node.id in kinds for node in ast.walk(tree))

    def accepted(self, annotation: str) -> str:
        """The type a caller may give where the contract has `annotation`."""
        return self._union(ast.parse(annotation, mode="eval").body)

    def _union(self, node: ast.expr) -> str:
        members = dict.fromkeys(self._members(node))
        return " | ".join(sorted(members, key=lambda member: _LAST.get(member, 0)))

    def _members(self, node: ast.expr) -> list[str]:
        match node:
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return [*self._members(left), *self._members(right)]
            case ast.Name(id=name):
                return self._named(name)
            case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[inner, *_])):
                return self._members(inner)
            case ast.Subscript(value=ast.Name(id="list"), slice=item):
                arrays = ["ArrayLike"] if self.arrays and not self._holds_objects(item) else []
                return [f"Sequence[{self._union(item)}]", *self._whole(item), *arrays]
            case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[key, item])):
                return [f"Mapping[{ast.unparse(key)}, {self._union(item)}]"]
            case _:
                return [ast.unparse(node)]

    def _named(self, name: str) -> list[str]:
        if name in TENSOR_TYPES.values():
            return ["ArrayLike", "bytes", "str"]
        if name in MEDIA_TYPES.values():
            return [f"{name}Like"] if self.arrays else [name, "bytes", "str"]
        schema = self.bundle.schemas.get(name)
        if schema is None:
            return [name]
        if "enum" in schema.body:
            return [name, f"{name}Like"]
        if name in self.nested:
            whole = [schema.body["x-sheaf-input"]] if self.arrays and "x-sheaf-input" in schema.body else []
            return [name, f"{name}Params", *whole]
        if not self.has_own_form(schema):
            return [name]
        if self.arrays or "x-sheaf-type" in schema.body:
            return [f"{name}Like"]
        return self._members(ast.parse(python_type(self.bundle, name, schema.body), mode="eval").body)

    def _whole(self, item: ast.expr) -> list[str]:
        """What stands for a whole list of such items, as a FASTA file does for sequences."""
        if not self.arrays or not isinstance(item, ast.Name) or item.id in self.nested:
            return []
        schema = self.bundle.schemas.get(item.id)
        return [schema.body["x-sheaf-input"]] if schema and "x-sheaf-input" in schema.body else []

    def _holds_objects(self, item: ast.expr) -> bool:
        return any(isinstance(node, ast.Name) and node.id in self.nested for node in ast.walk(item))
