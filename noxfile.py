"""The project's tasks. `nox -l` lists them; `.ci/run` calls the same ones."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
import time
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["tests"]
nox.options.reuse_existing_virtualenvs = True

#: Exact versions of all that an environment holds, as constraints of pip; made by `nox -s lock`.
LOCKS = Path("locks")
TYPESCRIPT = Path("clients/typescript")
#: Installed before anything that wants torch; a newer one brings gigabytes of CUDA along.
TORCH = "torch==2.13.0"
#: Programs that tests drive, with the packages of Debian that hold them.
CHROMIUM, REDIS = ("chromium", "chromium"), ("redis-server", "redis-server")
#: What builds both packages: its versions are taken from the lock, too.
BUILD = ("editables", "hatchling>=1.27", "setuptools", "wheel")
#: Installs what is locked.
UV = "uv>=0.13"

#: Tools that generate code are pinned exactly: another version writes other code.
CODEGEN = (
    *("datamodel-code-generator==0.89.0", "openapi-python-client==0.29.1", "openapi-spec-validator>=0.9"),
    *("ruff==0.17.5", "jinja2>=3.1", "pyyaml>=6.0"),
)
TESTING = (
    *("hypothesis>=6.100", "playwright>=1.50", "promql-parser>=0.5", "psutil>=6", "pytest>=8.3"),
    *("pytest-timeout>=2.3", "pytest-xdist>=3.6", "schemathesis>=4.32"),
)
#: What people of these fields hold; the client recognises it and never imports it.
HELD = (
    *("ase>=3.23", "biopython>=1.83", "pillow>=10.3", "polars>=1.0", "pyarrow>=15"),
    *("pymatgen>=2024.8", "rdkit>=2024.3", "xarray>=2024.6"),
)
#: Pinned too: another version finds other things.
CHECKERS = ("mypy==2.4.1", "pyright==1.1.414", "pandas-stubs>=2.2", "types-PyYAML>=6.0", "nox>=2024.10.9")
PLOTS = ("matplotlib>=3.8",)
#: Files of tests run on two cores at a time; a cluster of Ray often wants both.
PARALLEL = ("--numprocesses", "2", "--dist", "loadfile")
#: So many tests that failed beside others have one more go.
ONCE_MORE = 3
#: Before what is run beside Ray: Ray waits much, and gets a core back where it wants both.
PATIENTLY = ("nice", "-n", "10") if shutil.which("nice") else ()
#: Tests that need what the lowest versions are run without: Ray, transformers, diffusers, and what
#: generates code and checks documents.
BEYOND_LOWEST = (
    *("tests/attack/test_fuzzed_bodies.py", "tests/backends/diffusion"),
    *("tests/backends/materials/test_materials_held.py", "tests/backends/test_pretrained.py"),
    *("tests/batch/test_batch_parts.py", "tests/contract/test_served_document.py"),
    *("tests/documents/test_benchmarks.py", "tests/documents/test_published_samples.py"),
    *("tests/hosts/test_ray.py", "tests/hosts/test_ray_clusters.py"),
    *("tests/observability/test_ray.py", "tests/unit/test_catalogue.py"),
    *("tests/unit/test_codegen.py", "tests/unit/test_codegen_typescript.py"),
    *("tests/unit/test_docs_routes.py", "tests/unit/test_imports.py"),
    *("tests/unit/test_migrating_page.py", "tests/unit/test_openapi.py"),
    *("tests/unit/test_public_surface.py",),
)
#: The tests of a few minutes.
QUICK = "not ray and not torch and not browser and not node"


class Environment(NamedTuple):
    """What a session installs: both packages with these extras of the server, and tools beside them."""

    tools: tuple[str, ...]
    extras: tuple[str, ...] = ()
    torch: bool = False
    #: Takes the lowest versions that the packages allow for what they ask for, not the newest.
    lowest: bool = False

    @property
    def requirements(self) -> list[str]:
        project = ["-e", "./sdk", "-e", f"./server[{','.join(self.extras)}]"] if self.extras else []
        return [*project, *self.tools]


#: The environments, by the names of their locks.
ENVIRONMENTS = {
    "nox": Environment(("nox>=2024.10.9",)),
    "demo": Environment(PLOTS, ("statsforecast",)),
    "codegen": Environment(CODEGEN),
    #: Writes the documentation site; everything that its pages load comes with it.
    "docs": Environment(("mkdocs==1.6.1", "mkdocs-material==9.8.1")),
    "tests": Environment(
        (*CODEGEN, *TESTING, *HELD, *CHECKERS, *PLOTS),
        (
            *("diffusion", "materials", "mace-dispersion", "media", "proteins", "tabular", "time-series"),
            *("vision", "ray", "batch", "jobs", "modal", "otel"),
        ),
        torch=True,
    ),
    "lowest": Environment(
        (*TESTING, *HELD, "jinja2>=3.1", "nox>=2024.10.9", "pyarrow>=18,<19"),
        ("jobs", "media", "modal", "otel", "sklearn", "statsforecast"),
        torch=True,
        lowest=True,
    ),
}


def install(session: nox.Session, name: str, *, locked: bool = True) -> None:
    """Install an environment by its lock, and say how long that took and how large it is.

    With `locked=False` the newest versions that the packages' own bounds allow.
    """
    environment = ENVIRONMENTS[name]
    # The environment of a build is locked by a setting of its own.
    lock = str((LOCKS / f"{name}.txt").resolve())
    options = ["--constraint", lock] if locked else ["--upgrade", "--upgrade-strategy", "eager"]
    settings = {"PIP_BUILD_CONSTRAINT": lock} if locked else {}
    # Modules are compiled once, when they are first imported; most never are.
    session.env["PYTHONDONTWRITEBYTECODE"] = ""
    started = time.monotonic()
    if environment.torch:
        # By pip, whose settings may name a place that has it without CUDA; uv leaves what it finds.
        session.install("--no-compile", *options, TORCH, env=settings)
    if not locked or not install_by_uv(session, lock, environment.requirements):
        session.install(*options, *environment.requirements, env=settings)
    size = sum(file.lstat().st_size for file in Path(session.virtualenv.location).rglob("*"))
    session.log(f"environment {name}: {time.monotonic() - started:.0f} s, {size / 2**20:.0f} MiB")


def install_by_uv(session: nox.Session, lock: str, requirements: list[str]) -> bool:
    """Install these in a sixth of pip's time; `False` where uv cannot be had, fails, or would go elsewhere.

    Elsewhere than pip is told to: uv does not read pip's settings.
    """
    settings = str(session.run_install("python", "-m", "pip", "config", "list", silent=True, log=False))
    if re.search(r"\.(index-url|no-index)=", settings):
        return False
    try:
        session.install("--constraint", lock, UV)
        build = ("--build-constraint", lock)
        session.run_install(
            "uv", "pip", "install", "--constraint", lock, *build, *requirements, external="error", silent=True
        )
    except CommandFailed:
        session.warn("pip installs in the place of uv")
        return False
    return True


def build_typescript(session: nox.Session) -> None:
    """Install the TypeScript client's tools and build it; Node.js 20 or newer does the work."""
    if shutil.which("npm") is None:
        session.error("npm is missing: install Node.js 20 or newer")
    wanted, installed = TYPESCRIPT / "package-lock.json", TYPESCRIPT / "node_modules/.package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < wanted.stat().st_mtime:
        options = ("--no-audit", "--no-fund", "--silent")
        session.run("npm", "ci", "--prefix", str(TYPESCRIPT), *options, external=True)
    session.run("npm", "run", "--prefix", str(TYPESCRIPT), "--silent", "build", external=True)


