"""The roots of the exception tree; one class per problem code is generated into `errors/`, their public home.

The engine, every host and every client raise the same classes, so an error reads the same wherever the
model runs. Constructing one needs nothing beyond the standard library.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from sheaf_client._printable import printable, writable

if TYPE_CHECKING:
    from sheaf_client._extensions.frame_work import FrameForecast
    from sheaf_client.contracts.problem import Fault, Problem


class SheafError(Exception):
    """Anything this library raises on purpose.

    Attributes:
        partial: what was done before, where `forecast_frame` failed on its way: a `FrameForecast`.
    """

    partial: FrameForecast | None = None


class InvalidFrameError(SheafError, ValueError):
    """A data frame cannot be read as series; says which column, row, series or time."""


class ClientClosedError(SheafError, RuntimeError):
    """The client was closed before this call."""


class ForkedError(SheafError, RuntimeError):
    """The client was made before this process was forked, over connections that it cannot make anew."""


class ArgumentError(SheafError, ValueError, TypeError):
    """An argument of a client or of a call that cannot be used; the text says which, and shows no secret."""


class AdaptersNotSupportedError(SheafError, TypeError):
    """The client selects LoRA adapters, and the operation that was called takes none."""


#: Its name until 0.2.
AdaptersNotTakenError = AdaptersNotSupportedError

#: Most faults that the text of an error shows.
_MAX_FAULTS = 20


class TransportError(SheafError):
    """No answer came: the server could not be reached, or the connection broke."""

    def __str__(self) -> str:
        return printable(super().__str__())


class ConnectionFailedError(TransportError):
    """The connection could not be made, or broke before the answer was complete.

    Where a call was tried several times, this is about its last try.

    Attributes:
        unsent: whether nothing of the request can have reached the server.
        unanswered: whether the connection was made, and broke before the status and headers of an answer
            had come. The request may have reached the server.
    """

    def __init__(self, message: str = "", *, unsent: bool = False, unanswered: bool = False) -> None:
        super().__init__(message)
        self.unsent = unsent
        self.unanswered = unanswered


class CallTimeoutError(TransportError):
    """The caller's own time limit passed before the answer was complete."""


class BadResponseError(TransportError):
    """Something answered, but not with what the contract says."""


class ProblemError(SheafError):
    """A request was refused or failed, with what the problem document says about it.

    Attributes:
        code: stable identifier of the kind of problem.
        status: HTTP status that belongs to the code.
        detail: what is wrong with this request.
        errors: one `Fault` (code, JSON Pointer, message) per faulty member.
        request_id: identifier of the request.
        retry_after: seconds to wait before trying again, where the server says so.

    The attributes are as the server sent them. The text of the error is cut where they are long, and shows
    control characters as escapes.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Problem"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        detail: str = "",
        *,
        errors: Sequence[Fault] = (),
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(printable(detail))
        self.detail = detail
        self.errors: list[Fault] = list(errors)
        self.request_id = request_id
        self.retry_after = retry_after

    def __str__(self) -> str:
        lines = [printable(self.detail) or self.title]
        lines += [
            f"  {printable(fault.path) or '(body)'}: {printable(fault.message)} [{printable(fault.code)}]"
            for fault in self.errors[:_MAX_FAULTS]
        ]
        if (more := len(self.errors) - _MAX_FAULTS) > 0:
            lines.append(f"  and {more} more")
        if self.request_id:
            lines[0] += f" (request {printable(self.request_id, 100)})"
        return "\n".join(lines)

    def __reduce__(self) -> tuple[Any, ...]:
        faults = [fault.model_dump() for fault in self.errors]
        return _rebuild, (type(self), self.detail, faults, self.request_id, self.retry_after)

    def to_problem(self) -> Problem:
        """The RFC 9457 document for this error."""
        from sheaf_client.contracts.problem import Fault, Problem

        errors = [
            Fault(code=writable(fault.code), path=writable(fault.path), message=writable(fault.message))
            for fault in self.errors
        ]
        return Problem(
            type=f"/problems/{self.code}",
            title=self.title,
            status=self.status,
            code=self.code,
            detail=writable(self.detail),
            request_id=self.request_id,
            errors=errors,
            retry_after=self.retry_after,
        )

    @staticmethod
    def from_problem(problem: Problem) -> ProblemError:
        """The exception for a problem document; an unknown code keeps the nearest class by status."""
        kind = BY_CODE.get(problem.code) or _nearest(BY_CODE.values(), problem.status)
        return kind(
            problem.detail,
            errors=problem.errors,
            request_id=problem.request_id,
            retry_after=problem.retry_after,
        )


#: The class of each problem code: `sheaf_client.errors` fills it in, where those classes are.
BY_CODE: dict[str, type[ProblemError]] = {}


def _nearest(kinds: Any, status: int) -> type[ProblemError]:
    return next((kind for kind in kinds if kind.status == status), ProblemError)


def _rebuild(
    kind: type[ProblemError],
    detail: str,
    faults: list[dict[str, str]],
    request_id: str | None,
    retry_after: float | None,
) -> ProblemError:
    from sheaf_client.contracts.problem import Fault

    errors = [Fault(**fault) for fault in faults]
    return kind(detail, errors=errors, request_id=request_id, retry_after=retry_after)
