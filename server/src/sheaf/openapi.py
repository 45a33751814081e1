"""The OpenAPI document of concrete deployments: their paths with names filled in, their schemas alone.

It is cut out of the schema's document, so no model is loaded and neither Ray nor torch is imported:

    python -m sheaf.openapi --specs my_app.models:specs --output openapi.yaml
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, TypeGuard, cast, runtime_checkable

import yaml

from sheaf.backends.operations import served_by
from sheaf.spec import ModelSpec, SpecLike, as_specs

JSON: TypeAlias = dict[str, Any]
Version: TypeAlias = Literal["3.1", "3.2"]
Format: TypeAlias = Literal["json", "yaml"]

_DOCUMENTS: Mapping[str, str] = {"3.1": "openapi.json", "3.2": "openapi-3.2.json"}
_MODEL = "/{model_name}"
_SCHEMA = "#/components/schemas/"
_JSON_TYPE = "application/json"
#: The part of a code sample that names the model: a keyword, a member, or the start of a path.
_NAMED = re.compile(r'(\bmodel(?:_name)?"?(?:=|: )"|\}/)[A-Za-z0-9][A-Za-z0-9._-]*(?=["/])')


class SpecsError(ValueError):
    """`module:attr` leads to no specs; the message says at which part."""


@runtime_checkable
class HasSpecs(Protocol):
    """A host that can say what it serves: `ModelServer`, `EmbeddedServer`."""

    @property
    def specs(self) -> Sequence[ModelSpec]: ...


def generate(
    specs: Iterable[SpecLike] | SpecLike, *, version: Version = "3.1", servers: Sequence[str] = ()
) -> JSON:
    """The document of these deployments.

    Every model has its typed operations, `/predict`, `/stream` where its type streams, `/batch`, `/health`
    and `/ready`, with the contracts of its own type in the place of the unions over all types. A model's
    operations carry its name as their tag, and `{name}.{operationId}` as their identifier.

    Args:
        specs: Specs, or names of backends whose defaults will do.
        version: Of the OpenAPI specification; 3.2 says by `itemSchema` what one event of a stream is.
        servers: Base URLs; without any, paths are relative to where the document is.

    Raises:
        ValueError: No model is given, two have one name, or a model's type has no operation in the schema.
    """
    deployed = as_specs(specs)
    if not deployed:
        raise ValueError("give at least one model")
    if version not in _DOCUMENTS:
        raise ValueError(f"OpenAPI {version!r} is not written; there are: {', '.join(_DOCUMENTS)}")
    text = files("sheaf").joinpath("http", "document", _DOCUMENTS[version]).read_text(encoding="utf-8")
    whole: JSON = json.loads(text)
    schemas: JSON = whole["components"]["schemas"]
    tags: list[JSON] = []
    paths: JSON = {path: item for path, item in whole["paths"].items() if not path.startswith(_MODEL)}
    for spec in deployed:
        contract = _Contract(whole, spec)
        schemas.update(contract.schemas())
        tags.append({"name": spec.name, "description": contract.summary})
        for path, item in contract.paths():
            paths[path.replace(_MODEL, f"/{spec.name}", 1)] = _concrete(item, contract, spec)
    used = {tag for item in paths.values() for operation in item.values() for tag in operation["tags"]}
    document: JSON = {
        **{key: whole[key] for key in ("openapi", "jsonSchemaDialect", "info")},
        **({"servers": [{"url": url} for url in servers]} if servers else {}),
        "security": whole["security"],
        "tags": [*tags, *(tag for tag in whole["tags"] if tag["name"] in used)],
        "paths": paths,
    }
    document["components"] = _reachable(document, whole["components"])
    # Parts that several paths share become their own, which YAML would else write as aliases.
    return cast("JSON", json.loads(json.dumps(document)))


class _Contract:
    """What the operations that one model serves put in the place of the unions over all types."""

    def __init__(self, whole: JSON, spec: ModelSpec) -> None:
        self._whole = whole
        names = served_by(spec.backend_class, spec.model_type)
        served = (f"{_MODEL}/{spec.model_type}/{name}" for name in names)
        self._typed: JSON = {path: whole["paths"][path] for path in served}
        operations: list[JSON] = [item["post"] for item in self._typed.values()]
        first = operations[0]
        self.tag: str = first["tags"][0]
        self.streamed = [operation for operation in operations if operation["x-sheaf-stream"]]
        self.requests = [_name(op["requestBody"]["content"][_JSON_TYPE]["schema"]) for op in operations]
        self.responses = [_response(operation) for operation in operations]
        self.examples: JSON = first["requestBody"]["content"][_JSON_TYPE].get("examples", {})
        # Models of one type may serve different operations of it.
        stem = "".join(request.removesuffix("Request") for request in self.requests)
        several = len(operations) > 1
        self.names = {
            "AnyRequest": f"Any{stem}Request" if several else self.requests[0],
            "AnyResponse": f"Any{stem}Response" if several else self.responses[0],
            "AnyEvent": f"{stem}Event",
            "BatchRequest": f"{stem}BatchRequest",
            "BatchResponse": f"{stem}BatchResponse",
        }

    @property
    def summary(self) -> str:
        """What models of the type are for, in one sentence."""
        return str(next(tag["description"] for tag in self._whole["tags"] if tag["name"] == self.tag))

    def paths(self) -> Iterator[tuple[str, JSON]]:
        """The typed operations, then what every model answers."""
        yield from self._typed.items()
        for path, item in self._whole["paths"].items():
            shared = path.startswith(_MODEL) and path.count("/") == 2
            if shared and (self.streamed or not path.endswith("/stream")):
                yield path, item

    def schemas(self) -> JSON:
        """The event, batch request and batch response of this type."""
        known: JSON = self._whole["components"]["schemas"]
        made: JSON = {}
        if self.streamed:
            told = {_name(operation["x-sheaf-stream"]): None for operation in self.streamed}
            results = [f"{_response(op).removesuffix('Response')}ResultEvent" for op in self.streamed]
            events = [_ref(name) for name in (*told, *results, "ErrorEvent")]
            made[self.names["AnyEvent"]] = {
                **known["AnyEvent"],
                "title": self.names["AnyEvent"],
                "anyOf": events,
            }
        if len(self.requests) > 1:
            for shared, own in (("AnyRequest", self.requests), ("AnyResponse", self.responses)):
                text = f"{known[shared]['description'].split(' of ')[0]} of this model: see `operation`."
                made[self.names[shared]] = {"description": text, "anyOf": [_ref(name) for name in own]}
        for shared in ("BatchRequest", "BatchResponse"):
            made[self.names[shared]] = {**self.narrow(known[shared]), "title": self.names[shared]}
        return made

    def narrow(self, node: Any) -> Any:
        """The node with this type's contracts in the place of the unions."""
        if _is_array(node):
            return [self.narrow(item) for item in node]
        if not _is_object(node):
            return node
        if str(node.get("$ref", "")).startswith(_SCHEMA):
            name = _name(node)
            return {**node, **_ref(self.names.get(name, name))}
        return {key: self.narrow(value) for key, value in node.items()}


