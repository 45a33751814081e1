"""The documentation pages: they say of every field what the contract says, and their links lead somewhere."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from sheaf.contract.operations import all_operations
from sheaf.registry import backend_names, find_backend
from sheaf_client._operation import Operation
from sheaf_client.contracts.base import ModelType

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs/models"
DOCUMENT = json.loads(files("sheaf").joinpath("http/document/openapi.json").read_text(encoding="utf-8"))
SHARED = {"request_id", "model_type", "model_name", "metadata"}
TYPES = sorted({operation.model_type for operation in all_operations()})
each_operation = pytest.mark.parametrize(
    "operation", all_operations(), ids=lambda op: f"{op.model_type}-{op.name}"
)


def page(model_type: str, operation: str | None = None) -> str:
    """What the page of a type says of one operation, the first where none is named."""
    text = (PAGES / f"{model_type}.md").read_text(encoding="utf-8")
    paths = [path for path in DOCUMENT["paths"] if f"/{model_type}/" in path]
    path = next(path for path in paths if operation is None or path.endswith(f"/{operation}"))
    return text.split(f"\n## {DOCUMENT['paths'][path]['post']['summary']}\n", 1)[1].split("\n## ", 1)[0]


def section(text: str, title: str) -> str:
    return re.split(r"^#{2,3} ", text.split(f"\n### {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def table(text: str) -> list[dict[str, str]]:
    """The rows of the first table, by column."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    # A pipe inside of code belongs to the cell.
    header, _, *rows = [re.findall(r"\| ((?:`[^`]*`|[^|`])*?) (?=\|)", line) for line in lines]
    return [dict(zip(header, row, strict=True)) for row in rows]


def schema_of(name: str) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["components"]["schemas"][name]
    return found


def test_every_model_type_has_its_page_and_is_listed() -> None:
    assert sorted(path.stem for path in PAGES.glob("*.md")) == sorted([*TYPES, "index"])
    assert set(TYPES) <= {entry.value for entry in ModelType}
    listed = (PAGES / "index.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((\w+)\.md\)", listed) == TYPES
    for operation in all_operations():
        assert f"`{resource_of(operation.model_type)}.{operation.name}`" in listed


def shipped() -> dict[str, set[str]]:
    """The names of the backends in the package by model type, as the registry has them."""
    classes = {name: find_backend(name) for name in backend_names()}
    own = {name: cls for name, cls in classes.items() if cls.__module__.startswith("sheaf.backends.")}
    return {kind: {name for name, cls in own.items() if cls.model_type == kind} for kind in TYPES}


def test_pages_say_which_backends_ship() -> None:
    names = shipped()
    assert names["time_series"]
    rows = table((PAGES / "index.md").read_text(encoding="utf-8").split("\n## ", 1)[0])
    for row, model_type in zip(rows, TYPES, strict=True):
        assert set(re.findall(r"`([^`]+)`", row["backends"])) == names[model_type]
        top, _, rest = (PAGES / f"{model_type}.md").read_text(encoding="utf-8").partition("\n## ")
        listed = re.search(r"^Backends that ship today: (.+)\.$", top, flags=re.MULTILINE)
        assert set(re.findall(r"`([^`]+)`", listed[1] if listed else "")) == names[model_type]
        assert ("**No backend ships yet.**" in top) is not bool(names[model_type])
        # Samples of models that cannot be had say so before the first line of code.
        first = rest.split("\n=== ", 1)[0]
        assert ("a backend of your own" in first) is not bool(names[model_type])
        assert (row["backends"] == "none yet") is not bool(names[model_type])


@pytest.mark.parametrize("path", ["README.md", "docs/index.md"])
def test_first_pages_name_every_backend_and_count_the_types_without(path: str) -> None:
    names = shipped()
    text = (ROOT / path).read_text(encoding="utf-8")
    top = text.split("\n## ", 1)[0]
    said = set(re.findall(r"`([\w-]+)`", top))
    assert {name for served in names.values() for name in served} <= said
    without = sum(not served for served in names.values())
    assert f"The other {without} types" in top


def resource_of(model_type: str) -> str:
    path = next(path for path in DOCUMENT["paths"] if f"/{model_type}/" in path)
    tag: str = DOCUMENT["paths"][path]["post"]["tags"][0]
    return tag


