"""Renders every generated file into one tree that mirrors the repository, then compares or installs it."""

from __future__ import annotations

import filecmp
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jinja2

from codegen.aliases import is_alias
from codegen.bundle import JSON, PLAIN_PROGRESS, Bundle, SchemaError, read_bundle
from codegen.constructors import add_constructors
from codegen.contracts import HEADER, render_contracts, render_params
from codegen.documents import build_document, to_openapi_32
from codegen.inputs import render_inputs
from codegen.pages import Served, render_pages
from codegen.rendering import template_environment
from codegen.resources import Resource, collect_resources
from codegen.results import check_results
from codegen.rules import check_rules
from codegen.samples import add_samples
from codegen.typescript import render_typescript

SDK = Path("sdk/src/sheaf_client")
SERVER = Path("server/src/sheaf")
TYPESCRIPT = Path("clients/typescript/src/generated")
PAGES = Path("docs/models")
REPOSITORY = Path(__file__).parent.parent

#: Folders and files that belong to the generator alone.
OWNED = (
    SDK / "contracts",
    SDK / "operations",
    SDK / "params",
    SDK / "resources",
    SDK / "errors",
    SERVER / "api",
    SERVER / "http/document",
    TYPESCRIPT,
    PAGES,
)


def generate(schema: Path, tree: Path, *, typescript: bool = True) -> None:
    """Render everything that the schema folder gives into the folder `tree`."""
    bundle = read_bundle(schema)
    check_rules(bundle)
    check_results(bundle)
    view = build_document(bundle, lowered=False)
    document = build_document(bundle)

    contracts = tree / SDK / "contracts"
    contracts.parent.mkdir(parents=True)
    render_contracts(bundle, contracts)
    params = tree / SDK / "params"
    render_params(bundle, params)
    view_file = tree / "view.json"
    view_file.write_text(json.dumps(view))
    add_constructors(bundle, contracts)
    resources = collect_resources(bundle, view, contracts, view_file)
    view_file.unlink()

    environment = template_environment()
    problems = [{"code": code, **entry} for code, entry in bundle.problems.items()]
    enums = {s.name: s.body["enum"] for s in bundle.schemas.values() if "enum" in s.body}
    (params / "_types.py").write_text(render_inputs(bundle, HEADER), encoding="utf-8")
    _render(environment, "enums.py", params / "_enums.py", enums=enums)
    _render(
        environment, "errors.py", tree / SDK / "errors/__init__.py", problems=problems, faults=bundle.faults
    )
    _render(environment, "retries.py", tree / SDK / "errors/_retries.py", retries=bundle.retries)
    _render(environment, "operations_init.py", tree / SDK / "operations/__init__.py", resources=resources)
    _render(environment, "resources_init.py", tree / SDK / "resources/__init__.py", resources=resources)
    for resource in resources:
        _render(environment, "operation.py", tree / SDK / f"operations/{resource.name}.py", r=resource)
        _render(environment, "resource.py", tree / SDK / f"resources/{resource.name}.py", r=resource)
    _render_api(environment, bundle, tree / SERVER / "api")

    add_samples(bundle, document, resources)
    folder = tree / SERVER / "http/document"
    folder.mkdir(parents=True)
    _write_json(folder / "openapi.json", document)
    _write_json(folder / "openapi-3.2.json", to_openapi_32(document))
    if typescript:
        render_typescript(bundle, view, resources, tree / TYPESCRIPT)
    _format(tree)
    # After formatting, which would lay out the samples in the pages anew.
    render_pages(bundle, resources, tree / PAGES, Served.of(REPOSITORY))


