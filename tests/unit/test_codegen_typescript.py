"""The generated TypeScript: no holes in its types, and tables that cover what requests hold inside."""

from __future__ import annotations

import re
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


def tensor(dtype: str, *shape: int | str, nullable: bool = False) -> dict[str, Any]:
    """A tensor of the schema, without a description."""
    kind = {"type": ["string", "null"], "default": None} if nullable else {"type": "string"}
    return {**kind, "contentEncoding": "base64", "x-sheaf-tensor": {"dtype": dtype, "shape": list(shape)}}


IMAGE: dict[str, Any] = {"type": "string", "contentEncoding": "base64", "x-sheaf-media": "image"}


def test_tensors_and_media_are_held_under_plain_names(tmp_path: Path) -> None:
    frame = {
        "title": "Frame",
        "description": "A picture with its depth.",
        "type": "object",
        "required": ["depth_b64"],
        "properties": {
            "pixels_b64": IMAGE,
            "depth_b64": tensor("float64", "len(lights_b64)", 2),
            "lights_b64": {"type": "array", "items": tensor("int64", 3)},
        },
        "x-sheaf-rules": [{"rule": "requires", "field": "pixels_b64", "needs": ["lights_b64"]}],
    }
    fields = {"type": "object", "additionalProperties": tensor("int32", "horizon")}
    bundle = bundle_with(
        tmp_path,
        {"frames": {"type": "array", "items": {"$ref": "#/$defs/Frame"}}, "fields": fields},
        Frame=frame,
    )
    answer = bundle.schemas["TimeSeriesResponse"].body["properties"]
    answer |= {"mask_b64": tensor("uint8", 4, nullable=True), "picture_b64": IMAGE}

    files = render(bundle, tmp_path / "out")
    types = files["types.gen.ts"]
    for declared in (
        "pixels?: Uint8Array | ArrayBuffer | Blob;",
        "depth: Float64Array;",
        "lights?: Array<BigInt64Array>;",
        "[key: string]: Int32Array;",
        "mask: Uint8Array | null;",
        "picture?: Uint8Array;",
    ):
        assert f" {declared}\n" in types
    validators = files["zod.gen.ts"]
    assert "    lights: z.array(tensor('int64')).optional()" in validators
    assert "    mask: tensor('uint8').nullable().default(null)" in validators
    table = files["binary.gen.ts"]
    assert (
        '"frames": {"*": {"pixels_b64": {"$media": "image"}, '
        '"depth_b64": {"$tensor": "float64", "$shape": ["len(lights)", 2]}, '
        '"lights_b64": {"*": {"$tensor": "int64", "$shape": [3]}}}}, '
        '"fields": {"*": {"$tensor": "int32", "$shape": ["horizon"]}}'
    ) in table
    assert '{"rule": "requires", "field": "pixels", "needs": ["lights"]}' in files["rules.gen.ts"]


def test_requests_take_dates_for_times_and_answers_have_text(tmp_path: Path) -> None:
    types = render(bundle_with(tmp_path, {}), tmp_path / "out")["types.gen.ts"]
    assert "export type TimestampLike = string | Date;\n" in types
    assert "    start?: TimestampLike | null;\n" in types
    assert "    timestamps: Array<Timestamp> | null;\n" in types


def test_limits_that_the_tool_drops_are_kept(tmp_path: Path) -> None:
    number = {"type": "integer", "multipleOf": 8, "minimum": 64, "description": "A size."}
    scores = {
        "type": "object",
        "minProperties": 1,
        "maxProperties": 9,
        "additionalProperties": {"type": "number"},
        "description": "Scores.",
    }
    validators = render(bundle_with(tmp_path, {"size": number, "scores": scores}), tmp_path / "out")[
        "zod.gen.ts"
    ]
    assert "size: z.int().multipleOf(8).gte(64).optional()" in validators
    assert "scores: z.record(z.string(), z.number()).check(minMembers(1)).check(maxMembers(9))" in validators


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"chain": {"$ref": "#/$defs/Chain"}}, "Chain holds itself at chain.next.*"),
        ({"image_b64": {"type": "string"}}, "image_b64 holds neither tensors nor media"),
        ({"image_b64": {**IMAGE, "x-sheaf-media": "smell"}}, "unknown media 'smell'"),
        ({"points_b64": tensor("float16", 3)}, "unknown dtype 'float16'"),
        ({"horizon_b64": IMAGE}, "a field has the plain name of a binary field"),
    ],
)
def test_a_contract_that_cannot_be_held_fails(
    tmp_path: Path, properties: dict[str, Any], message: str
) -> None:
    chain = {
        "title": "Chain",
        "type": "object",
        "description": "A chain of chains.",
        "properties": {"next": {"type": "array", "items": {"$ref": "#/$defs/Chain"}, "description": "Next."}},
    }
    bundle = bundle_with(tmp_path, properties, **({"Chain": chain} if "chain" in properties else {}))
    with pytest.raises(SchemaError, match=re.escape(message)):
        render(bundle, tmp_path / "out")
