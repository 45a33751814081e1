"""Which operations of its contract a backend serves: the primary one unless it names others.

The contracts of all but the primary operation have a constant member `operation`, so a request says itself
which operation it asks for.
"""

from __future__ import annotations

from functools import cache

from sheaf.backends.base import ModelBackend
from sheaf.contract.operations import names_of
from sheaf_client.contracts.base import BaseRequest
from sheaf_client.contracts.problem import Fault
from sheaf_client.errors import InvalidRequestError


@cache
def served_by(backend: type[ModelBackend], model_type: str) -> tuple[str, ...]:
    """The operations of a backend of that model type, in the order of the schema.

    Raises `ValueError` where it names one that its contract has not.
    """
    known = names_of(model_type)
    if unknown := sorted(backend.operations - set(known)):
        raise ValueError(f"{backend.__name__} names operations that {model_type} has not: {unknown}")
    return tuple(name for name in known if name in backend.operations) or known[:1]


def operation_of(request: BaseRequest) -> str:
    """The operation that a request asks for."""
    named: str | None = None
    if "operation" in type(request).__pydantic_fields__:  # to ask for what is not there takes long
        named = getattr(request, "operation", None)
    return named or next(iter(names_of(request.model_type)), "")


def refuse_unserved(backend: type[ModelBackend], request: BaseRequest) -> None:
    """Raise `InvalidRequestError` for a request of an operation that the backend has not."""
    asked, served = operation_of(request), served_by(backend, request.model_type)
    if served and asked not in served:
        message = f"This model has no {asked}; it has {', '.join(served)}."
        fault = Fault(code="unsupported", path="/operation", message=message)
        raise InvalidRequestError("The model does not serve this operation.", errors=[fault])
