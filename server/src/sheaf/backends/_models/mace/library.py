"""Imports MACE and leaves the process as it was.

On import the library lets every `torch.load` of the process run code, since e3nn, which it is built on, reads
a table of its own that way.
"""

from __future__ import annotations

import importlib
import os
import threading
from typing import Any

_VARIABLE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
_lock = threading.Lock()


def mace(module: str) -> Any:
    """A module of the library or of e3nn, such as `mace.modules`."""
    with _lock:
        before = os.environ.get(_VARIABLE)
        os.environ[_VARIABLE] = "1"
        try:
            return importlib.import_module(module)
        finally:
            if before is None:
                os.environ.pop(_VARIABLE, None)
            else:
                os.environ[_VARIABLE] = before