@each_operation
def test_a_page_has_every_field_of_request_and_answer(operation: Operation[Any, Any]) -> None:
    for title, contract in (("Request", operation.request), ("Answer", operation.response)):
        schema = schema_of(contract.__name__)
        rows = table(section(page(operation.model_type, operation.name), title))
        wires = {name.removesuffix("_b64"): name for name in schema["properties"] if name not in SHARED}
        assert {row["field"].strip("`") for row in rows} == set(wires)
        for row in rows:
            node = schema["properties"][wires[row["field"].strip("`")]]
            assert row["meaning"]
            assert row["type"]
            if title == "Request":
                required = wires[row["field"].strip("`")] in schema["required"]
                assert (row["default"] == "**required**") is required
                if not required and node.get("default") is not None:
                    assert json.loads(row["default"].strip("`")) == node["default"]
            if "x-sheaf-tensor" in node:
                assert row["type"] == f"{node['x-sheaf-tensor']['dtype']} array"
                assert all(str(size) in row["shape"] for size in node["x-sheaf-tensor"]["shape"])
            if {"minimum", "maximum"} <= node.keys() and "bounds" in row:
                least, most = (
                    f"{node[key]:,}" if isinstance(node[key], int) else f"{node[key]:g}"
                    for key in ("minimum", "maximum")
                )
                assert row["bounds"].startswith(f"{least}\u00a0to\u00a0{most}")


@each_operation
def test_a_page_has_every_rule_in_words(operation: Operation[Any, Any]) -> None:
    described: str = schema_of(operation.request.__name__)["description"]
    rules = re.findall(r"^- (.+)$", described.partition("Rules:")[2], flags=re.MULTILINE)
    text = page(operation.model_type, operation.name)
    told = [row["rule"].lower() for row in table(section(text, "Rules"))] if "### Rules" in text else []
    plain = [re.sub(r"`(\w+)_b64`", r"`\1`", rule).lower() for rule in rules]
    assert told[: len(plain)] == plain


def test_units_stand_in_a_column_of_their_own() -> None:
    def units(model_type: str, title: str) -> dict[str, str]:
        rows = table(section(page(model_type), title))
        return {row["field"].strip("`"): row["unit"] for row in rows if row.get("unit")}

    assert units("materials", "Request") == {"positions": "Å", "cell": "Å"}
    assert units("materials", "Answer") == {"energy": "eV", "forces": "eV/Å", "stress": "eV/Å³"}
    assert units("time_series", "Answer")["mean"] == "the unit of `history`"
    assert units("geospatial", "Request")["gsd"] == "m"


def test_a_page_tells_what_is_refused_beside_the_rules() -> None:
    found = {(row["code"], row["at"]) for row in table(section(page("time_series"), "Refusals"))}
    assert {("`no_feature_store`", "`feature_ref`"), ("`unsupported`", "`output_mode`")} <= found
    found = {(row["code"], row["at"]) for row in table(section(page("materials"), "Refusals"))}
    assert ("`bytes_match_shape`", "`positions`") in found


@each_operation
def test_a_page_streams_where_the_operation_does(operation: Operation[Any, Any]) -> None:
    progress = DOCUMENT["paths"][operation.path]["post"]["x-sheaf-stream"]
    told = section(page(operation.model_type, operation.name), "Streaming")
    assert ("stream(" in told) is bool(progress)
    assert ("has no stream" in told) is not progress


def test_a_page_has_every_field_that_an_operation_adds_to_its_progress_event() -> None:
    plain = set(schema_of("ProgressEvent")["properties"])
    added: dict[str, set[str]] = {}
    for operation in all_operations():
        fields = set(operation.progress.model_fields) - plain
        told = section(page(operation.model_type, operation.name), "Streaming")
        if fields:
            added[operation.model_type] = fields
            assert {row["field"].strip("`") for row in table(told)} == fields
    assert added["audio"] == {"segments"}
    assert {"weather", "tts", "audio_generation", "diffusion", "multimodal_generation"} < set(added)


@pytest.mark.parametrize("path", sorted((ROOT / "docs").rglob("*.md")), ids=lambda path: path.stem)
def test_links_lead_to_headings(path: Path) -> None:
    def anchors(target: Path) -> set[str]:
        headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
        return {re.sub(r"[^\w-]+", "-", heading.lower()).strip("-") for heading in headings}

    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", path.read_text(encoding="utf-8"))):
        if "://" in link:
            continue  # leads out of the project
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


def test_an_error_of_every_code_is_listed() -> None:
    from sheaf_client import errors

    text = (PAGES / "index.md").read_text(encoding="utf-8")
    for row in table(text.split("\n## Errors\n", 1)[1].split("\n## ", 1)[0]):
        assert issubclass(getattr(errors, row["class"].strip("`")), errors.ProblemError)
