"""Specs on their way to processes of other machines, with the backends that only this program knows.

Other processes find the backends of `sheaf.backends` and of installed packages by their names. A class that
a program registered itself, or gives as `backend_cls`, goes along; where its module is a file of the
program's and no installed package, so does its code, since nothing says that the file is there too.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from sheaf.registry import find_backend, is_packaged
from sheaf.spec import ModelSpec

#: Where installed packages and Python itself are.
_INSTALLED = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib", "stdlib"))
_OWN = ("sheaf", "sheaf_client")


def with_class(spec: ModelSpec) -> ModelSpec:
    """The spec with its backend's class, where other processes would not find that by its name."""
    if spec.backend_cls is not None or is_packaged(spec.backend):
        return spec
    return spec.model_copy(update={"backend_cls": find_backend(spec.backend)})


def pack(content: object, spec: ModelSpec) -> bytes:
    """What a process that Ray starts is to `unpack`: a spec as `with_class` gives it, or what holds one.

    Raises `ValueError` where it cannot be sent.
    """
    try:
        with _by_value(_modules_of(spec)):
            packed: bytes = _cloudpickle().dumps(content)
    except Exception as error:
        raise ValueError(
            f"{spec.name!r} cannot be sent to where models run: {error}. A backend that cannot be sent "
            "belongs in an installed package, with an entry point of the group `sheaf.backends`"
        ) from error
    return packed


def unpack(packed: bytes) -> Any:
    """What was packed; raises `ModuleNotFoundError` where its backend needs a module that is not here."""
    try:
        return _cloudpickle().loads(packed)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the backend's code imports {error.name!r}, which is not installed where models run: install it "
            "there, or have Ray bring it (`runtime_env` with `working_dir` or `py_modules`)",
            name=error.name,
        ) from error


def _modules_of(spec: ModelSpec) -> list[ModuleType]:
    """The modules of the program itself in which the spec's backend is written."""
    if spec.backend_cls is None:
        return []
    names = {cls.__module__ for cls in spec.backend_cls.__mro__}
    return [module for name in sorted(names) if (module := sys.modules.get(name)) and _is_program_s(module)]


def _is_program_s(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    # `__main__` goes by value anyway.
    if file is None or module.__name__ == "__main__" or module.__name__.partition(".")[0] in _OWN:
        return False
    path = Path(file).resolve()
    return not any(path.is_relative_to(folder) for folder in _INSTALLED)


@contextmanager
def _by_value(modules: list[ModuleType]) -> Generator[None]:
    """Have what is written in these modules pickled with its code, and not as a name to be imported."""
    cloudpickle = _cloudpickle()
    fresh = [m for m in modules if m.__name__ not in cloudpickle.list_registry_pickle_by_value()]
    for module in fresh:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in fresh:
            cloudpickle.unregister_pickle_by_value(module)


def _cloudpickle() -> Any:
    """Ray's own, which its processes have; annotated in part."""
    import ray.cloudpickle

    return ray.cloudpickle
