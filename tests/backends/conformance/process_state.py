"""What belongs to the whole process and no model may change: threads, seeds, dtypes, environment, filters."""

from __future__ import annotations

import logging
import os
import random
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

#: What the names of variables of the environment begin with.
_VARIABLE = "environment: "
#: Variables that libraries set as they are imported: threadpoolctl, scikit-learn, torch's compiler, polars.
_OF_IMPORTS = {"KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "TORCHINDUCTOR_CACHE_DIR", "_RJEM_MALLOC_CONF"}


def process_state() -> dict[str, Any]:
    """What is global, by names; of torch only where it is imported."""
    found: dict[str, Any] = {
        **{_VARIABLE + name: value for name, value in os.environ.items() if name not in _OF_IMPORTS},
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
    # What is new is a change only among variables: torch's settings are there from its import on.
    names = [*before, *(name for name in now if name.startswith(_VARIABLE) and name not in before)]
    return [name for name in names if now.get(name) != before.get(name)]


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
