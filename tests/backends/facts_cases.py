"""What a backend says of a request before it is computed; imports no library of a model."""

from __future__ import annotations

from typing import Any

from sheaf.backends.base import ModelBackend
from sheaf_client.errors import InvalidRequestError


def told(backend: ModelBackend, request: Any) -> object:
    """The refusal as text, or all that the engine asks a backend about an accepted request."""
    try:
        backend.check(request)
    except InvalidRequestError as error:
        return f"{error.errors}"
    return (
        backend.batch_key(request),
        backend.cost(request),
        backend.padded_cost([backend.cost(request)] * 2),
        backend.answer_size(request),
        backend.steps(request),
        backend.deterministic(request),
        backend.resolve_adapters(request, None),
    )
