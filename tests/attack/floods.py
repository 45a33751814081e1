"""Bodies with one mistake many thousand times over, for every field of every contract that holds many values.

They are made from the published document, so that a new contract is attacked as soon as it is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from tests.contract.echo import name_of
from tests.contract.values import JSON, schemas

CASES = Path(__file__).parents[2] / "schema/cases"
#: Items of which a field takes some and refuses others, as JSON.
ITEMS = ('"x"', "{}", "null", "1.5", "[]")


def floods(operation: Any, size: int) -> Iterator[tuple[str, bytes]]:
    """Each body of about `size` wrong values for an operation, and what it is."""
    base = _a_valid_body(name_of(operation))
    whole = json.dumps(base)[1:]
    yield "unknown members", f"{_named(['1'] * size)[:-1]},{whole}".encode()
    seen: set[str] = set()
    for field, schema in schemas()[operation.request.__name__]["properties"].items():
        form = json.dumps({**schema, "description": ""})
        if form in seen or not _holds_many(schema):
            continue
        seen.add(form)
        head = json.dumps({name: value for name, value in base.items() if name != field})[:-1]
        for name, value in _values(size):
            yield f"{field} of {name}", f'{head}, "{field}": {value}}}'.encode()


@cache
def _values(size: int) -> list[tuple[str, str]]:
    return list(_made(size))


def _made(size: int) -> Iterator[tuple[str, str]]:
    """Values of many parts, in each shape that a contract knows."""
    for item in ITEMS:
        yield f"many {item}", _listed([item] * size)
    for item in ITEMS[:2]:
        row = _listed([item] * 100)
        yield f"many [{item}]", _listed([f"[{item}]"] * size)
        yield f"many rows of {item}", _listed([row] * (size // 100))
        yield f"members {item}", _named([item] * size)
        yield f"members of many {item}", _named([row] * (size // 100))
    yield "an object of unknown members", _listed([_named(["1"] * size)])
    yield "objects of unknown members", _listed([_named(["1"] * 100)] * (size // 100))


def _listed(items: list[str]) -> str:
    return f"[{','.join(items)}]"


def _named(items: list[str]) -> str:
    members = (f'"m{i}":{item}' for i, item in enumerate(items))
    return f"{{{','.join(members)}}}"


def _a_valid_body(name: str) -> JSON:
    return json.loads(min((CASES / name / "valid").glob("*.json")).read_text(encoding="utf-8"))["request"]


def _holds_many(schema: JSON) -> bool:
    """Whether a field takes a list or an object in some form."""
    if "$ref" in schema:
        return _holds_many(schemas()[schema["$ref"].rpartition("/")[2]])
    kinds = schema.get("type", ())
    own = {kinds} if isinstance(kinds, str) else {*kinds}
    return bool(own & {"array", "object"}) or any(map(_holds_many, schema.get("anyOf", ())))
