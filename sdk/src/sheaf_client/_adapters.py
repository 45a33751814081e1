"""The LoRA adapters that a client selects for calls that name none of their own: `sketch@0.8`, `ink`."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from sheaf_client._errors import AdaptersNotSupportedError, ArgumentError
from sheaf_client._operation import Operation

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class Adapters:
    """Adapters by name with the weight of each, None where none was written; empty selects nothing."""

    names: tuple[str, ...] = ()
    weights: tuple[float | None, ...] = ()

    @classmethod
    def read(cls, written: Iterable[str]) -> Adapters:
        """The adapters of `name` or `name@weight`; the last `@` counts, so a name may hold one before it.

        Raises:
            ArgumentError: A name is empty or there twice, or a weight is no finite number.
        """
        if isinstance(written, str):
            raise ArgumentError(f"adapters are a list of texts, not one text: [{written!r}]")
        if not isinstance(written, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance] - users may
            raise ArgumentError(f"adapters are a list of texts, not a {type(written).__name__}")
        read = [_read(text) for text in written]
        names = tuple(name for name, _ in read)
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ArgumentError(f"adapter {twice[0]!r} is named twice; expected each name once")
        return cls(names, tuple(weight for _, weight in read))

    def fields(self, operation: Operation[Any, Any], given: Collection[str]) -> dict[str, Any]:
        """What a call of `operation` lacks of `adapters` and `adapter_weights`, having the fields `given`.

        Raises:
            AdaptersNotSupportedError: The operation takes no adapters.
        """
        if not self.names:
            return {}
        if not operation.takes_adapters:
            raise AdaptersNotSupportedError(
                f"{operation.model_type}.{operation.name} takes no adapters, and this client selects {self}; "
                "call it on a client without them: client.with_adapters()"
            )
        if "adapters" in given:
            return {}
        fields: dict[str, Any] = {"adapters": list(self.names)}
        if "adapter_weights" not in given and any(weight is not None for weight in self.weights):
            fields["adapter_weights"] = [1.0 if weight is None else weight for weight in self.weights]
        return fields

    def __str__(self) -> str:
        pairs = zip(self.names, self.weights, strict=True)
        return ", ".join(name if weight is None else f"{name}@{_shortest(weight)}" for name, weight in pairs)


def _shortest(number: float) -> str:
    return str(number).removesuffix(".0")


def _read(text: object) -> tuple[str, float | None]:
    if not isinstance(text, str):
        raise ArgumentError(f"an adapter is text, 'name' or 'name@weight', not a {type(text).__name__}")
    name, at, number = text.rpartition("@") if "@" in text else (text, "", "")
    weight = float(number) if _NUMBER.fullmatch(number) else math.nan
    if at and not math.isfinite(weight):
        raise ArgumentError(
            f"adapter {text!r}: expected a number after the last '@', as in '{name or 'sketch'}@0.8'; "
            "a name that holds '@' needs its weight too"
        )
    if not name:
        raise ArgumentError(f"adapter {text!r}: expected 'name' or 'name@weight', as in 'sketch@0.8'")
    return name, weight if at else None
