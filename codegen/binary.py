"""Finds the tensor and media fields of a contract, which are raw bytes to programs and base64 text in JSON.

A field `positions_b64` is called `positions` in Python and TypeScript; the table made here says for each
how its wire name reads, what it holds, and whether it is one value, a list or a mapping of them.
"""

from __future__ import annotations

from typing import Any

from codegen.bundle import JSON, SchemaError, is_object

SUFFIX = "_b64"
#: dtype of a tensor → the type of `sheaf_client._tensor` that stands for it.
TENSOR_TYPES = {
    "float32": "Float32",
    "float64": "Float64",
    "uint8": "UInt8",
    "int32": "Int32",
    "int64": "Int64",
}
#: kind of media → the type of `sheaf_client._media` that stands for it.
MEDIA_TYPES = {"image": "ImageFile", "audio": "AudioFile"}


def binary_node(node: JSON) -> JSON | None:
    """The node itself where it is a tensor or media, None where it is anything else."""
    return node if "x-sheaf-tensor" in node or "x-sheaf-media" in node else None


def binary_fields(body: JSON) -> dict[str, JSON]:
    """Field name → `{wire, container, tensor | media}` for each binary field of an object schema."""
    table: dict[str, JSON] = {}
    for wire, node in body.get("properties", {}).items():
        for container, inner in (
            ("none", node),
            ("list", _plain(node).get("items", {})),
            ("dict", _plain(node).get("additionalProperties", {})),
            ("list_dict", _plain(node).get("items", {}).get("additionalProperties", {})),
        ):
            found = binary_node(inner) if is_object(inner) else None
            if found is not None:
                table[wire.removesuffix(SUFFIX)] = _entry(wire, container, found, body)
    return table


def python_type(node: JSON) -> str:
    """Path of the Python type of a tensor or media node."""
    if "x-sheaf-tensor" in node:
        return f"sheaf_client._tensor.{TENSOR_TYPES[node['x-sheaf-tensor']['dtype']]}"
    return f"sheaf_client._media.{MEDIA_TYPES[node['x-sheaf-media']]}"


def may_miss(place: str, tensor: JSON) -> bool:
    """Whether NaN stands for missing values of a tensor; other tensors hold finite numbers alone."""
    missing: bool = tensor.get("missing", False)
    if missing and not tensor["dtype"].startswith("float"):
        raise SchemaError(f"{place}: numbers of {tensor['dtype']} cannot be missing")
    return missing


def _plain(node: JSON) -> JSON:
    """The first branch of a nullable `anyOf`, or the node itself."""
    branches = [branch for branch in node.get("anyOf", []) if branch.get("type") != "null"]
    return branches[0] if len(branches) == 1 else node


def _entry(wire: str, container: str, node: JSON, body: JSON) -> JSON:
    entry: JSON = {"wire": wire, "container": container}
    if "x-sheaf-media" in node:
        kind = node["x-sheaf-media"]
        if kind not in MEDIA_TYPES:
            raise SchemaError(f"{wire}: unknown media {kind!r}")
        return {**entry, "media": kind}
    tensor: dict[str, Any] = node["x-sheaf-tensor"]
    if tensor["dtype"] not in TENSOR_TYPES:
        raise SchemaError(f"{wire}: unknown dtype {tensor['dtype']!r}; known: {', '.join(TENSOR_TYPES)}")
    for size in tensor["shape"]:
        name = str(size).removeprefix("len(").removesuffix(")")
        if not isinstance(size, int) and name not in body["properties"]:
            raise SchemaError(f"{wire}: the shape names {size!r}, which is no field beside it")
    if unknown := tensor.keys() - {"dtype", "shape", "missing"}:
        raise SchemaError(f"{wire}: a tensor cannot say {sorted(unknown)}")
    missing = {"missing": True} if may_miss(wire, tensor) else {}
    return {**entry, "tensor": {"dtype": tensor["dtype"], "shape": list(tensor["shape"]), **missing}}
