"""`forecast_frame`: forecasts for every series of a data frame, as a data frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    NamedTuple,
    Required,
    TypeAlias,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
)

from sheaf_client._errors import ProblemError
from sheaf_client._extensions.frames import FrameColumns, Series, read_series, write_frame
from sheaf_client._resource import AsyncResource, SyncResource, build_request
from sheaf_client.contracts.time_series import TimeSeriesRequest, TimeSeriesResponse

if TYPE_CHECKING:
    from sheaf_client._operation import Operation
    from sheaf_client.params._enums import FrequencyLike

FrameT = TypeVar("FrameT")
Answer: TypeAlias = TimeSeriesResponse | ProblemError
#: Most series of one call, as the server has it.
MAX_SERIES = 1024
#: Most numbers in the histories and covariates of one call; about ten megabytes of JSON.
MAX_VALUES = 1_000_000


class FrameForecast(NamedTuple):
    """A frame of forecasts, and what went wrong with the series that are not in it."""

    frame: Any
    errors: dict[Any, ProblemError]


class FrameOptions(TypedDict, total=False):
    """Keywords of `forecast_frame`; its documentation says what they mean."""

    horizon: Required[int]
    time_col: Required[str]
    target_col: Required[str]
    id_col: str | None
    static_cols: Sequence[str]
    frequency: FrequencyLike | None
    quantile_levels: Sequence[float] | None
    num_samples: int
    seed: int | None
    model: str | None
    timeout: float | None
    extra_headers: Mapping[str, str] | None


class _Work:
    """The series of one frame on their way: what is asked in each call, and what came back."""

    def __init__(
        self, frame: Any, future: Any, model: str | None, options: FrameOptions, errors: str
    ) -> None:
        if errors not in ("raise", "return"):
            raise ValueError(f"errors is 'raise' or 'return', not {errors!r}")
        if unknown := options.keys() - FrameOptions.__annotations__.keys():
            raise TypeError(f"forecast_frame() has no keyword {', '.join(sorted(unknown))}")
        if missing := {"horizon", "time_col", "target_col"} - options.keys():
            raise TypeError(f"forecast_frame() needs the keyword {', '.join(sorted(missing))}")
        levels = options.get("quantile_levels", (0.1, 0.5, 0.9))
        self._more: dict[str, Any] = {"output_mode": "mean"}
        if levels is not None:
            self._more = {"output_mode": "quantiles", "quantile_levels": levels}
        if "num_samples" in options:
            self._more["num_samples"] = options["num_samples"]
        self._more["seed"] = options.get("seed")
        self._frame, self._raises = frame, errors == "raise"
        self._columns = FrameColumns(
            options.get("id_col"), options["time_col"], options["target_col"], options.get("static_cols", ())
        )
        self._horizon, self._model = options["horizon"], options.get("model") or model
        self._series, self._frequency = read_series(
            frame, future, self._columns, self._horizon, options.get("frequency")
        )
        self._answers: dict[int, Answer] = {}
        self.limits = (options.get("timeout"), options.get("extra_headers"))

    def calls(self) -> Iterator[tuple[list[int], list[TimeSeriesRequest]]]:
        """The requests, in lots that one call takes; a series that breaks the contract is not sent."""
        places: list[int] = []
        requests: list[TimeSeriesRequest] = []
        values = 0
        for place, series in enumerate(self._series):
            try:
                request = self._request(series)
            except ProblemError as error:
                self._take(place, error)
                continue
            size = len(series.target) * (1 + len(series.past)) + self._horizon * len(series.future)
            if requests and (len(requests) == MAX_SERIES or values + size > MAX_VALUES):
                yield places, requests
                places, requests, values = [], [], 0
            places.append(place)
            requests.append(request)
            values += size
        if requests:
            yield places, requests

    def _request(self, series: Series) -> TimeSeriesRequest:
        return build_request(
            _operation(), self._model, series.fields(self._horizon, self._frequency, self._more)
        )

    def receive(self, places: Sequence[int], answers: Sequence[Answer]) -> None:
        for place, answer in zip(places, answers, strict=True):
            self._take(place, answer)

    def _take(self, place: int, answer: Answer) -> None:
        if self._raises and isinstance(answer, ProblemError):
            if self._columns.id is not None:
                answer.add_note(f"series {self._series[place].id!r}")
            raise answer
        self._answers[place] = answer

    def result(self) -> Any:
        answers = [(series, self._answers[place]) for place, series in enumerate(self._series)]
        answered = [(series, answer) for series, answer in answers if isinstance(answer, TimeSeriesResponse)]
        frame = write_frame(self._frame, answered, self._frequency, self._columns)
        if self._raises:
            return frame
        return FrameForecast(
            frame, {s.id: answer for s, answer in answers if isinstance(answer, ProblemError)}
        )


def _operation() -> Operation[TimeSeriesRequest, TimeSeriesResponse]:
    # The resource is made of this module, so it can be named only once both are there.
    from sheaf_client.resources.time_series import FORECAST

    return FORECAST


class ForecastFrame(SyncResource):
    """Adds `forecast_frame` to a resource."""

    @overload
    def forecast_frame(
        self,
        frame: FrameT,
        *,
        future_df: FrameT | None = None,
        errors: Literal["raise"] = "raise",
        **options: Unpack[FrameOptions],
    ) -> FrameT: ...
    @overload
    def forecast_frame(
        self,
        frame: FrameT,
        *,
        future_df: FrameT | None = None,
        errors: Literal["return"],
        **options: Unpack[FrameOptions],
    ) -> FrameForecast: ...
    def forecast_frame(
        self, frame: Any, *, future_df: Any = None, errors: str = "raise", **options: Unpack[FrameOptions]
    ) -> Any:
        """Forecast every series of a data frame.

            forecasts = client.time_series.forecast_frame(
                sales, id_col="store", time_col="week", target_col="units", horizon=8, model="chronos"
            )

        Every other column is a covariate: of the past, and of the future too where `future_df` has it. Flags
        are numbers, text is categories. A time that is missing within a series is sent as a missing value; a
        category stays what it was.

        Args:
            frame: A DataFrame of pandas or polars, or a table of pyarrow, one row per series and time.
            future_df: Covariates of the steps to forecast: the id, the time, and columns that `frame` has.
            errors: `raise` the first error of a series, or `return` a `FrameForecast` with all of them by id.
            options: The rest, by keyword:

                * `horizon`: steps to forecast.
                * `time_col`: column of times, as datetimes, dates or ISO 8601 text, in any order.
                * `target_col`: column to forecast; missing values are allowed.
                * `id_col`: column that names the series; absent where the frame is one series.
                * `static_cols`: columns that do not change within a series.
                * `frequency`: spacing of the rows; inferred from the times when absent.
                * `quantile_levels`: a column for each level, by default 0.1, 0.5 and 0.9; None for none.
                * `num_samples`, `seed`: for sampling models.
                * `model`: name of the deployed model; the client's `model` when absent.
                * `timeout`, `extra_headers`: for each call; a call takes up to 1024 series.

        Returns:
            A frame of the same library, `horizon` rows per series in their first order: the id, the time,
            `mean`, and a column per quantile level, as `0.1`.

        Raises:
            ValueError: The frame lacks a column, or has a time that is absent, twice there or off the grid.
            InvalidRequestError: A series breaks the contract, or this model cannot serve it.
            SheafError: Any other refusal or failure.
        """
        work = _Work(frame, future_df, self._caller.model, options, errors)
        for places, requests in work.calls():
            work.receive(places, self._call_many(_operation(), requests, *work.limits))
        return work.result()


class AsyncForecastFrame(AsyncResource):
    """Adds `forecast_frame` to an asynchronous resource."""

    @overload
    async def forecast_frame(
        self,
        frame: FrameT,
        *,
        future_df: FrameT | None = None,
        errors: Literal["raise"] = "raise",
        **options: Unpack[FrameOptions],
    ) -> FrameT: ...
    @overload
    async def forecast_frame(
        self,
        frame: FrameT,
        *,
        future_df: FrameT | None = None,
        errors: Literal["return"],
        **options: Unpack[FrameOptions],
    ) -> FrameForecast: ...
    async def forecast_frame(
        self, frame: Any, *, future_df: Any = None, errors: str = "raise", **options: Unpack[FrameOptions]
    ) -> Any:
        """Forecast every series of a data frame; arguments, result and errors as for `Sheaf`."""
        work = _Work(frame, future_df, self._caller.model, options, errors)
        for places, requests in work.calls():
            work.receive(places, await self._call_many(_operation(), requests, *work.limits))
        return work.result()
