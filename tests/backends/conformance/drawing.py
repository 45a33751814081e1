"""Draws requests that differ in what the schema lets them differ in, around inputs that a model can read."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from sheaf_client.contracts.base import BaseRequest
from tests.contract.values import Builder, T, resolved, schemas

#: Attempts at a request that the contract's rules allow.
_ATTEMPTS = 50


class RandomChoices:
    """Choices of a seeded generator."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def integer(self, low: int, high: int) -> int:
        return self.random.randint(low, high)

    def number(self, low: float, high: float) -> float:
        return self.random.uniform(low, high)

    def text(self, shortest: int, longest: int, pattern: str | None) -> str:
        assert pattern is None, f"name the texts of the pattern {pattern} among the options"
        return "".join(self.random.choice("ABCxyz äß") for _ in range(self.integer(shortest, longest)))

    def pick(self, options: Sequence[T]) -> T:
        return self.random.choice(options)


def draw_requests(
    bases: Sequence[BaseRequest], options: Mapping[str, Sequence[Any] | None], count: int, seed: int = 0
) -> list[BaseRequest]:
    """`count` valid requests: each is one of `bases` with other options.

    Switches and choices of the schema (booleans, enumerations) are drawn of themselves; a field in `options`
    is drawn from the values there, or where that is None from all that the schema allows.
    """
    choices = RandomChoices(seed)
    return [_drawn(choices, choices.pick(bases), options) for _ in range(count)]


def _drawn(
    choices: RandomChoices, base: BaseRequest, options: Mapping[str, Sequence[Any] | None]
) -> BaseRequest:
    contract = type(base)
    schema = schemas()[contract.__name__]
    free = {name for name in schema["properties"] if _is_choice(schema, name)} | set(options)
    builder = Builder(choices)
    for _ in range(_ATTEMPTS):
        body = {name: getattr(base, name) for name in contract.model_fields}
        # Some stay as they are: all at once would hardly ever agree.
        for name in sorted(free):
            if choices.integer(0, 1):
                values = options.get(name)
                body[name] = builder.member(schema, name) if values is None else choices.pick(values)
        body["request_id"] = UUID(int=choices.random.getrandbits(128))
        try:
            return contract.model_validate(body)
        except ValidationError:
            continue
    raise AssertionError(f"no choice of {sorted(free)} is valid beside {base!r:.200}")


def _is_choice(schema: Mapping[str, Any], name: str) -> bool:
    if name in schema["required"]:
        return False
    member = resolved(schema["properties"][name])
    return "enum" in member or member.get("type") == "boolean"
