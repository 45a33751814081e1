"""Reads schema/ into one set of named schemas, so that every renderer sees the same resolved source.

Schemas keep their authoring keywords (`x-sheaf-extends`, `x-sheaf-rules`, …) here; `documents` and
`contracts` each derive the view that their readers need.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import yaml

JSON = dict[str, Any]
#: Keywords whose values are data, never schemas: references inside them are left alone.
DATA_KEYWORDS = frozenset(
    {
        *("default", "examples", "const", "enum"),
        *("x-sheaf-results", "x-sheaf-rules", "x-sheaf-task"),
    }
)

#: The event that tells a step of any stream; those of operations extend it.
PLAIN_PROGRESS = "ProgressEvent"


def is_object(node: object) -> TypeGuard[JSON]:
    """Whether a node of a document is an object."""
    return isinstance(node, dict)


def is_array(node: object) -> TypeGuard[list[Any]]:
    """Whether a node of a document is an array."""
    return isinstance(node, list)


class SchemaError(Exception):
    """The schema breaks a rule of authoring; the message names the file and the place."""


@dataclass(frozen=True)
class Operation:
    """One operation of a model type: `time_series.forecast`; `result` is what a person calls its answer.

    The first of a type is its primary one. The contracts of the others have a constant member `operation`, by
    which they are told apart where the URL does not name the operation.
    `progress` names the event that tells a step of its stream; None where it has no stream.
    """

    name: str
    summary: str
    description: str
    request: str
    response: str
    progress: str | None
    result: str
    primary: bool

    @property
    def constants(self) -> JSON:
        """What its requests and answers say of the operation."""
        return {} if self.primary else {"operation": self.name}

    @property
    def contracts(self) -> tuple[str, ...]:
        """Names of the request, the response and, of a stream, the progress event."""
        return (self.request, self.response, *([self.progress] if self.progress else []))


@dataclass(frozen=True)
class Task:
    """One model type: its resource, the module its contracts live in, and its operations."""

    model_type: str
    resource: str
    module: str
    summary: str
    operations: tuple[Operation, ...]
    #: Whether its examples stand for all model types on the routes that every model has.
    showcase: bool = False
    #: Module of `sheaf_client._extensions` whose classes the resource derives from.
    extends: str | None = None


@dataclass
class Schema:
    """A named schema, the module it belongs to and its resolved body (`$ref` holds a bare name)."""

    name: str
    module: str
    body: JSON


@dataclass
class Bundle:
    """Everything schema/ says, resolved."""

    frame: JSON
    tasks: list[Task] = field(default_factory=list[Task])
    schemas: dict[str, Schema] = field(default_factory=dict[str, Schema])
    problems: dict[str, JSON] = field(default_factory=dict[str, JSON])
    faults: dict[str, str] = field(default_factory=dict[str, str])
    retries: dict[str, JSON] = field(default_factory=dict[str, JSON])

    @property
    def showcased(self) -> list[Task]:
        """The tasks whose examples the shared routes show: those that ask for it, or all."""
        return [task for task in self.tasks if task.showcase] or self.tasks

    def reachable(self, *names: str) -> list[str]:
        """Names of all schemas that the given ones refer to, themselves included, in first-met order."""
        seen: list[str] = []

        def visit(node: Any) -> None:
            if is_object(node):
                for key in ("$ref", "x-sheaf-extends"):
                    if isinstance(node.get(key), str):
                        follow(node[key])
                for key, value in node.items():
                    if key not in DATA_KEYWORDS:
                        visit(value)
            elif is_array(node):
                for value in node:
                    visit(value)

        def follow(name: str) -> None:
            if name not in seen:
                seen.append(name)
                visit(self.schemas[name].body)

        for name in names:
            follow(name)
        return seen


class _Reader:
    """Follows references between files and gives every target its title as its one name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[Path, JSON] = {}
        self.bundle = Bundle(frame=self.read(root / "openapi.yaml"))
        self._names: dict[tuple[Path, str], str] = {}

    def read(self, path: Path) -> JSON:
        if path not in self.files:
            if not path.is_file():
                raise SchemaError(f"{path}: no such file")
            self.files[path] = yaml.safe_load(path.read_text(encoding="utf-8"))
        return self.files[path]

    def module_of(self, path: Path) -> str:
        return self.read(path).get("x-sheaf-task", {}).get("module", path.stem)

    def resolve(self, base: Path, ref: str) -> str:
        """Return the name of the schema that `ref`, standing in file `base`, points to."""
        target, _, pointer = ref.partition("#")
        path = (base.parent / target).resolve() if target else base
        if (path, pointer) in self._names:
            return self._names[path, pointer]
        node: Any = self.read(path)
        for part in filter(None, pointer.split("/")):
            if part not in node:
                raise SchemaError(f"{base.name}: reference {ref} leads nowhere at {part!r}")
            node = node[part]
        name = node.get("title") or pointer.rsplit("/", 1)[-1]
        if name in self.bundle.schemas:
            raise SchemaError(f"{path.name}: two schemas are called {name!r}")
        self._names[path, pointer] = name
        self.bundle.schemas[name] = schema = Schema(name, self.module_of(path), {})
        schema.body = self.walk(path, node)
        return name

    def walk(self, base: Path, node: Any) -> Any:
        if is_array(node):
            return [self.walk(base, item) for item in node]
        if not is_object(node):
            return copy.deepcopy(node)
        out: JSON = {}
        for key, value in node.items():
            if key in ("$ref", "x-sheaf-extends") and not str(value).startswith("#/components/"):
                out[key] = self.resolve(base, value)
            elif key in DATA_KEYWORDS:
                out[key] = copy.deepcopy(value)
            else:
                out[key] = self.walk(base, value)
        return out


