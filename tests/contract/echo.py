"""A backend for every contract that answers by a hash of the request, in exactly the contract's form.

Equal requests get equal answers and others other ones, so that an answer that was altered, or went to another
caller, is seen. Nothing here knows a model type: the form is read from the published document.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from sheaf.backends.base import ModelBackend
from sheaf.contract.operations import all_operations, names_of
from sheaf.lora import ActiveAdapters, LoRAConfig
from sheaf.spec import ModelSpec, ResourceConfig
from sheaf_client import ProgressEvent
from sheaf_client._operation import Operation
from sheaf_client.contracts.base import BaseRequest, BaseResponse
from sheaf_client.contracts.problem import Fault
from sheaf_client.errors import InvalidRequestError
from tests.contract.requests import repair_of
from tests.contract.values import Builder, T

NIL = UUID(int=0)
_LETTERS = 'abcdefghijklmnopqrstuvwxyzÄß→𝄞 "\\\n0'


class HashedChoices:
    """Choices that follow from a request alone."""

    def __init__(self, request: BaseRequest) -> None:
        self._random = random.Random(digest(request))

    def integer(self, low: int, high: int) -> int:
        return self._random.randint(low, high)

    def number(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)

    def text(self, shortest: int, longest: int, pattern: str | None) -> str:
        assert pattern is None, f"no answer has texts of a pattern: {pattern}"
        length = self._random.randint(shortest, longest)
        return "".join(self._random.choice(_LETTERS) for _ in range(length))

    def pick(self, options: Sequence[T]) -> T:
        return self._random.choice(options)


def canonical(request: BaseRequest) -> str:
    """The request as text, however it came: 1.0 is 1, as in languages with one kind of number."""
    return json.dumps(_as_read(request.model_dump(mode="json")), sort_keys=True)


def digest(request: BaseRequest) -> str:
    """The hash of a request."""
    return hashlib.sha256(canonical(request).encode()).hexdigest()


def _as_read(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_read(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_read(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


#: The operation of each request.
BY_REQUEST: dict[type[BaseRequest], Operation[Any, Any]] = {op.request: op for op in all_operations()}


class EchoBackend(ModelBackend):
    """Answers requests of any contract; `EchoBackend.of(model_type)` is the class for those of one type."""

    takes_adapters = True

    @staticmethod
    def of(model_type: str) -> type[EchoBackend]:
        """The class that serves this type; importable by its name, as other processes need it."""
        return globals()[_class_name(model_type)]

    def load(self) -> None:
        """There is nothing to load."""

    def check(self, request: BaseRequest) -> None:
        """Refuse the nil identifier: something that the contract allows and the model does not."""
        if request.request_id == NIL:
            fault = Fault(code="unsupported", path="/request_id", message="This model refuses it.")
            raise InvalidRequestError("Refused.", errors=[fault])

    def resolve_adapters(self, request: BaseRequest, config: LoRAConfig | None) -> ActiveAdapters:
        """Whatever the request names."""
        return ()

    def batch_predict(self, requests: Sequence[BaseRequest]) -> list[BaseResponse | Exception]:
        return [self.answer(request) for request in requests]

    def stream(self, request: BaseRequest) -> Iterator[ProgressEvent | BaseResponse]:
        first, *steps = self.progress(request)
        # A backend with nothing to add tells a step by the plain event; clients get the operation's own.
        yield ProgressEvent(step=first.step, total_steps=first.total_steps)
        yield from steps
        yield self.answer(request)

    @staticmethod
    def answer(request: BaseRequest) -> BaseResponse:
        """The answer that follows from a request."""
        response = BY_REQUEST[type(request)].response
        given = {
            "request_id": str(request.request_id),
            "model_name": request.model_name,
            "metadata": {"warnings": [digest(request)]},
        }
        body = Builder(HashedChoices(request)).body(response.__name__, given)
        return response.model_validate_json(json.dumps(body), strict=True, by_name=False)

    @staticmethod
    def progress(request: BaseRequest) -> list[ProgressEvent]:
        """The steps before the answer; all but the first have some of what such events may carry."""
        event = BY_REQUEST[type(request)].progress
        builder, repair = Builder(HashedChoices(request)), repair_of(event)
        total = builder.source.integer(1, 3)
        bodies = [
            builder.body(event.__name__, {"step": step + 1, "total_steps": total}, repair)
            for step in range(total)
        ]
        return [
            event(step=0, total_steps=total),
            *(event.model_validate_json(json.dumps(body), by_name=False) for body in bodies),
        ]


def _class_name(model_type: str) -> str:
    return f"Echo_{model_type}"


for _type in {op.model_type for op in all_operations()}:
    _name, _served = _class_name(_type), frozenset(names_of(_type))
    _members = {"model_type": _type, "operations": _served, "__module__": __name__}
    globals()[_name] = type(_name, (EchoBackend,), _members)


def name_of(operation: Operation[Any, Any]) -> str:
    """What the suite calls an operation: its model type, and its own name where it is not the primary one."""
    primary = operation.name == names_of(operation.model_type)[0]
    return operation.model_type if primary else f"{operation.model_type}.{operation.name}"


def specs() -> list[ModelSpec]:
    """An echo for every operation, each deployed under the name of the operation."""
    small = ResourceConfig(num_cpus=0.01)
    return [
        ModelSpec(name=name_of(op), backend_cls=EchoBackend.of(op.model_type), resources=small)
        for op in all_operations()
    ]
