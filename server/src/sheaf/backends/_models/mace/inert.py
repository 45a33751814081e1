"""Reads a pickled model as data: its tree of modules, settings and weights, with none of its code.

The library pickles a model as a whole, and a pickle may call whatever it names. Here it may name tensors, the
numbers of numpy, irreducible representations and activations; all else becomes an inert object that only
holds what it was given. From it come the settings and weights that a model is rebuilt from.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch

from sheaf.backends._models.mace.library import mace

_torch: Any = torch

#: What a file may name and get: values without effects. Storages of tensors are torch's own affair.
_TRUSTED = {
    "_codecs": {"encode"},
    "builtins": {"complex", "frozenset", "list", "set", "slice"},
    "collections": {"OrderedDict"},
    "e3nn.o3._irreps": {"Irrep", "Irreps", "_MulIr"},
    "numpy": {"dtype", "float32", "float64", "int64", "ndarray"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "torch": {"Size", "abs", "device", "float32", "float64", "int64", "tanh"},
    "torch._C._nn": {"silu"},
    "torch._utils": {"_rebuild_parameter", "_rebuild_tensor_v2"},
    "torch.nn.functional": {"silu", "tanh"},
}


class Inert:
    """An object of a class that was not imported, with the state that the file gives it."""

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        return object.__new__(cls)

    def __init__(self, *args: Any, **_: Any) -> None:
        self.__dict__["_arguments"] = args

    def __setstate__(self, state: Any) -> None:
        parts = cast("Sequence[Any]", state) if isinstance(state, tuple) else (state,)
        for part in parts:
            if isinstance(part, dict):
                self.__dict__.update(cast("dict[str, Any]", part))

    def __getattr__(self, name: str) -> Any:
        for held in ("_parameters", "_buffers", "_modules"):
            found: dict[str, Any] = self.__dict__.get(held, {})
            if name in found:
                return found[name]
        raise AttributeError(name)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Any:
        return self._items[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    @property
    def _items(self) -> list[Any]:
        """What a list of modules or parameters holds."""
        held: dict[str, Any] = self.__dict__.get("_modules") or self.__dict__.get("_parameters") or {}
        return list(held.values())

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
        """The weights below, by the names that the library's module has them under in its state."""
        passing: set[str] = self.__dict__.get("_non_persistent_buffers_set", set())
        for held in ("_parameters", "_buffers"):
            for name, value in self.__dict__.get(held, {}).items():
                if isinstance(value, torch.Tensor) and name not in passing:
                    yield prefix + name, value
        for name, module in self.__dict__.get("_modules", {}).items():
            if isinstance(module, Inert):
                yield from module.tensors(f"{prefix}{name}.")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if global_name in _TRUSTED.get(module_name, ()):
            return getattr(mace(module_name), global_name)
        return type(global_name, (Inert,), {"__module__": module_name})


def read_inert(path: Path) -> Inert:
    """The model in a file of the library's, as data.

    Raises `ValueError` where the file is no such model, or is built of what cannot be read as data.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not a file that torch writes")
    with zipfile.ZipFile(path) as archive:
        if any(name.endswith("constants.pkl") for name in archive.namelist()):
            raise ValueError(f"{path} is a compiled program, not a model")
    reader = SimpleNamespace(Unpickler=_Unpickler, load=None, __name__="pickle")
    try:
        model = _torch.load(path, map_location="cpu", pickle_module=reader, weights_only=False)
    except Exception as error:
        raise ValueError(f"{path} cannot be read as data: {error}") from error
    if not isinstance(model, Inert):
        raise ValueError(f"{path} holds a {type(model).__name__}, not a model")
    return model
