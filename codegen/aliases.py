"""Renders named schemas that are neither objects nor enums as type aliases with their constraints.

`QuantileLevel` becomes `Annotated[float, Field(gt=0, lt=1)]`: a plain float to its users, where a class
of its own would have to be unwrapped.
"""

from __future__ import annotations

from codegen.bundle import JSON, Bundle, Schema, SchemaError, is_array

#: `x-sheaf-type` → the type of `sheaf_client._wire` that stands for it.
WIRE_TYPES = {"timestamp": "Timestamp", "iso_time": "IsoTime"}
#: Those that keep what else the schema says, with the check of `sheaf_client._wire` that is put around it.
_CHECKS = {"iso_time": "existing_time"}

_SCALARS = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
_CONSTRAINTS = {
    "minimum": "ge", "maximum": "le", "exclusiveMinimum": "gt", "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
    "minLength": "min_length", "maxLength": "max_length",
    "minItems": "min_length", "maxItems": "max_length",
    "minProperties": "min_length", "maxProperties": "max_length",
    "pattern": "pattern",
}  # fmt: skip
_KNOWN = {
    *_CONSTRAINTS,
    *("title", "description", "type", "items", "additionalProperties", "anyOf", "$ref", "format"),
    "x-sheaf-input",
}


def is_alias(schema: Schema) -> bool:
    """Whether the schema is a value with a name rather than a class."""
    return "properties" not in schema.body and "enum" not in schema.body


def render_aliases(bundle: Bundle, header: str) -> str:
    """The module that holds every alias."""
    wire: set[str] = set()
    lines: list[str] = []
    for schema in (s for s in bundle.schemas.values() if is_alias(s)):
        custom = schema.body.get("x-sheaf-type")
        if custom is not None:
            if schema.name != WIRE_TYPES.get(custom):
                raise SchemaError(f"{schema.name}: a schema of x-sheaf-type {custom!r} has a name of its own")
            wire.add(_CHECKS.get(custom, WIRE_TYPES[custom]))
            if custom not in _CHECKS:
                continue
            body = {key: value for key, value in schema.body.items() if key != "x-sheaf-type"}
            expression = f"Annotated[{python_type(bundle, schema.name, body)}, {_CHECKS[custom]}]"
        else:
            expression = python_type(bundle, schema.name, schema.body)
        lines += [
            f"{schema.name}: TypeAlias = {expression}",
            f'"""{schema.body.get("description", schema.name)}"""',
            "",
        ]
    imports = (
        # Under its own name once more: an import that is meant to be imported from here.
        [f"from sheaf_client._wire import {', '.join(f'{name} as {name}' for name in sorted(wire))}"]
        if wire
        else []
    )
    return "\n".join(
        [
            header,
            "",
            "from typing import Annotated, TypeAlias",
            "",
            "from pydantic import Field",
            "",
            *imports,
            "",
            *lines,
        ]
    )


def python_type(bundle: Bundle, owner: str, node: JSON) -> str:
    """The Python type expression of a schema, constraints included."""
    if unknown := {k for k in node if k not in _KNOWN}:
        raise SchemaError(f"{owner}: a type alias cannot say {sorted(unknown)}")
    if "$ref" in node:
        return str(node["$ref"])
    if "anyOf" in node:
        return " | ".join(python_type(bundle, owner, branch) for branch in node["anyOf"])
    kinds: list[str] = node["type"] if is_array(node["type"]) else [node["type"]]
    names: list[str] = []
    for kind in kinds:
        if kind == "array":
            names.append(f"list[{python_type(bundle, owner, node['items'])}]")
        elif kind == "object":
            names.append(f"dict[str, {python_type(bundle, owner, node['additionalProperties'])}]")
        else:
            names.append(_SCALARS[kind])
    expression = " | ".join(names)
    constraints = [f"{name}={node[key]!r}" for key, name in _CONSTRAINTS.items() if key in node]
    return f"Annotated[{expression}, Field({', '.join(constraints)})]" if constraints else expression
