"""The outcome of a request as JSON text: what batch jobs and queue workers write down, and read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sheaf.contract.operations import operations_of
from sheaf_client.contracts.base import BaseResponse
from sheaf_client.errors import BackendError, ProblemError


def outcome_members(outcome: BaseResponse | BaseException) -> bytes:
    """`"response": {…}` or `"problem": {…}` as JSON text, to be put between the braces of a line.

    What is no `ProblemError` becomes an opaque `backend_failed`: its text may tell of the inside. Raises
    `ValueError` for a response that JSON cannot hold.
    """
    if isinstance(outcome, BaseResponse):
        return b'"response":' + outcome.model_dump_json().encode()
    if not isinstance(outcome, ProblemError):
        outcome = BackendError("The model failed on this request.")
    return b'"problem":' + outcome.to_problem().model_dump_json(exclude_none=True).encode()


def read_response(value: Mapping[str, Any]) -> BaseResponse:
    """The typed response in the value of a `response` that `outcome_members` wrote."""
    kind: type[BaseResponse] = operations_of(value["model_type"]).asked_for(value).response
    return kind.model_validate(value)
