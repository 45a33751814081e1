"""Cuts the OpenAPI document of deployments out of the schema's: their paths, and the schemas of those alone.

Nothing of a model is loaded for it, so a server and the command that writes it have one function.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any, Literal, NamedTuple, TypeAlias, TypeGuard, cast

JSON: TypeAlias = dict[str, Any]
Version: TypeAlias = Literal["3.1", "3.2"]

#: Files of the schema's document in each version of OpenAPI.
DOCUMENTS: Mapping[Version, str] = {"3.1": "openapi.json", "3.2": "openapi-3.2.json"}
_MODEL = "/{model_name}"
_SCHEMA = "#/components/schemas/"
_JSON_TYPE, _EVENTS_TYPE = "application/json", "text/event-stream"
#: The part of a code sample that names the model: a keyword, a member, or the start of a path.
_NAMED = re.compile(r'(\bmodel(?:_name)?"?(?:=|: )"|\}/)[A-Za-z0-9][A-Za-z0-9._-]*(?=["/])')


class Deployment(NamedTuple):
    """What a document says of one model: its name, its type, and which of the type's operations it serves."""

    name: str
    model_type: str
    operations: tuple[str, ...]


def document_of(
    deployments: Sequence[Deployment], *, version: Version = "3.1", servers: Sequence[str] = ()
) -> JSON:
    """The document of these deployments; without any, of what a server answers besides.

    Raises `ValueError` where the schema has none of a model's operations.
    """
    text = files("sheaf").joinpath("http", "document", DOCUMENTS[version]).read_text(encoding="utf-8")
    whole: JSON = json.loads(text)
    schemas: JSON = whole["components"]["schemas"]
    info: JSON = whole["info"]
    tags: list[JSON] = []
    paths: JSON = {path: item for path, item in whole["paths"].items() if not path.startswith(_MODEL)}
    for model in deployments:
        contract = _Contract(whole, model)
        schemas.update(contract.schemas())
        tags.append({"name": model.name, "description": contract.summary})
        for path, item in contract.paths():
            paths[path.replace(_MODEL, f"/{model.name}", 1)] = _concrete(item, contract)
    used = {tag for item in paths.values() for operation in item.values() for tag in operation["tags"]}
    document: JSON = {
        **{key: whole[key] for key in ("openapi", "jsonSchemaDialect")},
        "info": {**info, "description": f"{_listed(tags)}\n\n{info['description']}"},
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

    def __init__(self, whole: JSON, model: Deployment) -> None:
        self._whole, self.model = whole, model
        served = (f"{_MODEL}/{model.model_type}/{name}" for name in model.operations)
        self._typed: JSON = {path: whole["paths"][path] for path in served if path in whole["paths"]}
        if not self._typed:
            raise ValueError(f"the schema has no operation for model type {model.model_type!r}")
        operations: list[JSON] = [item["post"] for item in self._typed.values()]
        first = operations[0]
        self.tag: str = first["tags"][0]
        self.streamed = [operation for operation in operations if operation["x-sheaf-stream"]]
        self.requests = [_name(op["requestBody"]["content"][_JSON_TYPE]["schema"]) for op in operations]
        self.responses = [_response(operation) for operation in operations]
        self._worked: JSON = {
            (key if len(operations) == 1 else operation["operationId"]): example
            for operation in operations
            for key, example in _worked(operation).items()
        }
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
        """The event and the batches of this type, and its contracts, whose examples name the model."""
        known: JSON = self._whole["components"]["schemas"]
        made: JSON = {
            contract: {**known[contract], "examples": self.examples_of(contract)}
            for contract in (*self.requests, *self.responses)
            if "examples" in known[contract]
        }
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

    def examples_of(self, contract: str) -> list[JSON]:
        """The examples of a schema, as requests and answers of the model."""
        examples: list[JSON] = self._whole["components"]["schemas"].get(contract, {}).get("examples", [])
        return [{**example, "model_name": self.model.name} for example in examples]

    def worked_for(self, operation: JSON) -> JSON:
        """The worked requests of an operation, sent to the model; shared routes have those of each."""
        examples = _worked(operation)
        if "x-sheaf-stream" not in operation:
            batch = operation["operationId"] == "batch"
            shown = {key: examples[key] for key in self._worked if key in examples}
            examples = shown or {
                key: {**example, "value": {"requests": [example["value"]]} if batch else example["value"]}
                for key, example in self._worked.items()
            }
        return {
            key: {**example, "value": _sent_to(self.model.name, example["value"])}
            for key, example in examples.items()
        }

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


def _listed(tags: Sequence[JSON]) -> str:
    """The deployed models, as the document's introduction names them."""
    if not tags:
        return "No model is deployed here."
    return "Deployed models:\n\n" + "\n".join(f"- `{tag['name']}`: {tag['description']}" for tag in tags)


def _concrete(item: JSON, contract: _Contract) -> JSON:
    """The operations of one path for one model."""
    return {
        method: _operation(operation, contract)
        for method, operation in item.items()
        if method != "parameters"
    }


def _operation(operation: JSON, contract: _Contract) -> JSON:
    out: JSON = contract.narrow(operation)
    name = contract.model.name
    out["operationId"] = f"{name}.{operation['operationId']}"
    out["tags"] = [name]
    for media in out.get("requestBody", {}).get("content", {}).values():
        if "examples" in media:
            media["examples"] = contract.worked_for(operation)
    for kind, media in out["responses"]["200"]["content"].items():
        media.pop("example", None)  # an event of some other type
        if kind == _JSON_TYPE and (answers := contract.examples_of(_name(media["schema"]))):
            media["example"] = answers[0]
        elif kind == _EVENTS_TYPE and (answers := contract.examples_of(_response(contract.streamed[0]))):
            media["example"] = _result_event(answers[0])
    samples = [
        {"lang": sample["lang"], "label": sample["label"], "source": _sample(sample["source"], name)}
        for sample in out.pop("x-codeSamples", [])
        # The shared operations show the samples of some types alone.
        if sample.get("example", contract.tag) == contract.tag
    ]
    return {**out, **({"x-codeSamples": samples} if samples else {})}


def _result_event(answer: JSON) -> str:
    """The end of a stream, as it goes over the wire."""
    data = json.dumps({"type": "result", "done": True, **answer}, ensure_ascii=False)
    return f"id: 1\nevent: result\ndata: {data}\n\n"


def _worked(operation: JSON) -> JSON:
    """The worked requests of an operation by their keys."""
    examples: JSON = operation["requestBody"]["content"][_JSON_TYPE].get("examples", {})
    return examples


def _sent_to(name: str, body: JSON) -> JSON:
    """A request, or a batch of them, to the model of that name."""
    if "requests" in body:
        return {"requests": [_sent_to(name, request) for request in body["requests"]]}
    return {**body, "model_name": name}


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
