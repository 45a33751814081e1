"""Measures the memory behind an object, so that what is kept between requests stays within its bound.

Libraries do not say how large a fitted model is, and the arrays and tensors in it, nearly all of it, tell
Python's own `sys.getsizeof` nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

#: What belongs to the program, not to an object.
_PROGRAM = (type, ModuleType, FunctionType, MethodType, BuiltinFunctionType)
_CONTAINERS = (list, tuple, set, frozenset)


def bytes_of(*objects: object, shared: Iterable[object] = ()) -> int:
    """Bytes of memory that objects hold together, arrays and tensors included, each counted once.

    Args:
        objects: What is measured, with all that its attributes and items lead to.
        shared: What others hold too, such as a model's weights: it does not count, nor what it leads to.
    """
    seen = {id(other) for other in shared}
    storages: set[int] = set()
    waiting: list[Any] = list(objects)
    size = 0
    while waiting:
        item = waiting.pop()
        if item is None or id(item) in seen or isinstance(item, _PROGRAM):
            continue
        seen.add(id(item))
        if hasattr(item, "untyped_storage"):  # a torch tensor; several may share their storage
            storage = item.untyped_storage()
            size += 0 if storage.data_ptr() in storages else storage.nbytes()
            storages.add(storage.data_ptr())
            continue
        if hasattr(item, "nbytes") and hasattr(item, "base"):  # a numpy array, or a view into another
            if hasattr(item.base, "nbytes"):
                waiting.append(item.base)
            else:
                size += int(item.nbytes)
                waiting += item.ravel().tolist() if item.dtype.hasobject else ()
            continue
        size += sys.getsizeof(item)
        waiting += _within(item)
    return size


def _within(item: object) -> list[Any]:
    """What an object leads to: its items, and its attributes whether in a dictionary or in slots."""
    found: list[Any] = []
    items: Any = item
    if isinstance(item, _CONTAINERS):
        found += items
    elif isinstance(item, Mapping):
        found += [part for pair in items.items() for part in pair]
    whole: object = items
    attributes: dict[str, Any] = getattr(whole, "__dict__", {})
    found += attributes.values()
    for cls in type(whole).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        names = (slots,) if isinstance(slots, str) else slots
        found += (getattr(whole, name, None) for name in names if name not in ("__dict__", "__weakref__"))
    return found
