"""Refuses what a model cannot serve, before it takes a place in line."""

from __future__ import annotations

from sheaf.backends.base import ModelBackend, other_model_type
from sheaf.backends.operations import refuse_unserved
from sheaf.lora import ActiveAdapters
from sheaf.spec import ModelSpec
from sheaf_client.contracts.base import BaseRequest
from sheaf_client.contracts.problem import Fault
from sheaf_client.errors import InvalidRequestError


def admit(backend: ModelBackend, spec: ModelSpec, request: BaseRequest) -> ActiveAdapters:
    """Raise `InvalidRequestError`, or what the backend's own checks raise.

    Returns:
        The adapters that the request runs with.
    """
    if request.model_type != spec.model_type:
        raise other_model_type(spec.model_type)
    # A request is not asked for what its contract lacks: that takes longer than all the rest.
    members = type(request).__pydantic_fields__
    if "operation" in members or backend.operations:
        refuse_unserved(type(backend), request)
    if "feature_ref" in members and getattr(request, "feature_ref", None) is not None:
        fault = Fault(
            code="no_feature_store", path="/feature_ref", message="This deployment has no feature store."
        )
        raise InvalidRequestError("The feature reference cannot be looked up.", errors=[fault])
    backend.check(request)
    return backend.resolve_adapters(request, spec.lora)
