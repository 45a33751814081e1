"""Refuses a request that one model cannot serve, in its own place among the others of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ParamSpec, TypeVar

import numpy as np

from sheaf_client.contracts.problem import Fault
from sheaf_client.errors import InvalidRequestError

P = ParamSpec("P")
T = TypeVar("T")
ItemT = TypeVar("ItemT")
PreparedT = TypeVar("PreparedT")


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


def compute_together(
    items: Sequence[ItemT],
    prepare: Callable[[ItemT], PreparedT],
    compute: Callable[[Sequence[PreparedT]], Sequence[T]],
) -> list[T | InvalidRequestError]:
    """Prepare each item, compute those that could be prepared in one call, and give all in their order.

    Args:
        prepare: makes of an item what is computed; may refuse it, which then stands in its place.
        compute: the outcomes of what was prepared, in its order; not called for nothing.
    """
    prepared = [attempt(prepare, item) for item in items]
    ready = [each for each in prepared if not isinstance(each, InvalidRequestError)]
    outcomes = iter(compute(ready) if ready else ())
    return [each if isinstance(each, InvalidRequestError) else next(outcomes) for each in prepared]


def answer_each(
    build: Callable[[ItemT, PreparedT], T], items: Iterable[ItemT], results: Iterable[PreparedT]
) -> list[T | InvalidRequestError]:
    """What `build` makes of each item and its result; where it refuses, the refusal in the place of that."""
    return [attempt(build, item, result) for item, result in zip(items, results, strict=True)]


def check_finite(path: str, message: str, *parts: Any, code: str = "unsupported") -> None:
    """Refuse the request that a model answered with NaN or infinity: what overflowed it is at `path`.

    Args:
        message: what the model does not give, and for what.
        parts: numbers and arrays of the answer, tensors on the CPU too; None is no part of it.
    """
    for part in parts:
        if part is not None and not np.isfinite(np.asarray(part)).all():
            raise refuse(path, message, code)