def _concrete(item: JSON, contract: _Contract, spec: ModelSpec) -> JSON:
    """The operations of one path for one model."""
    return {
        method: _operation(operation, contract, spec)
        for method, operation in item.items()
        if method != "parameters"
    }


def _operation(operation: JSON, contract: _Contract, spec: ModelSpec) -> JSON:
    out: JSON = contract.narrow(operation)
    out["operationId"] = f"{spec.name}.{operation['operationId']}"
    out["tags"] = [spec.name]
    for media in out.get("requestBody", {}).get("content", {}).values():
        if "examples" in media:
            media["examples"] = _examples(contract, spec, batch=operation["operationId"] == "batch")
    for media in out["responses"]["200"]["content"].values():
        if "example" in media:
            del media["example"]  # an event of some other type
    samples = [
        {"lang": sample["lang"], "label": sample["label"], "source": _sample(sample["source"], spec.name)}
        for sample in out.pop("x-codeSamples", [])
        # The shared operations show the samples of some types alone.
        if sample.get("example", contract.tag) == contract.tag
    ]
    return {**out, **({"x-codeSamples": samples} if samples else {})}


def _examples(contract: _Contract, spec: ModelSpec, *, batch: bool) -> JSON:
    """The worked requests of the contract, sent to this model."""
    found: JSON = {}
    for key, example in contract.examples.items():
        value: JSON = {**example["value"], "model_name": spec.name}
        found[key] = {**example, "value": {"requests": [value]} if batch else value}
    return found


