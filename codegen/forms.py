"""The forms a value may take by a schema, so that two schemas can be compared form by form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

from codegen.bundle import JSON, is_array

#: A bound and which side of it counts: a tuple compares as what it allows does.
Bound: TypeAlias = tuple[float, int]

_LOWER = {"minimum": 0, "minLength": 0, "minItems": 0, "minProperties": 0, "exclusiveMinimum": 1}
_UPPER = {"maximum": 0, "maxLength": 0, "maxItems": 0, "maxProperties": 0, "exclusiveMaximum": -1}


@dataclass(frozen=True)
class Form:
    """One form of a value: a single type (or `any`), what the schema says of it, and the schema's name."""

    kind: str
    body: JSON
    name: str | None = None


def alternatives(node: JSON, schemas: JSON, name: str | None = None) -> list[Form]:
    """Every form the schema allows; references are followed, unions and lists of types are taken apart."""
    if "$ref" in node:
        target: JSON = schemas[node["$ref"]]
        if is_open_union(target):
            return [Form("object", target, node["$ref"])]
        return alternatives(target, schemas, node["$ref"])
    for key in ("anyOf", "oneOf"):
        if key in node:
            return [form for branch in node[key] for form in alternatives(branch, schemas, name)]
    kinds: Any = node.get("type", "any")
    return [Form(kind, {**node, "type": kind}, name) for kind in (kinds if is_array(kinds) else [kinds])]


def is_open_union(node: JSON) -> bool:
    """Whether it is a union of named schemas alone, which are told apart by what they say of themselves."""
    return "discriminator" in node or (
        bool(node.get("anyOf")) and all("$ref" in branch for branch in node["anyOf"])
    )


def lower_bound(body: JSON) -> Bound:
    """The least value, length or number of members; -inf where there is none."""
    return max(((body[key], side) for key, side in _LOWER.items() if key in body), default=(-math.inf, 0))


def upper_bound(body: JSON) -> Bound:
    """The greatest value, length or number of members; inf where there is none."""
    return min(((body[key], side) for key, side in _UPPER.items() if key in body), default=(math.inf, 0))


def shown(bound: Bound) -> str:
    """A bound for people; a value that is itself excluded says so."""
    value, side = bound
    return "none" if math.isinf(value) else f"{value:g} excluded" if side else f"{value:g}"


def permitted(body: JSON) -> list[Any] | None:
    """The values allowed, None where any is."""
    if "const" in body:
        return [body["const"]]
    values: list[Any] | None = body.get("enum")
    return values
