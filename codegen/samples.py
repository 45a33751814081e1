"""Writes the code samples of the operations (Python, TypeScript, curl) from the schema's worked examples.

Each is a whole script: it finds the server by `SHEAF_BASE_URL` and prints the first thing one would look at.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from codegen.binary import SUFFIX
from codegen.bundle import JSON, Bundle, Operation, SchemaError, Task
from codegen.literals import JSON_TEXT, PYTHON, TYPESCRIPT, literal
from codegen.rendering import template_environment
from codegen.resources import Resource

#: `lang` of the sample, its label and the template that writes it.
LANGUAGES = (
    ("python", "Python", "sample.py.jinja"),
    ("typescript", "TypeScript", "sample.ts.jinja"),
    ("shell", "curl", "sample.sh.jinja"),
)
#: Operations every model shares, by operationId: these show a typed operation in another way.
_SHARED = ("predict", "stream", "batch")


def add_samples(bundle: Bundle, document: JSON, resources: list[Resource]) -> None:
    """Put `x-codeSamples` on the operations of the document.

    Raises:
        SchemaError: An operation's request has no `examples`.
    """
    writer = _Writer()
    paths: JSON = document["paths"]
    calls = [_describe(bundle, task, op, resources) for task in bundle.tasks for op in task.operations]
    for call in calls:
        paths[call["path"]]["post"]["x-codeSamples"] = writer.write("call", call)
    for path, item in paths.items():
        operation = item.get("post") or item["get"]
        kind = operation["operationId"]
        if kind in _SHARED:
            # One set per model type; a page that knows `example` shows the set of the chosen one.
            first: dict[str, JSON] = {}
            shown = {task.resource for task in bundle.showcased}
            for call in calls:
                if call["task"] in shown and (call["streams"] or kind != "stream"):
                    first.setdefault(call["task"], call)
            operation["x-codeSamples"] = [
                {**sample, "example": task}
                for task, call in first.items()
                for sample in writer.write(kind, {**call, "path": path})
            ]
        elif kind == "models_list":
            operation["x-codeSamples"] = writer.write("models", {"path": path})
        elif "get" in item and calls:
            context = {"path": path, "model": calls[0]["model"]}
            operation["x-codeSamples"] = writer.write("get", context, only=("shell",))


def write_samples(bundle: Bundle, resources: list[Resource]) -> dict[tuple[str, str], JSON]:
    """The samples of each operation by model type and name: `call`, and `stream` where it has one."""
    writer = _Writer()
    found: dict[tuple[str, str], JSON] = {}
    for task in bundle.tasks:
        for op in task.operations:
            call = _describe(bundle, task, op, resources)
            found[task.model_type, op.name] = {"call": writer.write("call", call)}
            if op.progress:
                path = "/{model_name}/stream"
                found[task.model_type, op.name]["stream"] = writer.write("stream", {**call, "path": path})
    return found


def _describe(bundle: Bundle, task: Task, op: Operation, resources: list[Resource]) -> JSON:
    """What the templates say about one typed operation."""
    resource = next(r for r in resources if r.model_type == task.model_type)
    endpoint = next(e for e in resource.endpoints if e.name == op.name)
    examples: list[JSON] = bundle.schemas[op.request].body.get("examples", [])
    if not examples:
        raise SchemaError(f"{op.request}: code samples need at least one entry in `examples`")
    body = bundle.schemas[op.response].body
    # What a caller came for: the first field that is always there, else the first of its own.
    shown = [*body.get("required", []), *(name for name in body["properties"] if name != "model_type")]
    return {
        "path": endpoint.path,
        "task": task.resource,
        "resource": resource.name,
        "module": task.module,
        "request": op.request,
        "name": op.name,
        "result": op.result,
        "shown": shown[0],
        "streams": op.progress is not None,
        "stream_name": "stream" if endpoint is resource.endpoints[0] else f"{op.name}_stream",
        "model": examples[0]["model_name"],
        "examples": examples,
        "bodies": [{"model_type": task.model_type, **op.constants, **example} for example in examples],
    }


class _Writer:
    """The three templates, with the filters that write values in their languages."""

    def __init__(self) -> None:
        self.environment = template_environment()
        filters: dict[str, Callable[..., object]] = {
            "camel": _camel,
            "renamed": _renamed,
            "keywords": _keywords,
            "plain": _plain,
            "plain_names": _plain_names,
            "python": partial(literal, style=PYTHON),
            "typescript": partial(literal, style=TYPESCRIPT),
            "json": partial(literal, style=JSON_TEXT),
        }
        self.environment.filters.update(filters)

    def write(self, kind: str, context: JSON, *, only: tuple[str, ...] = ()) -> list[JSON]:
        """One `x-codeSamples` entry for each language."""
        return [
            {
                "lang": lang,
                "label": label,
                "source": self.environment.get_template(template).render(context, kind=kind).strip(),
            }
            for lang, label, template in LANGUAGES
            if not only or lang in only
        ]


def _plain(name: str) -> str:
    """What a field is called in Python, where binary fields have no suffix."""
    return name.removesuffix(SUFFIX)


def _plain_names(example: JSON) -> JSON:
    return {_plain(name): value for name, value in example.items()}


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)


def _renamed(example: JSON) -> JSON:
    """The keywords of a call: `model` stands for the wire's `model_name`."""
    return {"model" if name == "model_name" else name: value for name, value in example.items()}


def _keywords(given: JSON, depth: int) -> str:
    """Python keyword arguments, one a line."""
    margin = " " * PYTHON.indent * depth
    return "\n".join(f"{margin}{name}={literal(value, PYTHON, depth)}," for name, value in given.items())
