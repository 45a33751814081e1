"""The project's tasks. `nox -l` lists them; `.ci/run` calls the same ones."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["tests"]
nox.options.reuse_existing_virtualenvs = True

#: Tools that generate code are pinned exactly: another version writes other code.
CODEGEN = [
    "datamodel-code-generator==0.89.0",
    "openapi-python-client==0.29.1",
    "openapi-spec-validator>=0.9",
    "ruff==0.17.5",
    "jinja2>=3.1",
    "pyyaml>=6.0",
]
TESTING = [
    *("hypothesis>=6.100", "playwright>=1.50", "promql-parser>=0.5", "psutil>=6", "pytest>=8.3"),
    *("pytest-timeout>=2.3", "schemathesis>=4.0"),
]
#: What people of these fields hold; the client recognises it and never imports it.
HELD = [
    *("ase>=3.23", "biopython>=1.83", "pillow>=10", "polars>=1.0", "pyarrow>=15"),
    *("pymatgen>=2024.8", "rdkit>=2024.3", "xarray>=2024.6"),
]
#: Pinned too: another version finds other things.
CHECKERS = ["mypy==2.4.1", "pyright==1.1.414", "pandas-stubs>=2.2", "types-PyYAML>=6.0", "nox>=2024.10.9"]
#: Installed before anything that wants torch; a newer one brings gigabytes of CUDA along.
TORCH = "torch==2.13.0"
#: Writes the documentation site; everything that its pages load comes with it.
DOCS = ["mkdocs==1.6.1", "mkdocs-material==9.8.1"]
#: Programs that tests drive, with the packages of Debian that hold them.
CHROMIUM, REDIS = ("chromium", "chromium"), ("redis-server", "redis-server")
TYPESCRIPT = Path("clients/typescript")


def install_project(session: nox.Session, *extras: str) -> None:
    """Install both packages from this checkout, editable, with the given extras of the server."""
    session.install("-c", "constraints.txt", "-e", "./sdk", "-e", f"./server[{','.join(extras)}]")


def install_everything(session: nox.Session) -> None:
    session.install(TORCH)
    install_project(session, "proteins", "time-series", "ray", "batch", "jobs", "modal", "otel")
    session.install("-c", "constraints.txt", *CODEGEN, *TESTING, *HELD, *CHECKERS, "matplotlib>=3.8")


def build_typescript(session: nox.Session) -> None:
    """Install the TypeScript client's tools and build it; Node.js 20 or newer does the work."""
    if shutil.which("npm") is None:
        session.error("npm is missing: install Node.js 20 or newer")
    session.run(
        "npm", "ci", "--prefix", str(TYPESCRIPT), "--no-audit", "--no-fund", "--silent", external=True
    )
    session.run("npm", "run", "--prefix", str(TYPESCRIPT), "--silent", "build", external=True)


def ensure_system(session: nox.Session, *programs: tuple[str, str]) -> None:
    """Programs of the system and the packages that hold them: as root on Debian they are installed here."""
    missing = [package for program, package in programs if shutil.which(program) is None]
    if not missing or not shutil.which("apt-get") or os.geteuid() != 0:
        return
    session.run("apt-get", "update", "-qq", external=True, silent=True)
    session.run("apt-get", "install", "-y", "-qq", *missing, external=True, silent=True)


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests, Python and TypeScript. Arguments go to pytest: `nox -s tests -- -k engine`."""
    install_everything(session)
    build_typescript(session)
    ensure_system(session, CHROMIUM, REDIS)
    session.run("python", "-m", "pytest", *session.posargs)
    if not session.posargs:
        session.run("npm", "test", "--prefix", str(TYPESCRIPT), "--silent", external=True)


@nox.session
def quick(session: nox.Session) -> None:
    """Run the tests of a few minutes: no Ray, no torch, no browser."""
    install_everything(session)
    ensure_system(session, REDIS)
    session.run(
        "python", "-m", "pytest", "-m", "not ray and not torch and not browser and not node", *session.posargs
    )


@nox.session
def codegen(session: nox.Session) -> None:
    """Regenerate everything from schema/; with `-- --check` fail where anything differs."""
    session.install(*CODEGEN)
    session.run("python", "-m", "codegen", *session.posargs)
    for name in ("openapi.json", "openapi-3.2.json"):
        session.run("openapi-spec-validator", f"server/src/sheaf/http/document/{name}", silent=True)


@nox.session
def breaking(session: nox.Session) -> None:
    """Tell what breaks callers of the last release; `-- --release` keeps the contract of a new one."""
    session.install(*CODEGEN)
    session.run("python", "-m", "codegen.breaking", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and types: ruff, pyright (strict), mypy (strict), tsc (strict)."""
    install_everything(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("pyright")
    session.run("mypy", "sdk/src", "server/src")
    build_typescript(session)
    session.run("npm", "run", "--prefix", str(TYPESCRIPT), "--silent", "typecheck", external=True)


@nox.session
def demo(session: nox.Session) -> None:
    """Forecast a real series in this process and through a server, and compare with what came."""
    install_project(session, "statsforecast")
    session.install("-c", "constraints.txt", "matplotlib>=3.8")
    session.run("python", "examples/airline_passengers.py", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into site/; a link that leads nowhere fails it. `-- serve` shows it."""
    session.install(*DOCS)
    command = session.posargs or ["build", "--strict"]
    session.run("mkdocs", *command, env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def vendor(session: nox.Session) -> None:
    """Fetch the documentation page's script from its package again."""
    session.run("python", "-m", "codegen.vendor", *session.posargs)
