"""What backends of every model type share: refusing a request, spelling settings, naming what is missing.

Nothing here knows a model; libraries are touched only by the functions that take one's values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np

from sheaf.extras import missing
from sheaf_client.contracts.problem import Fault
from sheaf_client.errors import InvalidRequestError

P = ParamSpec("P")
T = TypeVar("T")


def refuse(path: str, message: str, code: str = "unsupported") -> InvalidRequestError:
    """The error for a request that one model cannot serve; `path` is a JSON Pointer into the body."""
    fault = Fault(code=code, path=path, message=message)
    return InvalidRequestError("This model cannot serve the request.", errors=[fault])


def attempt(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | InvalidRequestError:
    """What the call gives, or its refusal, which then stands in the place of one answer of a batch."""
    try:
        return call(*args, **kwargs)
    except InvalidRequestError as error:
        return error


def check_finite(path: str, message: str, *parts: Any, code: str = "unsupported") -> None:
    """Refuse the request that a model answered with NaN or infinity: what overflowed it is at `path`.

    Args:
        message: what the model does not give, and for what.
        parts: numbers and arrays of the answer, tensors on the CPU too; None is no part of it.
    """
    for part in parts:
        if part is not None and not np.isfinite(np.asarray(part)).all():
            raise refuse(path, message, code)


def missing_library(backend: str, extra: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    """The error for a backend whose library is not installed, with the command that installs it."""
    return missing(f"the backend {backend!r}", extra, error)


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
