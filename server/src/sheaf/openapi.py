"""The OpenAPI document of concrete deployments: their paths with names filled in, their schemas alone.

It is cut out of the schema's document, so no model is loaded and neither Ray nor torch is imported:

    python -m sheaf.openapi --specs my_app.models:specs --output openapi.yaml
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, cast, runtime_checkable

import yaml

from sheaf.backends.operations import served_by
from sheaf.document import DOCUMENTS, JSON, Deployment, Version, document_of
from sheaf.spec import ModelSpec, SpecLike, as_specs, hosted_specs

Format: TypeAlias = Literal["json", "yaml"]


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
    deployed = hosted_specs(specs)
    if version not in DOCUMENTS:
        raise ValueError(f"OpenAPI {version!r} is not written; there are: {', '.join(DOCUMENTS)}")
    deployments = [
        Deployment(s.name, s.model_type, served_by(s.backend_class, s.model_type)) for s in deployed
    ]
    return document_of(deployments, version=version, servers=servers)


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
        text = cast("Any", yaml).safe_dump(document, sort_keys=False, allow_unicode=True, width=110)
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
    parser.add_argument("--version", choices=tuple(DOCUMENTS), default="3.1", help="of OpenAPI")
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
