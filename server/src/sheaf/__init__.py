"""Sheaf: typed serving for foundation models that are not text LLMs.

Names are imported when they are first used, so that `import sheaf` loads neither Ray nor torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sheaf.hosts.modal import ModalServer
    from sheaf.hosts.ray import ModelServer, build_app
    from sheaf.spec import ModelSpec, ResourceConfig

__all__ = ["ModalServer", "ModelServer", "ModelSpec", "ResourceConfig", "build_app"]
__version__ = "0.1.0"

_HOMES = {
    "ModalServer": "sheaf.hosts.modal",
    "ModelServer": "sheaf.hosts.ray",
    "ModelSpec": "sheaf.spec",
    "ResourceConfig": "sheaf.spec",
    "build_app": "sheaf.hosts.ray",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'sheaf' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
