"""The generated TypeScript: no holes in its types, and tables that cover what requests hold inside."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from codegen.bundle import Bundle, SchemaError, read_bundle
from codegen.documents import build_document
from codegen.typescript import render_typescript

SCHEMA = Path(__file__).parents[2] / "schema"

pytestmark = pytest.mark.node


def bundle_with(tmp_path: Path, properties: dict[str, Any], **definitions: Any) -> Bundle:
    """The repository's schema with more properties in the request of time_series, and more definitions."""
    shutil.copytree(SCHEMA, tmp_path / "schema", ignore=shutil.ignore_patterns("cases"))
    path = tmp_path / "schema/tasks/time_series.yaml"
    task = yaml.safe_load(path.read_text(encoding="utf-8"))
    task["$defs"] |= definitions
    task["$defs"]["TimeSeriesRequest"]["properties"] |= properties
    path.write_text(yaml.safe_dump(task, sort_keys=False), encoding="utf-8")
    return read_bundle(tmp_path / "schema")


def render(bundle: Bundle, out: Path) -> dict[str, str]:
    render_typescript(bundle, build_document(bundle, lowered=False), [], out)
    return {path.name: path.read_text(encoding="utf-8") for path in out.iterdir()}


@pytest.mark.parametrize("hole", [{}, {"type": "object"}, {"type": "array"}, {"additionalProperties": True}])
def test_a_schema_that_says_nothing_fails(tmp_path: Path, hole: dict[str, Any]) -> None:
    bundle = bundle_with(tmp_path, {"extra": {"description": "A hole.", **hole}})
    with pytest.raises(SchemaError, match=r"a part of TimeSeriesRequest became unknown"):
        render(bundle, tmp_path / "out")


def test_rules_inside_a_request_are_found_wherever_it_holds_them(tmp_path: Path) -> None:
    chain = {
        "title": "Chain",
        "description": "A part with a rule of its own.",
        "type": "object",
        "properties": {
            "scores": {"type": "array", "items": {"type": ["number", "null"]}, "description": "Scores."},
            "times": {"type": "array", "items": {"type": "number"}, "description": "Times."},
        },
        "x-sheaf-rules": [{"rule": "increasing", "field": "times"}],
    }
    here = {"$ref": "#/$defs/Chain"}
    lists = {
        "type": "object",
        "additionalProperties": {"type": "array", "items": here},
        "description": "Chains.",
    }
    bundle = bundle_with(tmp_path, {"chain": here, "chains": lists}, Chain=chain)

    rules = render(bundle, tmp_path / "out")["rules.gen.ts"]
    assert 'TimeSeriesRequest: [["chain", "Chain"], ["chains.*.*", "Chain"]],' in rules
    assert '  Chain: [\n    {"rule": "increasing", "field": "times"},\n  ],' in rules
    assert '"history", "past_covariates", "future_covariates", "chain", "chains"]' in rules