def ensure_system(session: nox.Session, *programs: tuple[str, str]) -> None:
    """Programs of the system and the packages that hold them: as root on Debian they are installed here."""
    missing = [package for program, package in programs if shutil.which(program) is None]
    if not missing or not shutil.which("apt-get") or os.geteuid() != 0:
        return
    session.run_install("apt-get", "update", "-qq", external=True, silent=True)
    session.run_install("apt-get", "install", "-y", "-qq", *missing, external=True, silent=True)


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests, Python and TypeScript. Arguments go to pytest: `nox -s tests -- -k engine`."""
    system = partial(ensure_system, session, CHROMIUM, REDIS)
    side_by_side(session, partial(install, session, "tests"), system)
    build_typescript(session)
    if session.posargs:
        session.run("python", "-m", "pytest", *session.posargs)
    else:
        run_pytest(session, *PARALLEL, "-m", "not ray and not serial")

        def beside_ray() -> str:
            said = held(session, *PATIENTLY, "python", "-m", "pytest", "-m", "serial and not ray")
            return said + held(session, *PATIENTLY, "npm", "test", "--prefix", str(TYPESCRIPT), "--silent")

        side_by_side(session, partial(run_pytest, session, "-m", "ray"), beside_ray)


def run_pytest(session: nox.Session, *options: str) -> None:
    """Run tests; the few that fail have one more go, one by one, and are told by name.

    Some tests of ten thousand wait for threads, processes and clocks, which a busy machine may stop at any
    place for seconds. A fault fails once more.
    """
    cache = session.cache_dir / "pytest"  # `create_tmp` would move all temporary files here
    pytest = ("python", "-m", "pytest", "-o", f"cache_dir={cache.resolve()}")
    shutil.rmtree(cache, ignore_errors=True)
    try:
        session.run(*pytest, *options)
    except CommandFailed as error:
        kept = cache / "v" / "cache" / "lastfailed"
        failed = sorted(json.loads(kept.read_text("utf-8"))) if kept.exists() else []
        # Other statuses than 1 say that some tests did not run at all.
        if error.return_code != 1 or not 0 < len(failed) <= ONCE_MORE:
            raise
        session.warn(f"once more, one by one: {', '.join(failed)}")
        for test in failed:
            session.run(*pytest, test)
        session.warn(f"passed the second time alone: {', '.join(failed)}")


@nox.session
def quick(session: nox.Session) -> None:
    """Run the tests of a few minutes: no Ray, no torch, no browser."""
    install(session, "tests")
    run_quick_tests(session)


@nox.session
def newest(session: nox.Session) -> None:
    """Run the quick tests with the newest version of everything that our bounds allow, without locks."""
    install(session, "tests", locked=False)
    run_quick_tests(session)


@nox.session
def lowest(session: nox.Session) -> None:
    """Run the quick tests with the lowest versions that our bounds allow, of the packages that they use."""
    install(session, "lowest")
    run_quick_tests(session, *(f"--ignore={file}" for file in BEYOND_LOWEST))


def lower_bounds(extras: tuple[str, ...]) -> list[str]:
    """What both packages ask for as `name>=version`, as constraints `name==version`.

    torch stays as it is everywhere: its lowest version comes with gigabytes of CUDA.
    """
    client, server = (
        tomllib.loads(Path(folder, "pyproject.toml").read_text("utf-8"))["project"]
        for folder in ("sdk", "server")
    )
    asked = [*client["dependencies"], *server["dependencies"]]
    for extra in extras:
        asked += server["optional-dependencies"][extra]
    found = [re.match(r"([\w.-]+)(?:\[.*\])?>=([\d.]+)", each) for each in asked]
    return sorted({f"{each[1]}=={each[2]}" for each in found if each and each[1] != "torch"})


def run_quick_tests(session: nox.Session, *options: str) -> None:
    ensure_system(session, REDIS)
    for marks in (f"{QUICK} and not serial", f"{QUICK} and serial"):
        shared = PARALLEL if marks.endswith("not serial") else ()
        session.run("python", "-m", "pytest", *shared, "-m", marks, *options, *session.posargs)


@nox.session
def lock(session: nox.Session) -> None:
    """Write locks/ anew from the newest versions that our bounds allow; `-- demo docs` writes those alone.

    Run `nox -s newest` along with it, so that what newer versions break is known.
    """
    for name in session.posargs or ENVIRONMENTS:
        environment = ENVIRONMENTS[name]
        folder = Path(session.create_tmp()) / name
        session.run("python", "-m", "venv", "--clear", str(folder), silent=True)
        pip = (str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet")
        options: tuple[str, ...] = ()
        if environment.lowest:
            bounds = folder / "lowest.txt"
            bounds.write_text("\n".join(lower_bounds(environment.extras)) + "\n", encoding="utf-8")
            options = ("--constraint", str(bounds))
        if environment.torch:
            session.run(*pip, "install", *options, TORCH, external=True)
        session.run(*pip, "install", *options, *BUILD, UV, *environment.requirements, external=True)
        frozen = str(session.run(*pip, "freeze", "--all", "--exclude-editable", silent=True, external=True))
        (LOCKS / f"{name}.txt").write_text(constraints(frozen), encoding="utf-8")


def constraints(frozen: str) -> str:
    """What pip has installed, as constraints for other machines: no local builds, no drivers of a device."""
    lines = [line.split("+")[0] for line in frozen.splitlines() if "==" in line]
    kept = [line for line in lines if not re.match(r"pip==|triton==|cuda-|nvidia-.*-cu\d+|nvidia-cu", line)]
    python = ".".join(platform.python_version_tuple()[:2])
    header = f"# Made by `nox -s lock` with Python {python} on {platform.system()}; never edited by hand."
    return "\n".join([header, *sorted(kept, key=str.lower)]) + "\n"


@nox.session
def codegen(session: nox.Session) -> None:
    """Regenerate everything from schema/; with `-- --check` fail where anything differs."""
    install(session, "codegen")
    session.run("python", "-m", "codegen", *session.posargs)
    for name in ("openapi.json", "openapi-3.2.json"):
        session.run("openapi-spec-validator", f"server/src/sheaf/http/document/{name}", silent=True)


def environment_of(session: nox.Session, other: str) -> Path:
    """Install another session's environment, and find its programs: what it holds is installed once."""
    session.run(sys.executable, "-m", "nox", "-s", other, "--install-only", external=True)
    return Path(".nox", other, "Scripts" if os.name == "nt" else "bin").resolve()


