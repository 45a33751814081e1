"""The document of concrete deployments: valid, complete for its models, and nothing of the others."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from openapi_spec_validator import validate

from sheaf.backends.base import ModelBackend
from sheaf.contract.operations import all_operations, names_of
from sheaf.embedded import EmbeddedServer
from sheaf.openapi import SpecsError, find_specs, generate, main
from sheaf.spec import ModelSpec
from tests.echoes import Echo


def backend_for(model_type: str, *operations: str) -> type[ModelBackend]:
    """A backend of that type, of all its operations, which fails where anything tries to load it."""

    def load(*_: Any) -> None:
        raise AssertionError("a document needs no model")

    served = frozenset(operations or names_of(model_type))
    body = {"model_type": model_type, "operations": served, "load": load, "batch_predict": load}
    return type("Backend", (ModelBackend,), body)


def spec_of(model_type: str, name: str) -> ModelSpec:
    return ModelSpec(name=name, backend_cls=backend_for(model_type))


def refs(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from refs(value)
    elif isinstance(node, list):
        for value in node:
            yield from refs(value)


TWO = [ModelSpec(name="chronos", backend_cls=Echo), spec_of("molecular", "mol-2.b")]

#: What `module:attr` may lead to.
one = TWO[0]
server = EmbeddedServer(TWO)
number = 3
numbers = [3]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return generate(TWO)


def test_paths_are_those_of_the_models_and_no_others(document: dict[str, Any]) -> None:
    assert set(document["paths"]) == {
        "/models",
        *(
            f"/chronos/{rest}"
            for rest in ("time_series/forecast", "predict", "stream", "batch", "health", "ready")
        ),
        *(f"/mol-2.b/{rest}" for rest in ("molecular/embed", "predict", "batch", "health", "ready")),
    }


def test_shared_operations_have_the_contracts_of_the_model(document: dict[str, Any]) -> None:
    def body(path: str) -> str:
        return document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]

    assert body("/chronos/predict") == "#/components/schemas/TimeSeriesRequest"
    assert body("/mol-2.b/predict") == "#/components/schemas/MolecularRequest"
    assert body("/mol-2.b/batch") == "#/components/schemas/MolecularBatchRequest"
    schemas = document["components"]["schemas"]
    assert schemas["MolecularBatchRequest"]["properties"]["requests"]["items"] == {
        "$ref": "#/components/schemas/MolecularRequest"
    }
    assert schemas["TimeSeriesBatchResponse"]["properties"]["responses"]["items"]["anyOf"] == [
        {"$ref": "#/components/schemas/TimeSeriesResponse"},
        {"$ref": "#/components/schemas/Problem"},
    ]
    stream = document["paths"]["/chronos/stream"]["post"]["responses"]["200"]["content"]["text/event-stream"]
    assert stream["schema"]["$ref"] == "#/components/schemas/TimeSeriesEvent"
    assert [ref.rsplit("/", 1)[1] for ref in refs(schemas["TimeSeriesEvent"])] == [
        "ProgressEvent",
        "TimeSeriesResultEvent",
        "ErrorEvent",
    ]


def test_components_are_exactly_those_referred_to(document: dict[str, Any]) -> None:
    kept = {
        f"#/components/{kind}/{name}"
        for kind, entries in document["components"].items()
        for name in entries
        if kind != "securitySchemes"
    }
    assert set(refs(document)) == kept
    assert "#/components/schemas/AnyRequest" not in kept
    assert "#/components/schemas/TabularRequest" not in kept
    assert list(document["components"]["securitySchemes"]) == ["api_key", "bearer"]


def test_models_of_one_type_have_the_operations_that_they_serve() -> None:
    whole = spec_of("materials", "mace")
    few = ModelSpec(name="chgnet", backend_cls=backend_for("materials", "relax", "compute"))
    one = ModelSpec(name="emt", backend_cls=backend_for("materials", "compute"))
    document = generate([whole, few, one])
    typed = {path for path in document["paths"] if "/materials/" in path}
    assert typed == {
        *(f"/mace/materials/{name}" for name in ("compute", "relax", "molecular_dynamics")),
        *(f"/chgnet/materials/{name}" for name in ("compute", "relax")),
        "/emt/materials/compute",
    }

    def asked(name: str) -> list[str]:
        post = document["paths"][f"/{name}/predict"]["post"]
        schema = post["requestBody"]["content"]["application/json"]["schema"]
        union = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        return [ref.rsplit("/", 1)[1] for ref in refs(union.get("anyOf", schema))]

    assert asked("mace") == ["MaterialsRequest", "RelaxRequest", "MolecularDynamicsRequest"]
    assert asked("chgnet") == ["MaterialsRequest", "RelaxRequest"]
    assert asked("emt") == ["MaterialsRequest"]
    validate(document)


def test_nothing_is_left_to_be_filled_in(document: dict[str, Any]) -> None:
    assert "{model_name}" not in json.dumps(document)
    operations = [op for item in document["paths"].values() for op in item.values()]
    identifiers = [op["operationId"] for op in operations]
    assert len(set(identifiers)) == len(identifiers)
    assert document["paths"]["/chronos/predict"]["post"]["tags"] == ["chronos"]
    assert {tag for op in operations for tag in op["tags"]} == {tag["name"] for tag in document["tags"]}


def test_examples_and_samples_name_the_model(document: dict[str, Any]) -> None:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            assert bool(content.get("examples")) is (method == "post")
            for example in content.get("examples", {}).values():
                bodies = example["value"].get("requests", [example["value"]])
                assert {body["model_name"] for body in bodies} == {path.split("/")[1]}
            for sample in operation.get("x-codeSamples", []):
                assert path == "/models" or path.split("/")[1] in sample["source"]
                assert "statsforecast" not in sample["source"]
                if sample["lang"] == "python":
                    ast.parse(sample["source"])


@pytest.mark.parametrize("model_type", sorted({op.model_type for op in all_operations()}))
def test_every_example_is_a_request_of_its_operation(model_type: str) -> None:
    document = generate(spec_of(model_type, "m"))
    kinds = {op.name: op.request for op in all_operations() if op.model_type == model_type}
    seen: set[str] = set()
    for path, item in document["paths"].items():
        examples = item.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        for example in examples.get("examples", {}).values():
            for body in example["value"].get("requests", [example["value"]]):
                asked = body.get("operation", next(iter(kinds)))
                kinds[asked].model_validate_json(json.dumps(body), strict=True, by_name=False)
                named = path.rsplit("/", 1)[1]
                assert path.count("/") == 2 or named == asked
                seen.add(f"{path} {asked}")
    assert {f"/m/{model_type}/{name} {name}" for name in kinds} | {f"/m/batch {n}" for n in kinds} <= seen


def test_answers_and_schemas_have_examples_of_the_model() -> None:
    document = generate([spec_of("tabular", "mine"), spec_of("materials", "other")])
    answers = document["paths"]["/mine/tabular/predict"]["post"]["responses"]["200"]["content"]
    assert answers["application/json"]["example"]["model_name"] == "mine"
    events = document["paths"]["/other/stream"]["post"]["responses"]["200"]["content"]["text/event-stream"]
    told = json.loads(events["example"].partition("data: ")[2])
    assert (told["type"], told["model_name"], told["model_type"]) == ("result", "other", "materials")
    schemas = document["components"]["schemas"]
    for name, model in (("TabularRequest", "mine"), ("TabularResponse", "mine"), ("RelaxRequest", "other")):
        assert {example["model_name"] for example in schemas[name]["examples"]} == {model}


def test_a_sample_differs_from_the_schemas_in_the_name_alone() -> None:
    whole = json.loads(files("sheaf").joinpath("http/document/openapi.json").read_text(encoding="utf-8"))
    checked = 0
    for model_type in {op.model_type for op in all_operations()}:
        ours = generate(spec_of(model_type, "NAME"))
        for path, item in whole["paths"].items():
            mine = ours["paths"].get(path.replace("{model_name}", "NAME"))
            if f"/{model_type}/" not in path or mine is None:
                continue
            for old, new in zip(item["post"]["x-codeSamples"], mine["post"]["x-codeSamples"], strict=True):
                was = next(
                    iter(item["post"]["requestBody"]["content"]["application/json"]["examples"].values())
                )
                assert new["source"].replace("NAME", was["value"]["model_name"]) == old["source"]
                checked += 1
    assert checked == 3 * len(all_operations())


@pytest.mark.parametrize("model_type", sorted({op.model_type for op in all_operations()}))
def test_the_document_of_every_model_type_is_valid(model_type: str) -> None:
    validate(generate(spec_of(model_type, "m")))


def test_the_document_of_two_models_of_one_type_is_valid() -> None:
    made = generate([spec_of("audio", "a"), spec_of("audio", "b")], servers=["https://models.example"])
    validate(made)
    assert made["servers"] == [{"url": "https://models.example"}]
    assert "servers" not in generate(TWO)


def test_openapi_32_says_what_one_event_is() -> None:
    made = generate(TWO, version="3.2")
    media = made["paths"]["/chronos/stream"]["post"]["responses"]["200"]["content"]["text/event-stream"]
    assert made["openapi"] == "3.2.0"
    assert media["itemSchema"]["properties"]["data"]["contentSchema"] == {
        "$ref": "#/components/schemas/TimeSeriesEvent"
    }


@pytest.mark.parametrize(
    ("specs", "reason"),
    [
        ([], "at least one"),
        ([spec_of("audio", "a"), spec_of("depth", "a")], "two models are called 'a'"),
    ],
)
def test_what_cannot_be_deployed_has_no_document(specs: list[ModelSpec], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        generate(specs)


@pytest.mark.parametrize("attribute", ["TWO", "one", "server"])
def test_specs_are_found_in_lists_alone_and_in_servers(attribute: str) -> None:
    found = find_specs(f"{__name__}:{attribute}")
    assert [spec.name for spec in found] == ["chronos", "mol-2.b"][: len(found)]
    assert len(found) == (1 if attribute == "one" else 2)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("nowhere.at.all:specs", "no module is called 'nowhere'"),
        ("sheaf.nowhere:specs", "no module is called 'sheaf.nowhere'"),
        (f"{__name__}:missing", "has no 'missing'"),
        (f"{__name__}:number", "is a int"),
        (f"{__name__}:numbers", "holds a int"),
        ("sheaf.spec", "not of the form"),
    ],
)
def test_a_wrong_path_is_told(path: str, reason: str) -> None:
    with pytest.raises(SpecsError, match=reason):
        find_specs(path)


def test_a_modules_own_failure_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_specs.py").write_text("import surely_not_installed\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="surely_not_installed"):
        find_specs("broken_specs:specs")


def test_the_command_writes_json_and_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = f"{__name__}:TWO"
    assert main(["--specs", source]) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed) == generate(TWO)
    for name, arguments in (("a.yaml", []), ("b.txt", ["--format", "yaml"])):
        assert main(["--specs", source, "--output", str(tmp_path / name), *arguments]) == 0
        written = (tmp_path / name).read_text(encoding="utf-8")
        assert yaml.safe_load(written) == generate(TWO)
        assert "&id" not in written
    assert main(["--specs", "nowhere:specs"]) == 1
    assert "nowhere" in capsys.readouterr().err


def test_sheaf_openapi_reads_a_file_of_models(tmp_path: Path) -> None:
    models, output = tmp_path / "models.yaml", tmp_path / "document.json"
    models.write_text("models:\n  - {name: daily, backend: statsforecast}\n")
    command = [sys.executable, "-m", "sheaf", "openapi", str(models), "--output", str(output)]
    subprocess.run(command, check=True, capture_output=True)
    assert "/daily/time_series/forecast" in json.loads(output.read_text())["paths"]
    models.write_text("- nonesuch\n")
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, "nonesuch" in done.stderr) == (1, True)


def test_a_document_needs_neither_ray_nor_torch_nor_a_model_library() -> None:
    code = (
        "import sys; from sheaf.openapi import generate; generate(['statsforecast', 'chronos2']);"
        "print(*{m.partition('.')[0] for m in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    heavy = {
        "ray",
        "torch",
        "statsforecast",
        "chronos",
        "pandas",
        "transformers",
        "starlette",
        "uvicorn",
        "httpx",
    }
    assert set(done.stdout.split()) & heavy == set()