def _render(environment: jinja2.Environment, template: str, path: Path, **context: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = environment.get_template(f"{template}.jinja").render(**context)
    path.write_text(f"{HEADER}\n\n{text}", encoding="utf-8")


def _render_api(environment: jinja2.Environment, bundle: Bundle, folder: Path) -> None:
    """`sheaf.api.<module>`: each task's contracts with all they refer to, under their public names."""
    common = ["ModelType", "BaseRequest", "BaseResponse", "Metadata", "Usage", PLAIN_PROGRESS]
    modules: dict[str, list[str]] = {"base": common}
    for task in bundle.tasks:
        names = modules.setdefault(task.module, [])
        used = bundle.reachable(*(name for op in task.operations for name in op.contracts))
        names += [n for n in used if n not in common and n not in names and n != "ModelName"]
    for module, names in modules.items():
        imports: dict[str, list[str]] = {}
        for name in sorted(names):
            schema = bundle.schemas[name]
            source = "types" if is_alias(schema) else schema.module
            imports.setdefault(f"sheaf_client.contracts.{source}", []).append(name)
        _render(
            environment, "api.py", folder / f"{module}.py", module=module, imports=imports, all=sorted(names)
        )
    union_imports: dict[str, list[str]] = {}
    for task in bundle.tasks:
        names = [name for op in task.operations for name in (op.request, op.response)]
        union_imports.setdefault(task.module, []).extend(names)
    unions = {
        f"Any{pick.title()}": [[(op, getattr(op, pick)) for op in task.operations] for task in bundle.tasks]
        for pick in ("request", "response")
    }
    several = any(len(task.operations) > 1 for task in bundle.tasks)
    context = {"imports": union_imports, "unions": unions, "several": several}
    _render(environment, "union.py", folder / "union.py", **context)
    _render(environment, "operations.py", folder / "operations.py", tasks=bundle.tasks)
    named: set[str] = set()
    homes: dict[str, list[str]] = {}  # a part that several contracts have is in the module of the first
    for module, names in modules.items():
        homes[module] = sorted(set(names) - named)
        named.update(names)
    _render(environment, "api_init.py", folder / "__init__.py", modules=homes)


def _write_json(path: Path, document: JSON) -> None:
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _format(tree: Path) -> None:
    """Format all generated Python, with settings of its own so that the output is the same anywhere."""
    options = ["--isolated", "--line-length=110", "--target-version=py311"]
    for command in (["check", "--fix", "--select=I,F401,UP037", "--quiet"], ["format", "--quiet"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *options, str(tree)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SchemaError(f"generated Python is not valid:\n{(done.stdout + done.stderr)[:2000]}")
    shutil.rmtree(tree / ".ruff_cache", ignore_errors=True)


def _files(root: Path) -> Iterator[Path]:
    for owned in OWNED:
        target = root / owned
        if target.is_file():
            yield owned
        else:
            yield from (
                path.relative_to(root)
                for path in sorted(target.rglob("*"))
                if path.is_file() and "__pycache__" not in path.parts
            )


def differences(tree: Path, repository: Path) -> list[str]:
    """What stands in the repository and is not what the schema gives, one line each."""
    new, old = set(_files(tree)), set(_files(repository))
    changed = [p for p in new & old if not filecmp.cmp(tree / p, repository / p, shallow=False)]
    return sorted(
        [f"missing: {p}" for p in new - old]
        + [f"not generated: {p}" for p in old - new]
        + [f"differs: {p}" for p in changed]
    )


def install(tree: Path, repository: Path) -> list[str]:
    """Make the repository's generated files equal to the tree; return what changed."""
    changes = differences(tree, repository)
    for change in changes:
        path = Path(change.split(": ", 1)[1])
        if change.startswith("not generated"):
            (repository / path).unlink()
        else:
            (repository / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(tree / path, repository / path)
    return changes


def run(schema: Path, repository: Path, *, check: bool) -> int:
    """Generate and install, or with `check` only compare; returns the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            generate(schema, Path(folder))
        except SchemaError as error:
            print(f"codegen: {error}", file=sys.stderr)
            return 2
        if not check:
            for change in install(Path(folder), repository):
                print(
                    change.replace("differs", "updated")
                    .replace("missing", "added")
                    .replace("not generated", "removed")
                )
            return 0
        if found := differences(Path(folder), repository):
            print("\n".join(found), file=sys.stderr)
            print("Generated files differ from the schema; run `nox -s codegen`.", file=sys.stderr)
            return 1
    return 0


__all__ = ["Resource", "differences", "generate", "install", "run"]
