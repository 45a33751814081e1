"""The generator: nothing drifts, bad schemas fail with a reason, and a new model type is one file."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from codegen.bundle import SchemaError, read_bundle
from codegen.generate import OWNED, differences, generate
from codegen.rules import VOCABULARY, check_rules
from sheaf_client._rules import OF_CONTRACT, OF_VALUE, OF_VALUE_ALONE
from sheaf_client.contracts.time_series import TimeSeriesRequest

ROOT = Path(__file__).parents[2]

ANTENNA = dedent("""
    x-sheaf-task:
      model_type: antenna
      resource: antenna
      summary: Simulate antennas
      operations:
        simulate:
          summary: Simulate an antenna
          request: '#/$defs/AntennaRequest'
          response: '#/$defs/AntennaResponse'
          stream: true
    $defs:
      Sweep:
        title: Sweep
        description: One frequency is done.
        x-sheaf-extends: ../common/events.yaml#/$defs/ProgressEvent
        type: object
        required: [gain]
        properties:
          gain: {type: number, description: Gain in dBi.}
      Band:
        title: Band
        description: Amateur radio band.
        type: string
        enum: [2m, 70cm]
        x-enum-varnames: [TWO_METRES, SEVENTY_CENTIMETRES]
      AntennaRequest:
        title: AntennaRequest
        description: An antenna and the frequencies of interest.
        x-sheaf-extends: ../common/base.yaml#/$defs/BaseRequest
        type: object
        additionalProperties: false
        required: [lengths]
        properties:
          model_type: {type: string, const: antenna, default: antenna, description: The contract.}
          lengths: {type: array, minItems: 1, items: {type: number}, description: "Lengths in metres."}
          weights: {type: [array, 'null'], items: {type: number}, default: null, description: One per length.}
          band: {$ref: '#/$defs/Band', default: 70cm, description: Band of interest.}
        x-sheaf-rules:
          - {rule: same_length, field: weights, as: lengths}
        examples:
          - {model_name: yagi, lengths: [1.0, 2.0]}
      AntennaResponse:
        title: AntennaResponse
        description: What it radiates.
        x-sheaf-extends: ../common/base.yaml#/$defs/BaseResponse
        type: object
        required: [gain]
        properties:
          model_type: {type: string, const: antenna, default: antenna, description: The contract.}
          gain: {type: number, description: Gain in dBi.}
""")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that the schema gives, Python side, freshly rendered."""
    folder = tmp_path_factory.mktemp("tree")
    generate(ROOT / "schema", folder, typescript=False)
    return folder


def test_what_is_committed_is_what_the_schema_gives(tree: Path) -> None:
    typescript = "clients/typescript"
    assert [line for line in differences(tree, ROOT) if typescript not in line] == []


def test_generation_is_repeatable(tree: Path, tmp_path: Path) -> None:
    generate(ROOT / "schema", tmp_path, typescript=False)
    assert differences(tmp_path, tree) == []


@pytest.mark.parametrize("owned", [path.as_posix() for path in OWNED if "typescript" not in path.as_posix()])
def test_an_edit_by_hand_is_found(tree: Path, tmp_path: Path, owned: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tree, copy)
    target = copy / owned
    file = target if target.is_file() else next(p for p in sorted(target.rglob("*")) if p.is_file())
    file.write_text(file.read_text().replace("e", "E", 1))
    assert differences(tree, copy) == [f"differs: {file.relative_to(copy)}"]
    file.unlink()
    assert differences(tree, copy) == [f"missing: {file.relative_to(copy)}"]


def test_a_stray_file_among_the_generated_is_found(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tree, copy)
    (copy / "sdk/src/sheaf_client/contracts/extra.py").write_text("x = 1\n")
    assert differences(tree, copy) == ["not generated: sdk/src/sheaf_client/contracts/extra.py"]


