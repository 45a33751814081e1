"""Finds backends by name: those in `sheaf.backends`, in installed entry points, and those registered.

A backend module imports its model's library only in `load`, so looking through all of them is cheap and
nobody keeps a list by hand.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

import sheaf.backends
from sheaf.backends.base import ModelBackend
from sheaf.backends.declared import checked_class
from sheaf.settings import meant

ENTRY_POINT_GROUP = "sheaf.backends"

BackendT = TypeVar("BackendT", bound=type[Any])
_registered: dict[str, type[ModelBackend]] = {}
#: Further names, and the name that each stands for.
_aliases: dict[str, str] = {}


class UnknownBackendError(LookupError):
    """No backend has this name, and the message lists those there are; or its package is broken."""


def register_backend(name: str, *aliases: str) -> Callable[[BackendT], BackendT]:
    """Class decorator that gives a backend its name; a name belongs to one class.

    Args:
        name: What lists of backends call it.
        aliases: Names that find it too where no backend is called so; they are listed nowhere.
    """

    def register(cls: BackendT) -> BackendT:
        known = _registered.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"backend name {name!r} is taken by {known.__module__}.{known.__qualname__}")
        _registered[name] = cls
        _aliases.update(dict.fromkeys(aliases, name))
        return cls

    return register


def backend_names() -> list[str]:
    """Names of all backends that can be deployed."""
    _discover()
    return sorted({*_registered, *(entry.name for entry in entry_points(group=ENTRY_POINT_GROUP))})


def find_backend(name: str) -> type[ModelBackend]:
    """The backend class of that name, or alias; raises `UnknownBackendError`."""
    if name not in _registered:
        _discover()
        name = _aliases.get(name, name)
    if name not in _registered:
        for entry in entry_points(group=ENTRY_POINT_GROUP):
            if entry.name == name:
                _registered[name] = _loaded(entry)
    if name not in _registered:
        names = backend_names()
        near = meant(name, names) or ";"
        raise UnknownBackendError(f"no backend is called {name!r}{near} there are: {', '.join(names)}")
    return _registered[name]


def _loaded(entry: EntryPoint) -> type[ModelBackend]:
    try:
        return checked_class(entry.load())
    except Exception as error:
        kind = type(error).__name__
        raise UnknownBackendError(
            f"the backend {entry.name!r} is {entry.value!r} of another package, which cannot be used: "
            f"{kind}: {error}"
        ) from error


def is_packaged(name: str) -> bool:
    """Whether any process with these packages finds the same backend by that name.

    Not so for one that a program registered in its own modules: only those who import them know it.
    """
    cls = find_backend(name)
    if cls.__module__.startswith("sheaf.backends."):
        return True
    place = f"{cls.__module__}:{cls.__qualname__}"
    return any(entry.value == place for entry in entry_points(group=ENTRY_POINT_GROUP) if entry.name == name)


def is_backend(name: Any) -> bool:
    """Whether a backend has this name, or alias."""
    try:
        return isinstance(name, str) and bool(find_backend(name))
    except UnknownBackendError:
        return False


def name_of(cls: type[ModelBackend]) -> str:
    """The name that a backend class, or the nearest it extends, is registered under; else its class path."""
    names = {known: name for name, known in _registered.items()}
    path = f"{cls.__module__}.{cls.__qualname__}"
    return next((names[kind] for kind in cls.__mro__ if kind in names), path)


def _discover() -> None:
    for module in pkgutil.iter_modules(sheaf.backends.__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"sheaf.backends.{module.name}")
