"""What an error of a model means: for the model, and for the caller who is told."""

from __future__ import annotations

import logging

from pydantic import ValidationError

from sheaf.backends.base import BackendDiedError, ModelBackend
from sheaf.interrupts import INTERRUPTS
from sheaf_client.contracts.base import BaseRequest
from sheaf_client.errors import BackendError, ProblemError

log = logging.getLogger("sheaf.engine")


def diagnose(backend: ModelBackend, error: Exception) -> tuple[bool, bool]:
    """Whether the model died of an error, and whether memory ran out; what that left is given back."""
    try:
        died = isinstance(error, BackendDiedError) or backend.is_fatal(error)
        out_of_memory = not died and backend.is_out_of_memory(error)
    except INTERRUPTS:
        raise
    except BaseException:
        log.exception("a backend could not say what its error means")
        return False, False
    try:
        if out_of_memory:
            backend.free_memory()
    except INTERRUPTS:
        raise
    except BaseException:
        log.exception("a backend could not give back its memory; loading it anew")
        died = True
    return died, out_of_memory


def problem_for(error: BaseException, request: BaseRequest) -> ProblemError:
    """The error a caller may see; refusals pass, anything else becomes an opaque `BackendError`."""
    request_id = str(request.request_id)
    if isinstance(error, ProblemError):
        if error.request_id not in {None, request_id}:
            return readdressed(error, request)  # one error for several requests
        error.request_id = request_id
        return error
    facts = {"model": request.model_name, "request_id": request_id}
    log.error("model %s failed on request %s", *facts.values(), exc_info=error, extra=facts)
    breach = isinstance(error, ValidationError)
    text = "The model's answer breaks its contract." if breach else "The model failed on this request."
    problem = BackendError(text, request_id=request_id)
    problem.__cause__ = error
    return problem


def readdressed(error: ProblemError, request: BaseRequest) -> ProblemError:
    """An error for one caller of several; an exception must not be raised in two threads."""
    own = type(error)(
        error.detail, errors=error.errors, retry_after=error.retry_after, request_id=str(request.request_id)
    )
    own.__cause__ = error.__cause__
    return own
