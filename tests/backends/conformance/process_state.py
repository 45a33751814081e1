"""What belongs to the whole process and no model may change: threads, seeds, dtypes, environment, filters."""

from __future__ import annotations

import gc
import logging
import os
import random
import sys
import types
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

#: Variables that libraries set as they are imported: threadpoolctl, and with it what builds on scikit-learn.
_OF_IMPORTS = {"KMP_DUPLICATE_LIB_OK"}
#: What leads to everything that the process holds.
_LEADS_AWAY = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.CodeType)


def process_state() -> dict[str, Any]:
    """What is global, by names; of torch only where it is imported."""
    found: dict[str, Any] = {
        "environment": {name: value for name, value in os.environ.items() if name not in _OF_IMPORTS},
        "directory": Path.cwd(),
        "warnings filters": list(warnings.filters),
        "recursion limit": sys.getrecursionlimit(),
        "exception hook": sys.excepthook,
        "logging": (logging.getLogger().level, list(logging.getLogger().handlers)),
        "random": random.getstate(),
        "numpy's generator": tuple(map(str, _generator_of_numpy())),
        "numpy's errors": np.geterr(),
    }
    torch = sys.modules.get("torch")
    return found if torch is None else found | _of_torch(torch)


def stir() -> None:
    """Draw from the global generators, so that one that is given the same seed again is seen."""
    random.random()
    np.random.random()
    if (torch := sys.modules.get("torch")) is not None:
        torch.rand(1)


def changed(before: dict[str, Any]) -> list[str]:
    """The names of what has changed since `process_state` was taken."""
    now = process_state()
    return [name for name, value in before.items() if now[name] != value]


def tensors_of(owner: object) -> list[weakref.ref[Any]]:
    """The tensors that an object leads to by its attributes and what they hold, without holding them."""
    torch: Any = sys.modules.get("torch")
    found: list[weakref.ref[Any]] = []
    seen: set[int] = set()
    ahead: list[object] = [] if torch is None else [vars(owner)]
    while ahead:
        each = ahead.pop()
        if id(each) in seen or isinstance(each, _LEADS_AWAY):
            continue
        seen.add(id(each))
        if issubclass(type(each), torch.Tensor):
            found.append(weakref.ref(each))
        else:
            ahead += gc.get_referents(each)
    return found


@contextmanager
def young_heap() -> Iterator[None]:
    """A collection within it looks at what was made within it alone, which takes milliseconds."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def held_still(tensors: list[weakref.ref[Any]]) -> int:
    """How many of them something holds."""
    gc.collect()
    return sum(each() is not None for each in tensors)


def _generator_of_numpy() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state()
    return name, np.asarray(keys).tobytes().hex(), *rest


def _of_torch(torch: Any) -> dict[str, Any]:
    return {
        "torch's threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "torch's dtype": torch.get_default_dtype(),
        "torch's device": torch.get_default_device(),
        "torch's gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "torch's generator": torch.random.get_rng_state().numpy().tobytes(),
        "torch's precision": torch.get_float32_matmul_precision(),
        "torch's determinism": torch.are_deterministic_algorithms_enabled(),
        "torch's initialisers": torch.nn.init.normal_.__module__,
    }
