"""Collects what the resource templates need: operations from the document, fields from the contracts.

`openapi-python-client`'s parser supplies operations, paths, bodies and statuses; the types and defaults
of the fields are read from the generated contracts, so a signature can never differ from its contract.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from openapi_python_client.config import Config, ConfigFile, MetaType
from openapi_python_client.parser import GeneratorData
from openapi_python_client.parser.errors import GeneratorError
from openapi_python_client.parser.properties import ModelProperty

from codegen.binary import MEDIA_TYPES
from codegen.bundle import JSON, Bundle, SchemaError
from codegen.inputs import Inputs

#: Fields that the client fills in itself.
_CLIENT_FIELDS = {"model_type", "model_name", "request_id"}
_MEDIA_OVERRIDES = {"text/event-stream": "application/json", "application/problem+json": "application/json"}


@dataclass(frozen=True)
class Field:
    name: str
    type: str
    default: str | None
    doc: str


@dataclass(frozen=True)
class Endpoint:
    """One operation as the client sees it."""

    name: str
    path: str
    summary: str
    description: str
    request: str
    response: str
    stream: bool
    fields: tuple[Field, ...]

    @property
    def constant(self) -> str:
        return self.name.upper()


@dataclass(frozen=True)
class Resource:
    """One model type as the client sees it: `client.time_series`."""

    name: str
    model_type: str
    class_name: str
    summary: str
    endpoints: tuple[Endpoint, ...]
    imports: tuple[tuple[str, tuple[str, ...]], ...]


def collect_resources(bundle: Bundle, document: JSON, contracts: Path, view: Path) -> list[Resource]:
    """One resource per task. `document` is the generators' view, `contracts` the generated package."""
    overrides = ConfigFile(literal_enums=True, content_type_overrides=_MEDIA_OVERRIDES)
    config = Config.from_sources(overrides, MetaType.NONE, view, "utf-8", overwrite=False, output_path=None)
    data = GeneratorData.from_dict(_outline(document), config=config)
    if isinstance(data, GeneratorError):
        raise SchemaError(f"the document cannot be parsed: {data.header} {data.detail}")
    classes = _Contracts(bundle, contracts)
    resources: list[Resource] = []
    for task in bundle.tasks:
        collection = next(c for tag, c in data.endpoint_collections_by_tag.items() if tag == task.resource)
        if collection.parse_errors:
            raise SchemaError(f"{task.resource}: {collection.parse_errors}")
        endpoints: list[Endpoint] = []
        for parsed in collection.endpoints:
            operation = document["paths"][_raw(parsed.path)][parsed.method]
            body = next(b for b in parsed.bodies if _raw(b.content_type) == "application/json").prop
            if not isinstance(body, ModelProperty):
                raise SchemaError(f"{operation['operationId']}: the body must be an object")
            ok = next(r for r in parsed.responses if r.status_code.range == (200, 200))
            request = _raw(body.class_info.name)
            endpoints.append(
                Endpoint(
                    name=operation["operationId"].removeprefix(f"{task.resource}_"),
                    path=_raw(parsed.path),
                    summary=operation["summary"],
                    description=operation["description"],
                    request=request,
                    response=_raw(ok.prop.get_type_string()),
                    stream=operation["x-sheaf-stream"],
                    fields=classes.parameters(request),
                )
            )
        names = {n for e in endpoints for n in (e.request, e.response)}
        resources.append(
            Resource(
                name=task.resource,
                model_type=task.model_type,
                class_name="".join(part.title() for part in task.resource.split("_")),
                summary=task.summary,
                endpoints=tuple(endpoints),
                imports=classes.imports(endpoints, names),
            )
        )
    return resources


def _outline(document: JSON) -> JSON:
    """The document with empty schemas: fields come from the contracts, the parser is here for operations."""
    stubs: JSON = {
        name: {"title": name, "type": "object", "properties": {}}
        for name in document["components"]["schemas"]
    }
    stubs["ModelName"] = document["components"]["schemas"]["ModelName"]
    return {**document, "components": {**document["components"], "schemas": stubs}}


def _raw(value: object) -> str:
    """The text of the parser's guarded strings; everything in our own schema is trusted."""
    for reader in ("get_untrusted_value", "as_unembedded_code"):
        if hasattr(value, reader):
            return str(getattr(value, reader)())
    return str(value)


def _docstring(statement: ast.stmt | None) -> str:
    """The text of a field's docstring, which is the statement after the field."""
    match statement:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return " ".join(text.split())
        case _:
            return ""


class _Contracts:
    """Reads fields out of the generated contract modules, as source."""

    def __init__(self, bundle: Bundle, folder: Path) -> None:
        self.bundle = bundle
        self.inputs = Inputs(bundle)
        self.classes: dict[str, ast.ClassDef] = {}
        for path in folder.glob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            self.classes |= {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}

    def parameters(self, name: str) -> tuple[Field, ...]:
        """The fields a caller gives, required ones first."""
        fields = [f for f in self._fields(name) if f.name not in _CLIENT_FIELDS]
        return tuple(sorted(fields, key=lambda f: f.default is not None))

    def _fields(self, name: str) -> list[Field]:
        node = self.classes[name]
        found = [
            f
            for base in node.bases
            if isinstance(base, ast.Name) and base.id in self.classes
            for f in self._fields(base.id)
        ]
        for statement, after in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                name = statement.target.id
                kind = self.inputs.accepted(ast.unparse(statement.annotation))
                found = [f for f in found if f.name != name]
                found.append(Field(name, kind, self._default(statement.value), _docstring(after)))
        return found

    def imports(self, endpoints: list[Endpoint], names: set[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Module → names that the endpoints' signatures mention."""
        words = names | {w for e in endpoints for f in e.fields for w in re.findall(r"\b[A-Z]\w+\b", f.type)}
        found: dict[str, set[str]] = {}
        for word in words:
            found.setdefault(self._module(word), set()).add(word)
        found.pop("", None)
        return tuple((module, tuple(sorted(found[module]))) for module in sorted(found))

    def _module(self, word: str) -> str:
        if word == "ArrayLike":
            return "sheaf_client._inputs"
        if word in MEDIA_TYPES.values():
            return "sheaf_client._media"
        if word in self.bundle.schemas:
            schema = self.bundle.schemas[word]
            return f"sheaf_client.contracts.{schema.module if word in self.classes else '_types'}"
        if word.endswith("Like") and word.removesuffix("Like") in self.bundle.schemas:
            body = self.bundle.schemas[word.removesuffix("Like")].body
            if "x-sheaf-type" in body:
                return "sheaf_client._wire"
            return f"sheaf_client.params.{'_enums' if 'enum' in body else '_types'}"
        if word.endswith("Params"):
            return f"sheaf_client.params.{self.bundle.schemas[word.removesuffix('Params')].module}"
        return ""

    def _default(self, value: ast.expr | None) -> str | None:
        """The default as source, None where the field is required."""
        match value:
            case None:
                return None
            case ast.Call(func=ast.Name(id="Field"), keywords=keywords):
                given = {keyword.arg: keyword.value for keyword in keywords}
                if "default_factory" in given:
                    return "..."
                return ast.unparse(given["default"]) if "default" in given else None
            case ast.Attribute(value=ast.Name(id=enum), attr=member):
                return self._enum_value(enum, member)
            case _:
                return ast.unparse(value)

    def _enum_value(self, enum: str, member: str) -> str:
        for statement in self.classes[enum].body:
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == member:
                return ast.unparse(statement.value)
        raise SchemaError(f"{enum} has no member {member}")