def test_python_executes_every_rule_of_the_vocabulary() -> None:
    assert {*OF_CONTRACT, *OF_VALUE, *OF_VALUE_ALONE} == set(VOCABULARY)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A copy of the schema with an imaginary model type in it."""
    schema = tmp_path / "schema"
    shutil.copytree(ROOT / "schema", schema)
    (schema / "tasks/antenna.yaml").write_text(ANTENNA)
    return schema


OTHER = "{summary: Aim, request: '#/$defs/AntennaRequest', response: '#/$defs/AntennaResponse'}"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("rule: same_length", "rule: same_lenght", "unknown rule 'same_lenght'"),
        ("field: weights, as", "field: wieghts, as", "'wieghts'"),
        ("field: weights, as: lengths", "field: weights", "takes"),
        ("model_type: antenna", "model_type: antena", "model_type must be the constant 'antena'"),
        ("gain: {type: number,", "gain: {", "Any"),
        (
            "    stream: true",
            "    stream: true\n    aim: " + OTHER,
            "AntennaRequest.operation must be the constant 'aim'",
        ),
        (
            "band: {",
            "operation: {type: string, const: x}\n      band: {",
            "operation is for operations after",
        ),
        ("'#/$defs/AntennaResponse'", "'#/$defs/Nowhere'", "leads nowhere"),
        ("stream: true", "stream: '#/$defs/Band'", "told by a ProgressEvent; Band extends none"),
        ("stream: true", "stream: '#/$defs/Sweep'", r"must be a Sweep too, which requires \['gain'\]"),
        ("title: AntennaResponse", "title: Usage", "two schemas are called 'Usage'"),
    ],
)
def test_a_faulty_schema_fails_with_its_reason(
    scratch: Path, tmp_path: Path, old: str, new: str, reason: str
) -> None:
    text = ANTENNA.replace(old, new)
    assert text != ANTENNA
    (scratch / "tasks/antenna.yaml").write_text(text)
    with pytest.raises(SchemaError, match=reason):
        generate(scratch, tmp_path / "out", typescript=False)


def test_rules_of_the_real_schema_are_known() -> None:
    check_rules(read_bundle(ROOT / "schema"))


@pytest.fixture
def generated(scratch: Path, tmp_path: Path) -> Iterator[Path]:
    """Both packages with an imaginary model type, as the walk-through in CONTRIBUTING.md makes it."""
    repository = tmp_path / "repository"
    for package in ("sdk/src", "server/src"):
        shutil.copytree(ROOT / package, repository / package, ignore=shutil.ignore_patterns("__pycache__"))
    out = tmp_path / "out"
    generate(scratch, out, typescript=False)
    shutil.copytree(out, repository, dirs_exist_ok=True)
    backend = dedent('''
        """A backend for the imaginary model type."""
        from sheaf.api.antenna import AntennaRequest, AntennaResponse
        from sheaf.backends.base import ModelBackend, respond
        from sheaf.registry import register_backend

        @register_backend("yagi")
        class YagiBackend(ModelBackend[AntennaRequest, AntennaResponse]):
            """Sums the lengths."""
            model_type = "antenna"
            def load(self): pass
            def batch_predict(self, requests):
                return [respond(r, AntennaResponse, gain=sum(r.lengths)) for r in requests]
    ''')
    (repository / "server/src/sheaf/backends/yagi.py").write_text(backend)
    yield repository
    importlib.invalidate_caches()


def test_signatures_say_what_callers_may_give(generated: Path) -> None:
    source = (generated / "sdk/src/sheaf_client/resources/antenna.py").read_text()
    for parameter in (
        "lengths: Sequence[float] | ArrayLike,",
        "weights: Sequence[float] | ArrayLike | None = None,",
        'band: Band | BandLike = "70cm",',
    ):
        assert source.count(parameter) == 4  # call and stream, synchronous and asynchronous


def test_a_default_that_is_a_list_is_each_contracts_own() -> None:
    one, other = (
        TimeSeriesRequest(model_name="m", history=[1.0], horizon=1, frequency="1h") for _ in range(2)
    )
    one.quantile_levels.append(0.7)
    assert other.quantile_levels == [0.1, 0.5, 0.9]
    factories = [field.default_factory for field in TimeSeriesRequest.model_fields.values()]
    assert sum(factory is not None for factory in factories) == 2  # the identifier and the levels


def test_a_new_model_type_is_one_schema_file_and_one_backend_file(generated: Path) -> None:
    script = dedent("""
        import asyncio, httpx
        from sheaf.embedded import EmbeddedServer
        from sheaf_client import AsyncSheaf, Sheaf
        from sheaf_client.errors import InvalidRequestError
        from sheaf.api.union import AnyRequest

        with Sheaf.local("yagi") as client:
            assert client.antenna.simulate(model="yagi", lengths=[1, 2.5]).gain == 3.5
        with EmbeddedServer("yagi", port=0) as server, Sheaf(server.url) as client:
            assert client.antenna.simulate(model="yagi", lengths=[1, 2]).gain == 3
            with client.antenna.stream(model="yagi", lengths=[4]) as stream:
                assert stream.final().gain == 4
            try:
                client.antenna.simulate(model="yagi", lengths=[1, 2], weights=[1])
            except InvalidRequestError as error:
                assert [(f.code, f.path) for f in error.errors] == [("same_length", "/weights")]
            else:
                raise SystemExit("the rule was not applied")
            document = httpx.get(server.url + "/openapi.json").json()
            assert "/yagi/antenna/simulate" in document["paths"]
            assert client.models.list()[0].operations == ["/yagi/antenna/simulate"]
        print("done")
    """)
    environment = {"PYTHONPATH": f"{generated}/sdk/src:{generated}/server/src", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip().endswith("done"), done.stderr


def test_the_command_checks_and_says_what_to_do(tmp_path: Path) -> None:
    schema = tmp_path / "schema"
    shutil.copytree(ROOT / "schema", schema)
    task = schema / "tasks/time_series.yaml"
    task.write_text(task.read_text().replace("maximum: 16384", "maximum: 99"))
    command = [sys.executable, "-m", "codegen", "--check", "--schema", str(schema)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "differs: sdk/src/sheaf_client/contracts/time_series.py" in done.stderr
    assert "nox -s codegen" in done.stderr
    document = json.loads((ROOT / "server/src/sheaf/http/document/openapi.json").read_text())
    assert document["components"]["schemas"]["TimeSeriesRequest"]["properties"]["horizon"]["maximum"] == 16384
