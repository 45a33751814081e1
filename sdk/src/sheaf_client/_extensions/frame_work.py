"""A frame on its way: which series go out in which call, how large calls are, and what came back.

The frame goes out in chunks: each is a call with a deadline of its own, and takes turns with other callers'
calls. Nothing here waits; `FrameWork.steps` is driven by a client that waits or by one that awaits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, NamedTuple, TypeAlias

from sheaf_client._errors import CallTimeoutError, InvalidFrameError, ProblemError, SheafError, TransportError
from sheaf_client._extensions.frame_faults import explained
from sheaf_client._extensions.frames import Series, SeriesFrame
from sheaf_client._resource import build_request
from sheaf_client.contracts.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf_client.errors import DeadlineExceededError, InternalServerError, RequestTooLargeError
from sheaf_client.operations.time_series import FORECAST

Answer: TypeAlias = TimeSeriesResponse | ProblemError
#: Series of the first call.
FIRST_SERIES = 8
#: Most series of one call: with all calls in flight, half of the line that a server keeps by default.
MAX_SERIES = 64
#: Most numbers in the histories and covariates of one call; about ten megabytes of JSON.
MAX_VALUES = 1_000_000
#: Most calls on their way at once.
IN_FLIGHT = 4
#: Seconds within which all calls that are on their way should be answered, so that others get their turn.
AIM = 5.0
#: Calls that fail as a whole one after another before the work is given up.
GIVE_UP = 3


class FrameForecast(NamedTuple):
    """A frame of forecasts, and what went wrong with the series that are not in it, by their ids."""

    frame: Any
    errors: dict[Any, SheafError]


@dataclass(eq=False)
class Chunk:
    """The series of one call.

    Attributes:
        alone: nothing else is sent before its answers are there.
        timeout: seconds it may take; None for what the client allows each call.
        seconds: how long it took.
    """

    places: list[int]
    requests: list[TimeSeriesRequest]
    alone: bool
    timeout: float | None = None
    seconds: float = 0.0


class Step(NamedTuple):
    """What to do next: begin a chunk, or wait for it and send back its answers or its error."""

    chunk: Chunk
    begins: bool


Outcome: TypeAlias = Sequence[Answer] | SheafError
Steps: TypeAlias = Generator[Step, Outcome | None, None]


@dataclass
class _Pace:
    """How many series a call has, and how many calls are on their way: what is answered in `aim` seconds."""

    aim: float
    series: int = field(default_factory=lambda: min(FIRST_SERIES, MAX_SERIES))
    calls: int = 1

    def took(self, chunk: Chunk) -> None:
        """Learn from a call; calls at the same time share what the model can do."""
        together = 1 if chunk.alone else self.calls
        within_aim = self.aim * together * len(chunk.places) / max(chunk.seconds, 1e-6)
        self.calls = max(1, min(IN_FLIGHT, int(within_aim)))
        # Series are not all alike: what the first ones took is believed step by step.
        self.series = max(1, min(MAX_SERIES, 2 * self.series, int(within_aim / self.calls)))


class FrameWork:
    """The series of one frame: what is asked in each call, and what came back.

    Args:
        raises: the first failure ends the work; else it is kept beside the forecasts.
        timeout: seconds for the whole frame; None for no such limit.
        call_timeout: seconds that the client allows each call.
        more: what the requests of all series have in common.
    """

    def __init__(
        self,
        frame: SeriesFrame,
        *,
        raises: bool,
        model: str | None,
        timeout: float | None,
        call_timeout: float | None,
        more: dict[str, Any],
    ) -> None:
        self._frame, self._raises, self._model, self._more = frame, raises, model, more
        self._deadline = None if timeout is None else monotonic() + timeout
        self._pace = _Pace(AIM if call_timeout is None else min(AIM, call_timeout / 6))
        self._answers: dict[int, TimeSeriesResponse] = {}
        self._errors: dict[int, SheafError] = {}
        self._to_do = deque(range(len(frame.series)))
        self._failed_calls = 0

    def steps(self) -> Steps:
        """Begin and end every chunk; answers are taken in the order in which chunks began."""
        for place, series in enumerate(self._frame.series):
            if isinstance(series, InvalidFrameError):
                self._fail(place, series)
        waiting: deque[Chunk] = deque()
        while waiting or self._to_do:
            while waiting and (len(waiting) >= self._pace.calls or not self._to_do):
                chunk = waiting.popleft()
                outcome = yield Step(chunk, begins=False)
                assert outcome is not None  # noqa: S101 - what was waited for has been sent back
                self._pace.took(chunk)
                self._receive(chunk, outcome)
            if (following := self._next()) is not None:
                yield Step(following, begins=True)
                waiting.append(following)

    def _next(self) -> Chunk | None:
        """The next chunk; a series that breaks the contract is not sent."""
        chunk = Chunk([], [], alone=self._pace.calls == 1)
        values = 0
        while self._to_do and len(chunk.places) < self._pace.series:
            place = self._to_do[0]
            series = self._frame.series[place]
            if isinstance(series, Series):
                size = self._frame.size(series)
                if chunk.places and values + size > MAX_VALUES:
                    break
                try:
                    request = self._request(series)
                except ProblemError as error:
                    self._fail(place, error)
                else:
                    values += size
                    chunk.places.append(place)
                    chunk.requests.append(request)
            self._to_do.popleft()
        if self._deadline is not None:
            chunk.timeout = self._deadline - monotonic()
            if chunk.places and chunk.timeout <= 0:
                self._to_do.extendleft(reversed(chunk.places))
                self._end(CallTimeoutError("The time for this frame is over."))
                return None
        return chunk if chunk.places else None

    def _request(self, series: Series) -> TimeSeriesRequest:
        return build_request(FORECAST, self._model, self._frame.fields(series) | self._more)

    def _receive(self, chunk: Chunk, outcome: Outcome) -> None:
        if isinstance(outcome, SheafError):
            self._receive_failure(chunk, outcome)
            return
        self._failed_calls = 0
        failures = self.keep(chunk, outcome)
        if failures and self._raises:
            raise failures[0]

    def keep(self, chunk: Chunk, answers: Sequence[Answer]) -> list[SheafError]:
        """Take the answers of a chunk, and return what failed of it."""
        failures: list[SheafError] = []
        for place, answer in zip(chunk.places, answers, strict=True):
            if isinstance(answer, TimeSeriesResponse):
                self._answers[place] = answer
            else:
                self._errors[place] = explained(self._frame, place, answer)
                failures.append(self._errors[place])
        return failures

    def _receive_failure(self, chunk: Chunk, error: SheafError) -> None:
        """Take it that a call failed as a whole."""
        if isinstance(error, RequestTooLargeError) and len(chunk.places) > 1:
            self._pace.series = len(chunk.places) // 2
            self._to_do.extendleft(reversed(chunk.places))
            return
        self._errors.update(dict.fromkeys(chunk.places, error))
        if self._raises or not _may_pass(error):
            raise error
        self._failed_calls += 1
        if self._failed_calls >= GIVE_UP:
            self._end(error)

    def _end(self, error: SheafError) -> None:
        """Give up what was not sent yet."""
        self._errors.update(dict.fromkeys(self._to_do, error))
        self._to_do.clear()
        if self._raises:
            raise error

    def _fail(self, place: int, error: SheafError) -> None:
        self._errors[place] = explained(self._frame, place, error)
        if self._raises:
            raise self._errors[place]

    def result(self) -> Any:
        """The frame of forecasts, or a `FrameForecast` where failures are returned."""
        return self.so_far().frame if self._raises else self.so_far()

    def so_far(self) -> FrameForecast:
        """What is answered, and what failed."""
        answered = [
            (series, self._answers[place])
            for place, series in enumerate(self._frame.series)
            if isinstance(series, Series) and place in self._answers
        ]
        errors = {self._frame.ids[place]: error for place, error in sorted(self._errors.items())}
        return FrameForecast(self._frame.write(answered), errors)

    @contextmanager
    def kept(self) -> Generator[None]:
        """Give what ends the work early, an interrupt too, what was done before it, as `partial`."""
        try:
            yield
        except BaseException as error:
            if self._answers or self._errors:
                error.partial = self.so_far()  # type: ignore[attr-defined]
            if self._answers:
                done, total = len(self._answers), len(self._frame.series)
                error.add_note(
                    f"{done} of {total} series were forecast before; the error's `partial` has them"
                )
            raise


def _may_pass(error: SheafError) -> bool:
    """Whether the next call may be answered although this one failed."""
    if isinstance(error, ProblemError):
        return error.retryable or isinstance(
            error, DeadlineExceededError | InternalServerError | RequestTooLargeError
        )
    return isinstance(error, TransportError)
