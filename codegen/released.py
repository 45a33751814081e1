"""The contract of a release in one file: all that callers can see of the schema, and no prose.

`schema/released/<version>.json` keeps one for each release; `codegen.breaking` compares the newest of
them with the schema as it is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from codegen.bundle import DATA_KEYWORDS, JSON, Bundle, SchemaError, is_array, is_object, read_bundle
from codegen.documents import build_document
from codegen.rules import check_rules

#: Keywords that are prose, or say again what stands elsewhere.
_PROSE = frozenset({"title", "description", "summary", "examples", "example", "x-sheaf-rules"})


def read_contract(schema: Path) -> JSON:
    """The contract that the schema folder gives now."""
    bundle = read_bundle(schema)
    check_rules(bundle)
    document = build_document(bundle)
    # Without the lowered rules, which are kept as they are written.
    schemas: JSON = build_document(bundle, lowered=False)["components"]["schemas"]
    return {
        "version": document["info"]["version"],
        "operations": {
            f"{method.upper()} {path}": _operation(document, item, operation)
            for path, item in document["paths"].items()
            for method, operation in item.items()
            if method != "parameters"
        },
        "schemas": {name: _with_rules(bundle, name, _bare(body)) for name, body in schemas.items()},
        "problems": {
            code: {key: entry[key] for key in ("status", "class", "base") if key in entry}
            for code, entry in bundle.problems.items()
        },
        "faults": sorted(bundle.faults),
    }


def _operation(document: JSON, item: JSON, operation: JSON) -> JSON:
    given = [*item.get("parameters", []), *operation.get("parameters", [])]
    parameters = [_resolved(document, parameter) for parameter in given]
    answers = {status: _resolved(document, answer) for status, answer in operation["responses"].items()}
    return {
        "id": operation["operationId"],
        "streams": _bare(operation.get("x-sheaf-stream", False)),
        "parameters": {
            f"{p['in']} {p['name']}": {"required": p.get("required", False), "schema": _bare(p["schema"])}
            for p in parameters
        },
        "accepts": _content(operation.get("requestBody", {})),
        "answers": {status: _content(answer) for status, answer in answers.items()},
    }


def _content(holder: JSON) -> JSON:
    return {media: _bare(entry["schema"]) for media, entry in holder.get("content", {}).items()}


def _resolved(document: JSON, node: JSON) -> JSON:
    if "$ref" not in node:
        return node
    _, _, kind, name = str(node["$ref"]).split("/")
    found: JSON = document["components"][kind][name]
    return found


def _bare(node: Any) -> Any:
    """The node without prose; references by their bare names."""
    if is_array(node):
        return [_bare(item) for item in node]
    if not is_object(node):
        return node
    out: JSON = {}
    for key, value in node.items():
        if key == "properties":
            out[key] = {name: _bare(body) for name, body in value.items()}  # a field may be called `title`
        elif key == "$ref":
            out[key] = str(value).rsplit("/", 1)[-1]
        elif key == "mapping":
            out[key] = {tag: str(ref).rsplit("/", 1)[-1] for tag, ref in value.items()}
        elif key not in _PROSE:
            out[key] = value if key in DATA_KEYWORDS else _bare(value)
    return out


def _with_rules(bundle: Bundle, name: str, body: JSON) -> JSON:
    source = bundle.schemas.get(name)
    rules = source.body.get("x-sheaf-rules") if source else None
    return {**body, "x-sheaf-rules": rules} if rules else body


def version_key(version: str) -> tuple[int, ...]:
    """A version as numbers, so that 0.10.0 comes after 0.9.0."""
    try:
        return tuple(int(part) for part in version.split("."))
    except ValueError:
        raise SchemaError(f"{version!r} is no version of the form 1.2.3") from None


def last_release(folder: Path) -> JSON | None:
    """The contract of the newest release, None where there is none."""
    files = sorted(folder.glob("*.json"), key=lambda file: version_key(file.stem))
    return json.loads(files[-1].read_text(encoding="utf-8")) if files else None


def write_release(contract: JSON, folder: Path, *, replace: bool = False) -> Path:
    """Keep the contract under its version; raises `SchemaError` where that version is kept already."""
    path = folder / f"{contract['version']}.json"
    if path.exists() and not replace:
        raise SchemaError(
            f"{path.name} is released already: raise the version in schema/openapi.yaml, or say --replace"
        )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(_lines(contract), encoding="utf-8")
    return path


def _lines(contract: JSON) -> str:
    """JSON with one operation, schema or problem a line: small, and its changes can be read."""
    sections: list[str] = []
    for key, value in contract.items():
        if is_object(value):
            entries = [f"{json.dumps(name)}:{_compact(body)}" for name, body in value.items()]
            sections.append(f"{json.dumps(key)}:{{\n" + ",\n".join(entries) + "\n}")
        else:
            sections.append(f"{json.dumps(key)}:{_compact(value)}")
    return "{" + ",\n".join(sections) + "}\n"


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True)
