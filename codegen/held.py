"""The form in which TypeScript programs hold contracts: typed arrays and files under plain names.

On the wire a tensor is base64 text at `positions_b64`; a program holds a `Float32Array` at `positions`. The
view made here has the held form, and a tree of places leads from one form to the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from codegen.binary import MEDIA_TYPES, SUFFIX, TENSOR_TYPES, binary_node, may_miss
from codegen.bundle import JSON, Bundle, SchemaError, is_array, is_object
from codegen.documents import flatten

Path = tuple[str, ...]


def walk_schema(
    bundle: Bundle, node: JSON, path: Path = (), inside: tuple[str, ...] = ()
) -> Iterator[tuple[Path, JSON]]:
    """Every schema below `node` with its path: `chains`, then `*` for the items or members of `chains`."""
    if "$ref" in node:
        name: str = node["$ref"]
        if name in inside:
            raise SchemaError(f"{name} holds itself at {'.'.join(path)}; a contract has a fixed depth")
        inside = (*inside, name)
        node = flatten(bundle, bundle.schemas[name].body)
    yield path, node
    for branch in node.get("anyOf", []):
        yield from walk_schema(bundle, branch, path, inside)
    for name, field in node.get("properties", {}).items():
        yield from walk_schema(bundle, field, (*path, name), inside)
    for key in ("items", "additionalProperties"):
        if is_object(node.get(key)):
            yield from walk_schema(bundle, node[key], (*path, "*"), inside)


def binary_places(bundle: Bundle, contract: str) -> JSON:
    """The tensors and media of a contract as a tree of wire names, `*` for items and members; often empty."""
    tree: JSON = {}
    bare: set[Path] = set()
    for path, node in walk_schema(bundle, {"$ref": contract}):
        if path and path[-1].endswith(SUFFIX):
            bare.add(path)
        if binary_node(node) is not None:
            here = tree
            for part in path[:-1]:
                here = here.setdefault(part, {})
            here[path[-1]] = _leaf(node, ".".join((contract, *path)))
            bare -= {path[:length] for length in range(len(path) + 1)}
    if bare:
        named = ", ".join(sorted(".".join(path) for path in bare))
        raise SchemaError(f"{contract}: {named} holds neither tensors nor media, which the suffix promises")
    return tree


def _leaf(node: JSON, place: str) -> JSON:
    if "x-sheaf-media" in node:
        if node["x-sheaf-media"] not in MEDIA_TYPES:
            raise SchemaError(f"{place}: unknown media {node['x-sheaf-media']!r}")
        return {"$media": node["x-sheaf-media"]}
    tensor: JSON = node["x-sheaf-tensor"]
    if tensor["dtype"] not in TENSOR_TYPES:
        raise SchemaError(f"{place}: unknown dtype {tensor['dtype']!r}")
    leaf: JSON = {"$tensor": tensor["dtype"], "$shape": with_held_names(tensor["shape"])}
    return {**leaf, "$missing": True} if may_miss(place, tensor) else leaf


def with_held_names(value: Any) -> Any:
    """A rule's member or a tensor's shape with the plain names of the fields it mentions."""
    if is_array(value):
        return [with_held_names(item) for item in value]
    return re.sub(rf"{SUFFIX}\b", "", value) if isinstance(value, str) else value


def hold(name: str, body: JSON, *, taken: bool) -> None:
    """Turn a contract's body in the view into the held form; `taken` for what requests hold."""
    if "properties" in body:
        held = {field.removesuffix(SUFFIX): node for field, node in body["properties"].items()}
        if len(held) < len(body["properties"]):
            raise SchemaError(f"{name}: a field has the plain name of a binary field")
        body["properties"] = held
        body["required"] = [field.removesuffix(SUFFIX) for field in body.get("required", [])]
    _hold_nodes(body, taken=taken)


def _hold_nodes(node: object, *, taken: bool) -> None:
    if is_array(node):
        for item in node:
            _hold_nodes(item, taken=taken)
    elif is_object(node) and binary_node(node) is None:
        for inner in node.values():
            _hold_nodes(inner, taken=taken)
    elif is_object(node):
        tensor: JSON | None = node.pop("x-sheaf-tensor", None)
        # Programs may give files in more forms than they get them in.
        given = "given-" if taken else ""
        node["format"] = f"tensor-{tensor['dtype']}" if tensor else f"{given}{node.pop('x-sheaf-media')}-file"
        node.pop("contentEncoding", None)
