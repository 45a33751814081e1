"""Settings of backends: those with an older spelling, and dtypes by name."""

from __future__ import annotations

from typing import Any


def one_of(name: str, value: Any, old_name: str, old_value: Any, default: Any) -> Any:
    """The value of a setting that has an older spelling too; `TypeError` where both are given and differ."""
    if value is not None and old_value is not None and value != old_value:
        raise TypeError(
            f"{name}={value!r} and {old_name}={old_value!r} are two spellings of one setting; give one"
        )
    return value if value is not None else old_value if old_value is not None else default


def torch_dtype(dtype: Any) -> Any:
    """The torch dtype of that name (`float32`, `bfloat16`, `float16`); others, and `auto`, as they are.

    Raises `ValueError` for a name that is no floating-point dtype.
    """
    if not isinstance(dtype, str) or dtype == "auto":
        return dtype
    import torch

    found = getattr(torch, dtype.removeprefix("torch."), None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"dtype must be float32, bfloat16, float16 or auto, not {dtype!r}")
    return found
