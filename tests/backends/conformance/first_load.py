"""The first load of a process, which imports the libraries: what it changes shows in a new process alone.

`changed_by_first_load` starts one, in an environment that no library of this process has changed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from sheaf.backends.base import ModelBackend
from sheaf.spec import ModelSpec
from sheaf_client.contracts.base import BaseRequest
from tests.backends.conformance.process_state import changed, process_state, stir

ROOT = Path(__file__).parents[3]
#: Variables that a process cannot do without, or that say where files are; Python's own are kept too.
KEPT = {"PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "VIRTUAL_ENV", "SYSTEMROOT"}


#: What was found, by backend: it is the imports that matter, and they are the same for all its settings.
_FOUND: dict[type[ModelBackend], list[str]] = {}


def changed_by_first_load(
    backend_class: type[ModelBackend], settings: Mapping[str, Any], request: BaseRequest
) -> list[str]:
    """What loading a model, warming it up and one answer change in a process that has done nothing before."""
    if backend_class not in _FOUND:
        _FOUND[backend_class] = _changed_by_first_load(backend_class, settings, request)
    return _FOUND[backend_class]


def _changed_by_first_load(
    backend_class: type[ModelBackend], settings: Mapping[str, Any], request: BaseRequest
) -> list[str]:
    asked = {
        "backend": path_of(backend_class),
        "settings": dict(settings),
        "contract": path_of(type(request)),
        "request": request.model_dump_json(),
    }
    kept = {name: value for name, value in os.environ.items() if name in KEPT or name.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        input=json.dumps(asked, default=os.fspath),
        env={**kept, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def path_of(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def main() -> None:
    asked = json.load(sys.stdin)
    backend_class = resolve_name(asked["backend"])
    request = resolve_name(asked["contract"]).model_validate_json(asked["request"])
    spec = ModelSpec(name="m", backend_cls=backend_class, backend_kwargs=asked["settings"])
    if backend_class.info is not None and "torch" in backend_class.info.libraries:
        import torch  # noqa: F401 - its settings belong to the picture, as they are when it is imported
    stir()
    before = process_state()
    backend = spec.make_backend()
    backend.load()
    backend.warm_up()
    backend.predict(request)
    print(json.dumps(changed(before)))


if __name__ == "__main__":
    main()
