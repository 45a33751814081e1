"""Derives the published OpenAPI documents: 3.1 for everyone, 3.2 with `itemSchema` for event streams."""

from __future__ import annotations

import copy
import json
from typing import Any

from codegen.bundle import DATA_KEYWORDS, JSON, PLAIN_PROGRESS, Bundle, Operation, Task, is_array, is_object
from codegen.rules import lower_rules

#: Authoring keywords that must not reach a published document.
_PRIVATE = ("x-sheaf-type", "x-sheaf-default", "x-sheaf-input", "x-sheaf-results")


def component(name: str) -> JSON:
    return {"$ref": f"#/components/schemas/{name}"}


def with_component_refs(node: Any) -> Any:
    """Turn the bundle's bare names into component references, leaving data alone."""
    if is_array(node):
        return [with_component_refs(item) for item in node]
    if not is_object(node):
        return node
    return {
        key: (
            value
            if key in DATA_KEYWORDS
            else f"#/components/schemas/{value}"
            if key == "$ref" and not value.startswith("#")
            else with_component_refs(value)
        )
        for key, value in node.items()
    }


def flatten(bundle: Bundle, body: JSON) -> JSON:
    """Merge the base a schema extends into it, so that `additionalProperties: false` covers both."""
    body = copy.deepcopy(body)
    base_name = body.pop("x-sheaf-extends", None)
    if base_name is None:
        return body
    base = flatten(bundle, bundle.schemas[base_name].body)
    body["properties"] = {**base["properties"], **body.get("properties", {})}
    required = [*base.get("required", []), *body.get("required", [])]
    body["required"] = [
        name
        for name in dict.fromkeys(required)
        if "default" not in body["properties"][name] or _is_tag(body, name)
    ]
    body["required"] += [n for n in body["properties"] if _is_tag(body, n) and n not in body["required"]]
    return body


def _is_tag(body: JSON, name: str) -> bool:
    """A discriminator stays required in the document although clients fill it in."""
    return name in ("model_type", "operation") and "const" in body["properties"][name]


def _clean(node: Any) -> Any:
    if is_array(node):
        return [_clean(item) for item in node]
    if not is_object(node):
        return node
    return {k: (v if k in DATA_KEYWORDS else _clean(v)) for k, v in node.items() if k not in _PRIVATE}


def path_of(task: Task, op: Operation) -> str:
    return f"/{{model_name}}/{task.model_type}/{op.name}"


def result_event(op: Operation) -> str:
    return op.response.removesuffix("Response") + "ResultEvent"


def build_document(bundle: Bundle, *, lowered: bool = True) -> JSON:
    """The public 3.1 document; with `lowered=False` the generators' view, without lowered rules."""
    doc: JSON = with_component_refs(copy.deepcopy(bundle.frame))
    schemas: JSON = {}
    for schema in bundle.schemas.values():
        body = flatten(bundle, schema.body)
        body = lower_rules(body) if lowered else {k: v for k, v in body.items() if k != "x-sheaf-rules"}
        schemas[schema.name] = with_component_refs(_clean(body))
    schemas.update(_unions(bundle, schemas))
    doc["components"]["schemas"] = dict(sorted(schemas.items()))
    doc["tags"] = [_tag(task) for task in bundle.tasks] + doc["tags"]
    typed: JSON = {}
    for task in bundle.tasks:
        for op in task.operations:
            typed[path_of(task, op)] = {"parameters": [_model_name_parameter()], "post": _operation(task, op)}
    doc["paths"] = {**typed, **doc["paths"]}
    for path, item in doc["paths"].items():
        _give_examples(bundle, path, item)
        _give_events(bundle, item)
        if lowered:
            _offer_msgpack(item)
    return doc


def _offer_msgpack(item: JSON) -> None:
    """Every body that goes as JSON goes as MessagePack too: the same members, base64 text as raw bytes."""
    post = item.get("post", {})
    for holder in (post.get("requestBody", {}), post.get("responses", {}).get("200", {})):
        content = holder.get("content", {})
        if "application/json" in content:
            content["application/msgpack"] = {"schema": content["application/json"]["schema"]}


def _tag(task: Task) -> JSON:
    title = task.resource.replace("_", " ").capitalize()
    return {"name": task.resource, "x-displayName": title, "description": f"{task.summary}."}


def _model_name_parameter() -> JSON:
    return {"$ref": "#/components/parameters/ModelName"}