def read_bundle(root: Path) -> Bundle:
    """Read the schema folder `root`; raise `SchemaError` where it is inconsistent."""
    root = root.resolve()
    reader = _Reader(root)
    bundle = reader.bundle
    for path in sorted((root / "common").glob("*.yaml")):
        _define_all(reader, path)
    problem = reader.read(root / "common" / "problem.yaml")
    bundle.problems, bundle.faults = problem["x-sheaf-problems"], problem["x-sheaf-faults"]
    bundle.retries = reader.read(root / "common" / "retries.yaml")["x-sheaf-retries"]
    for path in sorted((root / "tasks").glob("*.yaml")):
        _define_all(reader, path)
        bundle.tasks.append(_read_task(reader, path))
    bundle.frame = reader.walk(root / "openapi.yaml", bundle.frame)
    _complete_model_types(bundle)
    return bundle


def _complete_model_types(bundle: Bundle) -> None:
    """The enum of model types is the tasks there are, then those reserved."""
    body = bundle.schemas["ModelType"].body
    body["enum"] = [*(task.model_type for task in bundle.tasks), *body["enum"]]
    body["x-enum-varnames"] = [value.upper() for value in body["enum"]]


def _define_all(reader: _Reader, path: Path) -> None:
    for name in reader.read(path).get("$defs", {}):
        reader.resolve(path, f"#/$defs/{name}")


def _read_task(reader: _Reader, path: Path) -> Task:
    block = reader.read(path).get("x-sheaf-task")
    if block is None:
        raise SchemaError(f"{path.name}: a task file needs an x-sheaf-task block")
    operations = tuple(
        Operation(
            name=name,
            summary=op["summary"],
            description=op.get("description", op["summary"]),
            request=reader.resolve(path, op["request"]),
            response=reader.resolve(path, op["response"]),
            progress=_read_progress(reader, path, op),
            result=op.get("result", "response"),
            primary=place == 0,
        )
        for place, (name, op) in enumerate(block["operations"].items())
    )
    for op in operations:
        constants = {"model_type": block["model_type"], "operation": None, **op.constants}
        _check_constants(reader.bundle, path, constants, op.request, op.response)
    return Task(
        model_type=block["model_type"],
        resource=block["resource"],
        module=reader.module_of(path),
        summary=block["summary"],
        operations=operations,
        showcase=block.get("showcase", False),
        extends=block.get("extends"),
    )


def _read_progress(reader: _Reader, path: Path, operation: JSON) -> str | None:
    """The event that an operation's `stream` asks for: none for false, the plain one for true, or a name."""
    stream: bool | str = operation.get("stream", False)
    if isinstance(stream, bool):
        return PLAIN_PROGRESS if stream else None
    name = reader.resolve(path, stream)
    if PLAIN_PROGRESS not in reader.bundle.reachable(name):
        raise SchemaError(
            f"{path.name}: a stream's steps are told by a {PLAIN_PROGRESS}; {name} extends none"
        )
    if needed := reader.bundle.schemas[name].body.get("required"):
        raise SchemaError(
            f"{path.name}: a plain {PLAIN_PROGRESS} must be a {name} too, which requires {needed}"
        )
    return name


def _check_constants(bundle: Bundle, path: Path, constants: JSON, *names: str) -> None:
    for name in names:
        properties = bundle.schemas[name].body.get("properties", {})
        for member, value in constants.items():
            if value is None:
                if member in properties:
                    raise SchemaError(f"{path.name}: {name}.{member} is for operations after the first")
            elif [properties.get(member, {}).get(key) for key in ("const", "default")] != [value, value]:
                raise SchemaError(f"{path.name}: {name}.{member} must be the constant {value!r}")
