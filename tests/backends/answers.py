"""Compares answers of any contract: numbers within a tolerance, pictures within a shade, the rest exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel

from sheaf_client._media import ImageFile
from sheaf_client.errors import InvalidRequestError

#: What tells the calls apart, and not what was asked for.
CALL = frozenset({"request_id", "model_name", "metadata"})


def fault_of(outcome: object) -> tuple[str, str]:
    """Code and path of the one fault of a refusal."""
    assert isinstance(outcome, InvalidRequestError), outcome
    (fault,) = outcome.errors
    return fault.code, fault.path


def fields_of(answer: BaseModel) -> dict[str, Any]:
    """What an answer says, without the identifiers of its call and what it cost."""
    return {name: getattr(answer, name) for name in type(answer).model_fields if name not in CALL}


def assert_alike(found: Any, expected: Any, tolerance: float, unit: float = 0.0, path: str = "") -> None:
    """Whether two values are equal but for the last digits of their numbers.

    Args:
        tolerance: relative to each number, and to the largest of its array or to `unit`.
        path: where the values are, for the message.
    """
    if isinstance(expected, Exception):
        assert isinstance(expected, InvalidRequestError), expected
        assert isinstance(found, InvalidRequestError), (path, found)
        assert [(f.code, f.path) for f in found.errors] == [(f.code, f.path) for f in expected.errors]
    elif isinstance(expected, BaseModel):
        assert type(found) is type(expected), (path, found)
        assert_alike(fields_of(found), fields_of(expected), tolerance, unit, path)
        if hasattr(expected, "request_id"):
            assert found.request_id == expected.request_id, path
        if hasattr(expected, "metadata"):
            assert found.metadata.warnings == expected.metadata.warnings, path
    elif isinstance(expected, Mapping):
        assert list(found) == list(expected), path
        for name, value in expected.items():
            assert_alike(found[name], value, tolerance, unit, f"{path}/{name}")
    elif isinstance(expected, ImageFile):
        # Half a shade can go either way.
        assert_near(pixels(found), pixels(expected), 0, 1, path)
    elif isinstance(found, ImageFile):
        shades = np.asarray(expected, np.float64) * 255
        assert_near(pixels(found), shades, 0, 0.5 + 510 * tolerance, path)
    elif (numbers := numeric(expected)) is not None:
        assert numeric(found) is not None, (path, found)
        # An infinity beside them is no reason to let the others differ.
        largest = float(np.abs(numbers[np.isfinite(numbers)]).max(initial=0))
        assert_near(numeric(found), numbers, tolerance, tolerance * max(largest, unit), path)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), path
        for place, value in enumerate(expected):
            assert_alike(found[place], value, tolerance, unit, f"{path}/{place}")
    else:
        assert found == expected, path


def assert_near(found: Any, expected: Any, relative: float, absolute: float, path: str) -> None:
    """Whether two arrays have one shape and near numbers; those that are not finite must be the same."""
    assert found.shape == expected.shape, (path, found.shape, expected.shape)
    np.testing.assert_allclose(found, expected, rtol=relative, atol=absolute, err_msg=path)


def numeric(value: Any) -> Any:
    """An array of what holds numbers alone, as float64; None of anything else, be it rows of many lengths."""
    if value is None or isinstance(value, str | bytes | bool | BaseModel):
        return None
    if hasattr(value, "detach"):
        value = value.detach().cpu().double().numpy()
    try:
        array = np.asarray(value)
    except ValueError:
        return None
    return array.astype(np.float64) if array.dtype.kind in "iuf" else None


def pixels(file: ImageFile) -> Any:
    """Shades of a picture, 0 to 255."""
    return file.to_numpy().astype(np.float64)
