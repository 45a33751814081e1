"""What loading a model has in common: libraries that may be missing, weights that must be there, threads."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from importlib import import_module
from typing import Any, TypeVar

from sheaf.backends.base import ModelBackend
from sheaf.extras import needs
from sheaf.registry import name_of

T = TypeVar("T")

#: Names of weights that an error tells at most.
_TOLD = 3


@contextmanager
def libraries_of(backend: ModelBackend, extra: str | None = None) -> Generator[None]:
    """Imports of a backend: a library that is missing is told with the command that installs it.

    Args:
        extra: The extra that brings what is imported; the backend's own by default.
    """
    named = backend.info.extra if extra is None and backend.info is not None else extra or "all"
    with needs(f"the backend {name_of(type(backend))!r}", named):
        yield


def import_libraries(backend: ModelBackend) -> None:
    """Import what the backend's `info` names; raises `ModuleNotFoundError` as `libraries_of` does."""
    with libraries_of(backend):
        for name in () if backend.info is None else backend.info.libraries:
            import_module(name)


def loaded(part: T | None) -> T:
    """A part of a backend that `load` makes; raises `RuntimeError` before that."""
    if part is None:
        raise RuntimeError("load() has not been called")
    return part


def check_weights(checkpoint: object, lacking: Iterable[str]) -> None:
    """Raise `ValueError` for weights that a checkpoint lacks: libraries fill them with random numbers."""
    names = sorted(lacking)
    if names:
        more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
        raise ValueError(f"the checkpoint {checkpoint} lacks the weights {', '.join(names[:_TOLD])}{more}")


def use_threads(count: int | None) -> None:
    """Set torch's threads, which belong to the whole process; nothing where `count` is None."""
    if count is not None:
        import torch

        torch.set_num_threads(count)


def free_device(device: Any) -> None:
    """Give memory that nothing holds any more back to the device, where that is a GPU."""
    if str(device).startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