@nox.session(venv_backend="none")
def backends(session: nox.Session) -> None:
    """Run the tests of all backends, or of some families: `nox -s backends -- time_series depth`."""
    python = environment_of(session, "tests") / "python"
    folders = [f"tests/backends/{family}" for family in session.posargs] or ["tests/backends"]
    session.run(str(python), "-m", "pytest", *PARALLEL, *folders, external=True)


@nox.session(venv_backend="none")
def breaking(session: nox.Session) -> None:
    """Tell what breaks callers of the last release; `-- --release` keeps the contract of a new one."""
    python = environment_of(session, "codegen") / "python"
    session.run(str(python), "-m", "codegen.breaking", *session.posargs, external=True)


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Check style and types, in the environment of the tests: ruff, pyright, mypy and tsc, all strict."""
    programs = environment_of(session, "tests")  # types are those of the libraries that tests use
    # pyright takes the libraries of the `python` that it finds first.
    path = {"PATH": os.pathsep.join([str(programs), os.environ["PATH"]])}

    def check(program: str, *arguments: str) -> str:
        # nox looks for a program on its own PATH, not on the one given: hence the whole name.
        return held(session, str(programs / program), *arguments, env=path)

    def mypy_and_typescript() -> str:
        said = check("mypy", "sdk/src", "server/src")
        build_typescript(session)
        return said + held(session, "npm", "run", "--prefix", str(TYPESCRIPT), "--silent", "typecheck")

    check("ruff", "check", ".")
    check("ruff", "format", "--check", ".")
    side_by_side(session, partial(check, "pyright"), mypy_and_typescript)


def held(session: nox.Session, *command: str, env: dict[str, str] | None = None) -> str:
    """Run a command and give back what it says; where it fails, nox prints that."""
    return str(session.run(*command, env=env, external=True, silent=True) or "")


def side_by_side(session: nox.Session, *tasks: Callable[[], object]) -> None:
    """Do these at the same time, each to its end; print texts that they give, fail where one has failed."""
    with ThreadPoolExecutor(len(tasks)) as pool:
        running = [pool.submit(task) for task in tasks]
    for task in sorted(running, key=lambda task: task.exception() is not None):
        said = task.result()
        if isinstance(said, str) and said.strip():
            session.log(said.strip())


@nox.session
def demo(session: nox.Session) -> None:
    """Forecast a real series in this process and through a server, and compare with what came."""
    install(session, "demo")
    session.run("python", "examples/airline_passengers.py", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into site/; a link that leads nowhere fails it. `-- serve` shows it."""
    install(session, "docs")
    command = session.posargs or ["build", "--strict"]
    session.run("mkdocs", *command, env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def vendor(session: nox.Session) -> None:
    """Fetch the documentation page's script from its package again."""
    session.run("python", "-m", "codegen.vendor", *session.posargs)
