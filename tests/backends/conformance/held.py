"""What a loaded model holds, and whether something holds it still after the model was let go of."""

from __future__ import annotations

import gc
import sys
import types
import weakref
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from typing import Any

import numpy as np

#: What leads to everything that the process holds.
_LEADS_AWAY = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.CodeType, Enum)


def held_by(owner: object, libraries: Collection[str]) -> list[weakref.ref[Any]]:
    """The arrays, tensors and objects of its libraries that `owner` leads to, without holding them."""
    found: list[weakref.ref[Any]] = []
    seen: set[int] = set()
    ahead: list[object] = [vars(owner)]
    while ahead:
        each = ahead.pop()
        if id(each) in seen or isinstance(each, _LEADS_AWAY):
            continue
        seen.add(id(each))
        if _is_of_a_model(each, libraries):
            with suppress(TypeError):  # not everything can be watched
                found.append(weakref.ref(each))
        if not is_tensor(each):
            ahead += gc.get_referents(each)
    return found


def is_tensor(value: object) -> bool:
    torch: Any = sys.modules.get("torch")
    # Some objects lie about their class: what they stand for is looked up when it is asked for.
    return torch is not None and issubclass(type(value), torch.Tensor)


def _is_of_a_model(value: object, libraries: Collection[str]) -> bool:
    kind = type(value)
    return issubclass(kind, np.ndarray) or is_tensor(value) or kind.__module__.partition(".")[0] in libraries


def still_held(watched: Sequence[weakref.ref[Any]]) -> set[str]:
    """The kinds of those that something holds."""
    gc.collect()
    return {type(held).__qualname__ for each in watched if (held := each()) is not None}


@contextmanager
def young_heap() -> Iterator[None]:
    """A collection within it looks at what was made within it alone, which takes milliseconds."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
