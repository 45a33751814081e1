"""The order of imports: light packages stay light, and data flows one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
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
        ("from sheaf.embedded import EmbeddedServer", {"modal", "ray", "torch"}),
        ("from sheaf.modal_server import ModalServer", {"modal", "ray", "torch"}),
    ],
)
def test_an_import_loads_no_more_than_it_needs(statement: str, absent: set[str]) -> None:
    assert loaded_by(statement) & absent == set()


def test_a_server_imports_the_contracts_of_the_types_that_it_serves_alone() -> None:
    code = """
import sys, sheaf.http.app
from sheaf.contract.operations import operations_of
types = lambda: {m.rpartition(".")[2] for m in sys.modules if m.startswith("sheaf_client.contracts.")}
before = types()
assert operations_of("weather").only is not None
print(*sorted(types() - before))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "weather" in done.stdout.split()
    assert "time_series" not in done.stdout.split()


#: Each module or package of `sheaf` → what it may import of the others, from the floor up: the engine knows
#: no HTTP and no host, backends know no engine. Imports in functions count, and those for types alone.
ALLOWED: dict[str, set[str]] = {
    # What knows nothing of models.
    "document": set(),
    "environment": set(),
    "extras": set(),
    "interrupts": set(),
    "lora": set(),
    "lru": set(),
    "ray_errors": set(),
    "settings": set(),
    "cache": {"environment"},
    # The policies are pure, so backends may cut what they are given by them.
    "scheduling": {"scheduling"},
    # The contract: what the schema gives, and how requests are read and outcomes written.
    "api": {"api"},
    "contract": {"api", "contract"},
    # Models, and what a deployment says of one.
    "backends": {
        "api",
        "backends",
        "contract",
        "extras",
        "interrupts",
        "lora",
        "lru",
        "registry",
        "scheduling",
    },
    "registry": {"backends", "settings"},
    "spec": {"backends", "cache", "contract", "lora", "registry", "scheduling", "settings"},
    "carried": {"registry", "spec"},
    "catalogue": {"backends", "registry"},
    "openapi": {"backends", "document", "spec"},
    # Running them.
    "engine": {"backends", "cache", "contract", "engine", "interrupts", "lora", "lru", "scheduling", "spec"},
    "observability": {"engine", "environment", "extras", "observability"},
    "local": {"backends", "contract", "engine", "observability", "spec"},
    # Ways to them. Batches and workers are hosts of models in this process.
    "http": {
        *("contract", "document", "engine", "http", "interrupts"),
        *("observability", "registry", "settings", "spec"),
    },
    "batch": {
        *("batch", "carried", "contract", "extras", "local"),
        *("observability", "ray_errors", "settings", "spec"),
    },
    "worker": {"contract", "extras", "local", "spec", "worker"},
    "hosts": {
        *("carried", "engine", "extras", "hosts", "http", "local"),
        *("observability", "ray_errors", "spec"),
    },
    # Where programs import the hosts from.
    "embedded": {"hosts"},
    "modal_server": {"hosts"},
    "server": {"hosts"},
    "cli": {
        *("batch", "catalogue", "hosts", "http", "observability"),
        *("openapi", "settings", "spec", "worker"),
    },
    "__main__": {"cli"},
    "__init__": {"hosts", "spec"},
}
#: Every module of `sheaf` by its dotted name; a package's is that of its `__init__`.
MODULES = {
    ".".join(path.relative_to(SERVER.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(SERVER.rglob("*.py"))
}


def part_of(path: Path) -> str:
    return path.relative_to(SERVER).parts[0].removesuffix(".py")


@pytest.mark.parametrize("part", sorted({part_of(path) for path in MODULES.values()}))
def test_each_part_imports_what_its_row_of_the_table_allows(part: str) -> None:
    assert part in ALLOWED, f"sheaf.{part} has no row in the table"
    found = {
        (path.relative_to(SERVER).as_posix(), name.split(".")[1])
        for path in MODULES.values()
        if part_of(path) == part
        for name in imported_modules(path)
        if name.startswith("sheaf.")
    }
    assert {(path, other) for path, other in found if other not in ALLOWED[part]} == set()
    assert ALLOWED[part] - {other for _, other in found} == set(), "the row allows what nobody needs"


def test_the_modules_import_each_other_in_no_circle() -> None:
    needed = {
        module: {other for name in imported_modules(path) if (other := module_of(name)) not in (None, module)}
        for module, path in MODULES.items()
    }
    assert len(needed) > 100
    assert "sheaf.contract.operations" in needed["sheaf.http.endpoints"]
    order = list(TopologicalSorter(needed).static_order())  # raises `CycleError`, which shows the circle
    assert set(order) == set(MODULES)


def module_of(name: str) -> str | None:
    """The module of `sheaf` that an imported name is, or is in."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name or None


BACKENDS = SERVER / "backends"
#: What authors of backends write against; every other public module of `backends` is one model.
AUTHORING = {
    "base",
    "contexts",
    "declared",
    "info",
    "loops",
    "operations",
    "owners",
    "rendezvous",
    "stepwise",
}


def place_in_backends(module: Path | str) -> tuple[str, str]:
    """Which floor of `backends` a file or a dotted name is on, and of which model it is."""
    if isinstance(module, Path):
        parts = module.relative_to(BACKENDS).with_suffix("").parts
    else:
        parts = tuple(module.split(".")[2:])
    if parts[0] in AUTHORING or parts[0] == "__init__":
        return "authoring", ""
    if parts[0] in {"_shared", "_families", "_models"}:
        return parts[0].lstrip("_"), parts[1] if parts[0] == "_models" and len(parts) > 1 else ""
    return "models", parts[0]


def test_models_import_families_families_what_is_shared_and_no_model_another() -> None:
    floors = ["authoring", "shared", "families", "models"]
    met: set[str] = set()
    wrong: set[tuple[str, str]] = set()
    for path in BACKENDS.rglob("*.py"):
        floor, model = place_in_backends(path)
        met.add(floor)
        for name in imported_modules(path):
            if not name.startswith("sheaf.backends."):
                continue
            other, its_model = place_in_backends(name)
            upwards = floors.index(other) > floors.index(floor)
            if upwards or (floor == other == "models" and its_model != model):
                wrong.add((path.relative_to(BACKENDS).as_posix(), name))
    assert met == set(floors)
    assert wrong == set()


def test_every_public_module_that_is_for_no_author_is_a_model() -> None:
    from sheaf.registry import backend_names, find_backend

    public = {path.stem for path in BACKENDS.glob("*.py") if not path.stem.startswith("_")} - AUTHORING
    assert public == {find_backend(name).__module__.rpartition(".")[2] for name in backend_names()}


def test_older_names_of_the_loops_are_the_same_classes() -> None:
    from sheaf.backends import loops, rendezvous

    assert rendezvous.RendezvousBackend is loops.LoopBackend
    assert rendezvous.Course is loops.LibraryLoop
    assert rendezvous.CourseCancelled is loops.LoopCancelled


def test_hosts_are_the_same_classes_under_the_names_that_programs_import() -> None:
    from sheaf import embedded, hosts, modal_server, server

    assert embedded.EmbeddedServer is hosts.embedded.EmbeddedServer
    assert modal_server.ModalServer is hosts.modal.ModalServer
    assert server.ModelServer is hosts.ray.ModelServer
    assert server.UpdateFailedError is hosts.ray.UpdateFailedError


def imported_modules(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_only_the_schema_its_backend_and_tests_name_a_model_type() -> None:
    from sheaf_client.contracts.base import ModelType

    # "audio" is a kind of file too, which any contract may carry.
    types = {t.value for t in ModelType} - {"audio"}
    sources = [*SERVER.rglob("*.py"), *(ROOT / "sdk/src").rglob("*.py"), *(ROOT / "codegen").glob("*.py")]
    generated = ("/api/", "/contracts/", "/operations/", "/params/", "/resources/", "/backends/")
    checked = [path for path in sources if not any(part in path.as_posix() for part in generated)]
    assert len(checked) > 30
    named = {
        path.relative_to(ROOT).as_posix()
        for path in checked
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in types
    }
    assert named == set()
