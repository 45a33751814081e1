"""The order of imports: light packages stay light, and data flows one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "server/src/sheaf"


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*{{m.partition('.')[0] for m in sys.modules}})"
    return set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
    )


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import sheaf_client", {"pydantic", "httpx", "numpy", "torch", "ray"}),
        ("import sheaf_client.errors", {"pydantic", "httpx"}),
        ("import sheaf", {"ray", "torch", "pydantic", "starlette"}),
        ("from sheaf import ModelSpec", {"ray", "torch", "statsforecast", "uvicorn"}),
        ("from sheaf_client import Sheaf; Sheaf()", {"torch", "ray", "sheaf", "starlette"}),
        (
            "from sheaf.registry import backend_names; backend_names()",
            {"torch", "ray", "statsforecast", "pandas"},
        ),
        ("from sheaf.local import LocalModels", {"ray", "torch", "httpx", "uvicorn", "opentelemetry"}),
        ("from sheaf.batch import BatchRunner", {"ray", "torch", "uvicorn"}),
        ("from sheaf.worker import SheafWorker", {"redis", "ray", "torch", "uvicorn"}),
        ("from sheaf.modal_server import ModalServer", {"modal", "ray", "torch"}),
    ],
)
def test_an_import_loads_no_more_than_it_needs(statement: str, absent: set[str]) -> None:
    assert loaded_by(statement) & absent == set()


#: Layer → what it may import of `sheaf`; the engine knows no HTTP and no host, backends know no engine.
#: Batches and workers are hosts of models in this process.
#: The policies of scheduling are pure, so backends may cut what they are given by them.
ALLOWED = {
    "batch": {
        "batch",
        "carried",
        "extras",
        "local",
        "observability",
        "ray_errors",
        "records",
        "settings",
        "spec",
    },
    "worker": {"extras", "local", "records", "spec", "worker"},
    "scheduling": {"scheduling"},
    "backends": {"api", "backends", "extras", "interrupts", "lora", "registry", "scheduling"},
    "engine": {"backends", "cache", "engine", "interrupts", "lora", "scheduling", "spec"},
    "http": {"document", "engine", "http", "interrupts", "observability", "registry", "settings", "spec"},
    "observability": {"engine", "environment", "extras", "observability"},
}


@pytest.mark.parametrize("layer", sorted(ALLOWED))
def test_no_import_goes_back(layer: str) -> None:
    found = {
        (path.relative_to(SERVER).as_posix(), name.split(".")[1])
        for path in (SERVER / layer).rglob("*.py")
        for name in imported_modules(path)
        if name.startswith("sheaf.")
    }
    assert found, "the layer imports nothing of the package: is the path right?"
    assert {(path, part) for path, part in found if part not in ALLOWED[layer]} == set()


def imported_modules(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {
                f"{node.module}.{alias.name}" if node.module == "sheaf" else node.module
                for alias in node.names
            }
    return names


def test_only_the_schema_its_backend_and_tests_name_a_model_type() -> None:
    from sheaf_client.contracts.base import ModelType

    # "audio" is a kind of file too, which any contract may carry.
    types = {t.value for t in ModelType} - {"audio"}
    sources = [*SERVER.rglob("*.py"), *(ROOT / "sdk/src").rglob("*.py"), *(ROOT / "codegen").glob("*.py")]
    generated = ("/api/", "/contracts/", "/operations/", "/params/", "/resources/", "_routes.py")
    checked = [path for path in sources if not any(p in path.as_posix() for p in (*generated, "/backends/"))]
    assert len(checked) > 30
    named = {
        path.relative_to(ROOT).as_posix()
        for path in checked
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in types
    }
    assert named == set()