def _sample(source: str, name: str) -> str:
    """A code sample with this model's name in the place of the one it was written for."""
    return _NAMED.sub(rf"\g<1>{name}", source)


def _reachable(document: JSON, components: JSON) -> JSON:
    """The components that the document refers to, in their order."""
    found: set[tuple[str, str]] = set()

    def visit(node: Any) -> None:
        if _is_array(node):
            for value in node:
                visit(value)
        elif _is_object(node):
            ref = node.get("$ref")
            if isinstance(ref, str) and ref.startswith("#/components/"):
                _, _, kind, name = ref.split("/", 3)
                if (kind, name) not in found:
                    found.add((kind, name))
                    visit(components[kind][name])
            for value in node.values():
                visit(value)

    visit(document["paths"])
    found |= {("securitySchemes", name) for entry in document["security"] for name in entry}
    kept = {
        kind: {name: body for name, body in sorted(entries.items()) if (kind, name) in found}
        for kind, entries in components.items()
    }
    return {kind: entries for kind, entries in kept.items() if entries}


def _ref(name: str) -> JSON:
    return {"$ref": f"{_SCHEMA}{name}"}


def _response(operation: JSON) -> str:
    return _name(operation["responses"]["200"]["content"][_JSON_TYPE]["schema"])


def _name(node: JSON) -> str:
    return str(node["$ref"]).removeprefix(_SCHEMA)


def _is_object(node: object) -> TypeGuard[JSON]:
    return isinstance(node, dict)


def _is_array(node: object) -> TypeGuard[list[Any]]:
    return isinstance(node, list)


def find_specs(path: str) -> list[ModelSpec]:
    """The specs at `module:attr`: a list of specs, one spec, or a server; raises `SpecsError`."""
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise SpecsError(f"{path!r} is not of the form module:attr")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there; something that it imports is not
        raise SpecsError(f"no module is called {error.name!r}") from None
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise SpecsError(f"{path!r} leads nowhere: {module_name} has no {attribute!r}")
        found = getattr(found, part)
    given = found.specs if isinstance(found, HasSpecs) else found
    items = [given] if isinstance(given, ModelSpec | str) else given
    if not isinstance(items, Iterable):
        raise SpecsError(f"{path!r} is a {type(found).__name__}: expected specs or a server")
    listed = list(cast("Iterable[Any]", items))
    if odd := next((item for item in listed if not isinstance(item, ModelSpec | str)), None):
        raise SpecsError(f"{path!r} holds a {type(odd).__name__}: expected specs or a server")
    return as_specs(listed)


def write(document: JSON, output: Path | None, form: Format | None = None) -> None:
    """Write the document to a file, or to standard output; YAML where asked for or named so."""
    if form is None:
        form = "yaml" if output is not None and output.suffix in (".yaml", ".yml") else "json"
    if form == "yaml":
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)
    else:
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m sheaf.openapi`; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m sheaf.openapi", description="Write the OpenAPI document of deployments."
    )
    parser.add_argument(
        "--specs", required=True, metavar="module:attr", help="a list of specs, one spec, or a server"
    )
    parser.add_argument("--output", type=Path, metavar="file", help="instead of standard output")
    parser.add_argument("--format", choices=("json", "yaml"), help="JSON unless the output's name says YAML")
    parser.add_argument("--version", choices=tuple(_DOCUMENTS), default="3.1", help="of OpenAPI")
    parser.add_argument("--server", action="append", default=[], metavar="url", help="a base URL; repeatable")
    given = parser.parse_args(arguments)
    try:
        document = generate(find_specs(given.specs), version=given.version, servers=given.server)
        write(document, given.output, given.format)
    except (ValueError, OSError) as error:
        print(f"sheaf.openapi: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