def _operation(task: Task, op: Operation) -> JSON:
    return {
        "operationId": f"{task.resource}_{op.name}",
        "tags": [task.resource],
        "summary": op.summary,
        "description": op.description,
        "parameters": [
            {"$ref": "#/components/parameters/RequestId"},
            {"$ref": "#/components/parameters/Timeout"},
            {"$ref": "#/components/parameters/Priority"},
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": component(op.request)}}},
        "responses": {
            "200": {
                "description": "The model's answer.",
                "content": {"application/json": {"schema": component(op.response)}},
            },
            "default": {"$ref": "#/components/responses/Problem"},
        },
        # What tells its steps, or false.
        "x-sheaf-stream": component(op.progress) if op.progress else False,
    }


def _unions(bundle: Bundle, schemas: JSON) -> JSON:
    """The unions over all model types, and the result event of each operation."""
    operations = [(task, op) for task in bundle.tasks for op in task.operations]
    out: JSON = {}

    def tagged(pick: str) -> JSON:
        names: dict[str, str] = {}
        for task in bundle.tasks:
            own = [getattr(op, pick) for op in task.operations]
            names[task.model_type] = own[0] if len(own) == 1 else f"Any{own[0]}"
            if len(own) > 1:
                out[f"Any{own[0]}"] = {
                    "description": f"A {pick} of any operation on {task.resource}: see `operation`.",
                    # Not `oneOf`: answers may have members that are not told of.
                    "anyOf": [component(name) for name in own],
                }
        return {
            "oneOf": [component(name) for name in names.values()],
            "discriminator": {
                "propertyName": "model_type",
                "mapping": {t: f"#/components/schemas/{n}" for t, n in names.items()},
            },
        }

    out["AnyRequest"] = {"description": "A request of any model type.", **tagged("request")}
    out["AnyResponse"] = {"description": "A response of any model type.", **tagged("response")}
    for _, op in operations:
        response = schemas[op.response]
        out[result_event(op)] = {
            **{k: v for k, v in response.items() if k not in ("title", "examples")},
            "title": result_event(op),
            "description": "The last event of a stream that succeeded: the response with `type` and `done`.",
            "required": ["type", "done", *response["required"]],
            "properties": {
                "type": {"type": "string", "const": "result", "description": "Kind of the event."},
                "done": {
                    "type": "boolean",
                    "const": True,
                    "description": "A result is always the last event.",
                },
                **response["properties"],
            },
        }
    streams = [(op.progress, result_event(op)) for _, op in operations if op.progress]
    told = dict.fromkeys([PLAIN_PROGRESS, *(progress for progress, _ in streams)])
    events = [*told, *(result for _, result in streams), "ErrorEvent"]
    # Not `oneOf`: whatever extends the plain progress event is one too.
    out["AnyEvent"] = {"description": "One event of a stream.", "anyOf": [component(name) for name in events]}
    out["BatchRequest"] = {
        "title": "BatchRequest",
        "description": "Many requests for one model.",
        "type": "object",
        "additionalProperties": False,
        "required": ["requests"],
        "properties": {
            "requests": {
                "type": "array",
                "minItems": 1,
                "maxItems": 1024,
                "items": component("AnyRequest"),
                "description": "The requests, each as for `predict`.",
            }
        },
    }
    out["BatchResponse"] = {
        "title": "BatchResponse",
        "description": "The answers to a batch.",
        "type": "object",
        "required": ["responses"],
        "properties": {
            "responses": {
                "type": "array",
                "items": {"anyOf": [component("AnyResponse"), component("Problem")]},
                "description": "A response or a problem for each request, in the order of the requests.",
            }
        },
    }
    return out


def _give_examples(bundle: Bundle, path: str, item: JSON) -> None:
    """Put the tasks' worked examples where documentation pages look for them."""
    post = item.get("post")
    if post is None:
        return
    operations = [(task, op) for task in bundle.tasks for op in task.operations]
    typed = {path_of(task, op) for task, op in operations}
    examples: JSON = {}
    for task, op in operations:
        worked = bundle.schemas[op.request].body.get("examples", [])
        requests = [{"model_type": task.model_type, **op.constants, **request} for request in worked]
        # A typed operation shows its own request, the shared ones show the first of each showcased type.
        shared = task in bundle.showcased and task.resource not in examples
        wanted = path == path_of(task, op) if path in typed else shared
        if requests and wanted:
            value = {"requests": requests} if path.endswith("/batch") else requests[0]
            examples[task.resource] = {"summary": op.summary, "value": value}
    post["requestBody"]["content"]["application/json"]["examples"] = examples


def _give_events(bundle: Bundle, item: JSON) -> None:
    """Show the end of an event stream, made from the first worked answer of a streaming operation."""
    answered = item.get("post", {}).get("responses", {}).get("200", {})
    media = answered.get("content", {}).get("text/event-stream")
    operations = (op for task in bundle.showcased for op in task.operations if op.progress)
    answers = (answer for op in operations for answer in bundle.schemas[op.response].body.get("examples", []))
    if media is not None and (answer := next(answers, None)) is not None:
        data = json.dumps({"type": "result", "done": True, **answer}, ensure_ascii=False)
        media["example"] = f"id: 1\nevent: result\ndata: {data}\n\n"


def to_openapi_32(doc: JSON) -> JSON:
    """The 3.2 form: event streams say what one event is by `itemSchema`."""
    doc = copy.deepcopy(doc)
    doc["openapi"] = "3.2.0"
    doc["jsonSchemaDialect"] = "https://spec.openapis.org/oas/3.1/dialect/base"
    for item in doc["paths"].values():
        for operation in item.values():
            responses: JSON = operation.get("responses", {}) if is_object(operation) else {}
            for response in responses.values():
                media: JSON | None = response.get("content", {}).get("text/event-stream")
                if media and "schema" in media:
                    media["itemSchema"] = {
                        "type": "object",
                        "required": ["event", "data"],
                        "properties": {
                            "id": {"type": "string"},
                            "event": {"type": "string", "enum": ["progress", "result", "error"]},
                            "data": {
                                "type": "string",
                                "contentMediaType": "application/json",
                                "contentSchema": media.pop("schema"),
                            },
                        },
                    }
    return doc
