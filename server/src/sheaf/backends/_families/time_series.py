"""What the backends of `time_series` share: reading histories, refusing, and building the answer.

Nothing here knows a model or imports a model library; numpy alone.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import numpy as np
import numpy.typing as npt

from sheaf.api.time_series import Frequency, OutputMode, TimeSeriesRequest, TimeSeriesResponse
from sheaf.backends._shared.refusals import check_finite, refuse
from sheaf.backends.base import respond
from sheaf_client.contracts.base import Metadata
from sheaf_client.protocol.calendar import MONTHS, STEPS

Array = npt.NDArray[np.floating]

#: Most numbers in the sample paths, or the quantiles, of one answer: about 20 MB of JSON.
MAX_VALUES = 1_000_000
#: Bytes of a number in JSON, and of a time.
_NUMBER, _TIME = 20, 28

_YEAR = 12


@dataclass(frozen=True)
class Forecast:
    """What a model says about one request, before it becomes a response.

    Attributes:
        point: shape (horizon,), in the unit of the history.
        statistic: what `point` is.
        quantiles: shape (levels, horizon), in the order of the request's `quantile_levels`.
        samples: shape (num_samples, horizon).
        warnings: one sentence each, for `metadata.warnings`.
    """

    point: Array
    statistic: Literal["mean", "median"]
    quantiles: Array | None = None
    samples: Array | None = None
    warnings: tuple[str, ...] = ()


def history_of(request: TimeSeriesRequest) -> Array:
    """The history as float64 of shape (time, variates), NaN where a value is missing.

    Raises `InvalidRequestError` where there is none: a `feature_ref` must have been resolved before.
    """
    if request.history is None:
        raise refuse("/history", "The history has not been read from the feature store.", "missing")
    values = np.asarray(request.history, dtype=np.float64)
    return values[:, None] if values.ndim == 1 else values


def target_of(request: TimeSeriesRequest) -> Array:
    """The column of the history to forecast, float64 of shape (time,), NaN where a value is missing."""
    return history_of(request)[:, request.target_index]


def check_history(request: TimeSeriesRequest, context: int | None = None) -> None:
    """Refuse a target without one observed value in the last `context` steps, which a model reads."""
    target = target_of(request)
    read = target if context is None else target[-context:]
    if np.isnan(read).all():
        raise refuse(
            "/history",
            f"All of the last {read.size} values of the target, which the model reads, are missing.",
        )


def check_no_covariates(request: TimeSeriesRequest, *names: str) -> None:
    """Refuse the covariates of these fields (all three by default), which the model would ignore."""
    for name in names or ("past_covariates", "future_covariates", "static_covariates"):
        if getattr(request, name):
            raise refuse(f"/{name}", f"This model takes no {name.replace('_', ' ')}.")


def check_sample_count(request: TimeSeriesRequest, num_samples: int) -> None:
    """Refuse sample paths that would hold more than `MAX_VALUES` numbers."""
    if num_samples * request.horizon > MAX_VALUES:
        most = MAX_VALUES // request.horizon
        message = f"At most {most} samples of a horizon of {request.horizon} steps."
        raise refuse("/num_samples", message, "out_of_range")


def check_level_count(request: TimeSeriesRequest) -> None:
    """Refuse quantiles that would hold more than `MAX_VALUES` numbers."""
    if wants_quantiles(request) and len(request.quantile_levels) * request.horizon > MAX_VALUES:
        most = MAX_VALUES // request.horizon
        message = f"At most {most} levels of a horizon of {request.horizon} steps."
        raise refuse("/quantile_levels", message, "out_of_range")


def answer_size(request: TimeSeriesRequest) -> int:
    """About how many bytes the answer takes as JSON."""
    mode = request.output_mode
    rows = 1
    if mode is OutputMode.QUANTILES:
        rows += len(request.quantile_levels)
    elif mode is OutputMode.SAMPLES:
        rows += request.num_samples
    dated = request.start is not None or request.timestamps is not None
    return request.horizon * (rows * _NUMBER + dated * _TIME)


def check_timestamps(request: TimeSeriesRequest) -> None:
    """Refuse a horizon that runs past the last date there is."""
    if request.start is not None or request.timestamps is not None:
        _steps_after(request, [request.horizon])


def one_variate_warnings(request: TimeSeriesRequest) -> tuple[str, ...]:
    """What to tell the caller of a univariate model that sent several variates."""
    history = request.history
    if not history or not isinstance(history[0], list) or len(history[0]) == 1:
        return ()
    column, width = request.target_index, len(history[0])
    return (f"The model is univariate: column {column} of {width} was forecast, the others were not used.",)


def quantile_key(level: float) -> str:
    """The key of a level in `quantiles`: the shortest text that reads back as the same number."""
    return repr(float(level))


def answer(request: TimeSeriesRequest, forecast: Forecast) -> TimeSeriesResponse:
    """The response to `request`, with its timestamps and its `item_id`.

    Raises `InvalidRequestError` when the model gave numbers that are not finite.
    """
    parts = forecast.point, forecast.quantiles, forecast.samples
    check_finite("/history", "The model gives no finite forecast for this history.", *parts)
    quantiles = None
    if forecast.quantiles is not None:
        keys = map(quantile_key, request.quantile_levels)
        quantiles = dict(zip(keys, forecast.quantiles.tolist(), strict=True))
    return respond(
        request,
        TimeSeriesResponse,
        mean=forecast.point.tolist(),
        point=forecast.statistic,
        quantiles=quantiles,
        samples=None if forecast.samples is None else forecast.samples.tolist(),
        horizon=request.horizon,
        frequency=request.frequency.value,
        timestamps=forecast_timestamps(request),
        item_id=request.item_id,
        metadata=Metadata(warnings=list(forecast.warnings)),
    )


def wants_quantiles(request: TimeSeriesRequest) -> bool:
    """Whether the answer holds quantiles."""
    return request.output_mode is OutputMode.QUANTILES


def wants_samples(request: TimeSeriesRequest) -> bool:
    """Whether the answer holds sample paths."""
    return request.output_mode is OutputMode.SAMPLES


def forecast_timestamps(request: TimeSeriesRequest) -> list[datetime] | None:
    """Times of the steps, or None when the request says nothing about time.

    Months keep their day, at most the last of the month; a series of month ends stays at month ends.
    Business days skip Saturday and Sunday. Offsets stay as they are.
    """
    if request.start is None and request.timestamps is None:
        return None
    return _steps_after(request, range(1, request.horizon + 1))


def _steps_after(request: TimeSeriesRequest, steps: Iterable[int]) -> list[datetime]:
    frequency = request.frequency
    if request.timestamps is not None:
        observed, offset = request.timestamps, 0
    else:
        assert request.start is not None  # noqa: S101 - the callers looked
        observed, offset = [request.start], len(request.history or ()) - 1
    last = observed[-1]
    try:
        if frequency is Frequency.BUSINESS_DAILY:
            return [_add_business_days(last, offset + step) for step in steps]
        if frequency in MONTHS:
            # A year of dates tells the 28th of each month from month ends that begin in February.
            recent = observed[-_YEAR:]
            day = 31 if all(_is_month_end(time) for time in recent) else max(time.day for time in recent)
            return [_add_months(last, (offset + step) * MONTHS[frequency], day) for step in steps]
        return [_add_time(last, (offset + step) * STEPS[frequency]) for step in steps]
    except (OverflowError, ValueError):
        raise refuse("/horizon", "The forecast runs past the year 9999.", "out_of_range") from None


def _add_time(time: datetime, span: timedelta) -> datetime:
    if time.tzinfo is None or span % timedelta(days=1) == timedelta(0):
        return time + span
    # Hours are elapsed time: on the wall clock they would be off by one after a change of offset.
    return (time.astimezone(UTC) + span).astimezone(time.tzinfo)


def _add_business_days(time: datetime, steps: int) -> datetime:
    weekday = time.weekday()
    friday = 4
    if steps and weekday > friday:
        time -= timedelta(days=weekday - friday)
        weekday = friday
    weeks, day = divmod(weekday + steps, 5)
    return time + timedelta(days=7 * weeks + day - weekday) if steps else time


def _add_months(time: datetime, months: int, day: int) -> datetime:
    year, month = divmod(time.year * _YEAR + time.month - 1 + months, _YEAR)
    return time.replace(year=year, month=month + 1, day=min(day, _days_in(year, month + 1)))


def _is_month_end(time: datetime) -> bool:
    return time.day == _days_in(time.year, time.month)


def _days_in(year: int, month: int) -> int:
    return monthrange(year, month)[1]
