"""Tensors of the contracts: numpy arrays to programs, base64 text in JSON, raw bytes in MessagePack.

All are little-endian and in C order on the wire. A field's dtype is in its type; its shape depends on
its siblings, so `Model` checks it once all fields are there.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import GetCoreSchemaHandler, SerializationInfo, ValidationInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from sheaf_client._binary_fields import read_bytes
from sheaf_client._context import WIRE


class Flat:
    """Bytes that still want their shape."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class _Codec:
    """Teaches Pydantic one dtype."""

    def __init__(self, dtype: str) -> None:
        self.dtype = np.dtype(dtype)
        self.wire_dtype = self.dtype.newbyteorder("<")

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            self._read,
            serialization=core_schema.plain_serializer_function_ser_schema(self._write, info_arg=True),
        )

    def __get_pydantic_json_schema__(self, *_: Any) -> dict[str, Any]:
        return {"type": "string", "contentEncoding": "base64"}

    def _read(self, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str | bytes | bytearray | memoryview):
            return Flat(read_bytes(value, info.context))
        if isinstance(value, Flat):
            return value
        if value is None or isinstance(value, bool | int | float | Mapping):
            raise PydanticCustomError("wrong_type", "Must be an array, bytes or base64 text.")
        try:
            array = np.asarray(value)
        except (ValueError, TypeError):
            raise PydanticCustomError("wrong_type", "Must be an array, bytes or base64 text.") from None
        if not _castable(array.dtype, self.dtype):
            text = "Must be an array of {dtype}; this one is of {given}."
            raise PydanticCustomError(
                "wrong_type", text, {"dtype": str(self.dtype), "given": str(array.dtype)}
            )
        return np.ascontiguousarray(array, dtype=self.dtype)

    def _write(self, value: Any, info: SerializationInfo) -> Any:
        if info.mode == "json":
            return base64.b64encode(to_bytes(value)).decode("ascii")
        return to_bytes(value) if info.context and info.context.get(WIRE) else value


def to_bytes(array: NDArray[Any]) -> bytes:
    """The bytes of an array as they go on the wire."""
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()


def shaped(value: Any, dtype: str, shape: tuple[int, ...], *, missing: bool = False) -> NDArray[Any]:
    """The array of that shape; raises `PydanticCustomError` where it does not fit or holds no numbers.

    With `missing` a NaN is a missing value; infinity is never a number.
    """
    if isinstance(value, Flat):
        wire = np.dtype(dtype).newbyteorder("<")
        expected = wire.itemsize * int(np.prod(shape, dtype=np.int64))
        if len(value.data) != expected:
            raise PydanticCustomError(
                "bytes_match_shape",
                "Must hold {expected} bytes, shape {shape} of {dtype}; {given} given.",
                {"expected": expected, "shape": str(shape), "dtype": dtype, "given": len(value.data)},
            )
        array = np.frombuffer(value.data, dtype=wire).reshape(shape).astype(np.dtype(dtype), copy=False)
    else:
        array = value
        if array.shape != shape:
            raise PydanticCustomError(
                "bytes_match_shape",
                "Must have shape {shape}; {given} given.",
                {"shape": str(shape), "given": str(array.shape)},
            )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        if not missing:
            raise PydanticCustomError("not_finite", "Must hold finite numbers alone.")
        if np.isinf(array).any():
            raise PydanticCustomError("not_finite", "Must hold finite numbers, or NaN for missing ones.")
    return array


def _castable(given: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    """Numbers may lose precision, never their kind: no complex, no text, no fractions for integers."""
    if given == wanted:
        return True
    if wanted.kind == "f":
        return given.kind in "fiu"
    return given.kind in "iub" and np.can_cast(given, wanted, "same_kind")


Float32: TypeAlias = Annotated[NDArray[np.float32], _Codec("float32")]
Float64: TypeAlias = Annotated[NDArray[np.float64], _Codec("float64")]
UInt8: TypeAlias = Annotated[NDArray[np.uint8], _Codec("uint8")]
Int32: TypeAlias = Annotated[NDArray[np.int32], _Codec("int32")]
Int64: TypeAlias = Annotated[NDArray[np.int64], _Codec("int64")]
