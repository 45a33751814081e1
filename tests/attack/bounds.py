"""Requests that ask for as much as the schema lets each field of each contract ask for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from sheaf.contract.operations import all_operations
from tests.attack.process import MIB, Attack, as_text, squeezed
from tests.contract.echo import name_of
from tests.contract.values import JSON, resolved, schemas

_CASES = Path(__file__).parents[2] / "schema" / "cases"
#: Most that a compressed body may become.
_LARGEST = 31 * MIB
_DAY = "2024-06-01"


def attacks(size: int) -> Iterator[Attack]:
    """For each field of each operation, and each kind of value it takes, bodies of up to `size` bytes."""
    for operation in all_operations():
        schema = schemas()[operation.request.__name__]
        model = name_of(operation)
        path = f"/{model}/{operation.model_type}/{operation.name}"
        case = json.loads((_CASES / model / "valid" / "minimal.json").read_text(encoding="utf-8"))
        body = {k: v for k, v in _request(case).items() if k != "model_name"}
        for field, member in schema["properties"].items():
            for kind in _kinds(member):
                for value in _bounds(kind, size):
                    text = _object({**{k: as_text(v) for k, v in body.items()}, field: value})
                    if len(text) < MIB:
                        yield Attack(path, text.encode())
                    elif len(text) < _LARGEST:
                        yield squeezed(text, path)


def _request(case: JSON) -> JSON:
    return case.get("request", case.get("body", case))


def _object(members: dict[str, str]) -> str:
    return "{" + ",".join(f"{json.dumps(key)}:{value}" for key, value in members.items()) + "}"


def _kinds(schema: JSON) -> Iterator[JSON]:
    """The schemas that a member may follow, without the choices between them."""
    if "$ref" in schema:
        yield from _kinds(schemas()[schema["$ref"].rpartition("/")[2]])
    elif "anyOf" in schema:
        for branch in schema["anyOf"]:
            yield from _kinds(branch)
    elif isinstance(schema.get("type"), list):
        for kind in schema["type"]:
            yield {**schema, "type": kind}
    elif schema.get("type") != "null":
        yield schema


def _bounds(schema: JSON, size: int) -> Iterator[str]:
    """JSON texts of the least value, and of values with as much in them as the schema and `size` allow."""
    yield _least(schema)
    kind = schema.get("type")
    if kind in ("integer", "number"):
        for bound in ("minimum", "maximum"):
            if bound in schema:
                yield str(schema[bound])
    elif kind == "string":
        longest = min(schema.get("maxLength", size), size)
        yield '"' + "A" * (longest // 4 * 4 or longest) + '"'
        yield '"' + "\\u00e9\\ud834\\udd1e" * (longest // 18) + '"'
    elif kind == "array":
        most = schema.get("maxItems", size)
        for item in _kinds(schema["items"]):
            texts = (
                (_least(item), *_bounds(item, min(size, 64 * 1024))) if "items" in item else (_least(item),)
            )
            for text in texts:
                yield "[" + ",".join([text] * min(most, size // (len(text) + 1))) + "]"
    elif kind == "object" and "properties" not in schema and schema["additionalProperties"] is not True:
        values: JSON = schema["additionalProperties"]
        text = _least(values)
        count = min(schema.get("maxProperties", size), size // (len(text) + 10))
        yield _object({f"k{i}": text for i in range(count)})
        for item in _kinds(values):
            for large in _bounds(item, size - 16):
                yield _object({"k": large})


def _least(schema: JSON) -> str:
    """JSON text of a small value."""
    schema = resolved(schema)
    given: Any = schema.get("type")
    kind = cast("list[str]", given)[0] if isinstance(given, list) else str(given)
    if "enum" in schema or "const" in schema:
        return json.dumps(schema.get("const", schema.get("enum", [None])[0]))
    if kind in ("integer", "number"):
        return str(max(schema.get("minimum", 0), 0))
    if kind == "string":
        if re.search(schema.get("pattern", "$."), _DAY):
            return f'"{_DAY}"'
        return '"' + "A" * schema.get("minLength", 0) + '"'
    if kind == "array":
        return "[" + ",".join([_least(schema["items"])] * schema.get("minItems", 0)) + "]"
    if kind == "object":
        required = schema.get("required", ())
        return _object({k: _least(v) for k, v in schema.get("properties", {}).items() if k in required})
    return "false" if kind == "boolean" else "null"
