"""Collects what the resource templates need: operations from the document, fields from the contracts.

`openapi-python-client`'s parser supplies operations, paths, bodies and statuses; the types and defaults
of the fields are read from the generated contracts, so a signature can never differ from its contract.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from openapi_python_client.config import Config, ConfigFile, MetaType
from openapi_python_client.parser import GeneratorData
from openapi_python_client.parser.errors import GeneratorError
from openapi_python_client.parser.properties import ModelProperty

from codegen.bundle import JSON, PLAIN_PROGRESS, Bundle, SchemaError
from codegen.fields import Contracts, Field
from codegen.inputs import Inputs
from codegen.whole import Whole

#: Fields that the client fills in itself.
_CLIENT_FIELDS = {"model_type", "model_name", "request_id", "operation"}
_MEDIA_OVERRIDES = {"text/event-stream": "application/json", "application/problem+json": "application/json"}


@dataclass(frozen=True)
class Endpoint:
    """One operation as the client sees it."""

    name: str
    primary: bool
    path: str
    summary: str
    description: str
    request: str
    response: str
    stream: bool
    progress: str
    fields: tuple[Field, ...]
    whole: Whole

    @property
    def constant(self) -> str:
        return self.name.upper()

    @property
    def takes_adapters(self) -> bool:
        """Whether requests say which LoRA adapters to apply, and how strongly."""
        return {field.name for field in self.fields} >= {"adapters", "adapter_weights"}

    @property
    def beside(self) -> tuple[Field, ...]:
        """The fields that are given beside a whole object."""
        return tuple(field for field in self.fields if field.name not in self.whole.names)


@dataclass(frozen=True)
class Resource:
    """One model type as the client sees it: `client.time_series`."""

    name: str
    model_type: str
    class_name: str
    summary: str
    endpoints: tuple[Endpoint, ...]
    #: Module → names that its operations and its signatures mention.
    contracts: tuple[tuple[str, tuple[str, ...]], ...]
    imports: tuple[tuple[str, tuple[str, ...]], ...]
    extends: str | None

    @property
    def extension(self) -> str | None:
        """Class of the module that the resource extends, without its `Async` form's prefix."""
        return self.extends and _title(self.extends)


def collect_resources(bundle: Bundle, document: JSON, contracts: Path, view: Path) -> list[Resource]:
    """One resource per task. `document` is the generators' view, `contracts` the generated package."""
    overrides = ConfigFile(literal_enums=True, content_type_overrides=_MEDIA_OVERRIDES)
    config = Config.from_sources(overrides, MetaType.NONE, view, "utf-8", overwrite=False, output_path=None)
    data = GeneratorData.from_dict(_outline(document), config=config)
    if isinstance(data, GeneratorError):
        raise SchemaError(f"the document cannot be parsed: {data.header} {data.detail}")
    classes = Contracts(bundle, contracts, Inputs(bundle))
    resources: list[Resource] = []
    for task in bundle.tasks:
        collection = next(c for tag, c in data.endpoint_collections_by_tag.items() if tag == task.resource)
        if collection.parse_errors:
            raise SchemaError(f"{task.resource}: {collection.parse_errors}")
        names = [op.name for op in task.operations]
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
                    name=(name := operation["operationId"].removeprefix(f"{task.resource}_")),
                    primary=name == names[0],
                    path=_raw(parsed.path),
                    summary=operation["summary"],
                    description=operation["description"],
                    request=request,
                    response=_raw(ok.prop.get_type_string()),
                    stream=bool(told := operation["x-sheaf-stream"]),
                    progress=told["$ref"].rpartition("/")[2] if told else PLAIN_PROGRESS,
                    fields=(fields := _parameters(classes, request)),
                    whole=Whole(fields),
                )
            )
        endpoints.sort(key=lambda endpoint: names.index(endpoint.name))
        used = {n for e in endpoints for n in (e.request, e.response, e.progress)}
        shown = {t for e in endpoints for t in (e.whole.type or "", *(field.type for field in e.fields))}
        resources.append(
            Resource(
                name=task.resource,
                model_type=task.model_type,
                class_name=_title(task.resource),
                summary=task.summary,
                endpoints=tuple(endpoints),
                extends=task.extends,
                contracts=classes.imports(used),
                imports=classes.imports(used | shown),
            )
        )
    return resources


def _title(name: str) -> str:
    return "".join(part.title() for part in name.split("_"))


def _parameters(contracts: Contracts, request: str) -> tuple[Field, ...]:
    """The fields that a caller gives, required ones first."""
    fields = [f for f in contracts.fields(request) if f.name not in _CLIENT_FIELDS]
    return tuple(sorted(fields, key=lambda f: f.default is not None))


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
