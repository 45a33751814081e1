"""Errors about one series of a frame in the words of the frame: series, date, column, and what to do."""

from __future__ import annotations

from collections.abc import Iterator

from sheaf_client._errors import InvalidFrameError, ProblemError, SheafError
from sheaf_client._extensions.frames import Series, SeriesFrame
from sheaf_client._extensions.frequencies import infer_frequency
from sheaf_client.contracts.time_series import Frequency
from sheaf_client.errors import InvalidRequestError


def explained(frame: SeriesFrame, place: int, error: SheafError) -> SheafError:
    """The same error, which names the series, and the time and the column of its first fault."""
    series = frame.series[place]
    if not isinstance(error, ProblemError) or not isinstance(series, Series):
        return error
    path = [_unescaped(part) for part in error.errors[0].path.split("/")[1:]] if error.errors else []
    where = "".join([series.called, *_time_and_column(frame, series, path)])
    told = [f"{where}: {error.detail or error.title}"]
    if isinstance(error, InvalidRequestError):
        told += _advice(frame, series, path)
        if len(frame.series) > 1:
            told.append('errors="return" forecasts the other series.')
    return type(error)(
        " ".join(told), errors=error.errors, request_id=error.request_id, retry_after=error.retry_after
    )


def _time_and_column(frame: SeriesFrame, series: Series, path: list[str]) -> list[str]:
    told: list[str] = []
    field = path[0] if path else ""
    if path and path[-1].isdecimal() and field in ("history", "past_covariates", "future_covariates"):
        at = int(path[-1]) + (len(series) if field == "future_covariates" else 0)
        told.append(f" at {series.time(at).isoformat()}")
    if field.endswith("_covariates") and len(path) > 1:
        told.append(f", column {path[1]!r}")
    elif field == "history":
        told.append(f", column {frame.target!r}")
    return told


def _advice(frame: SeriesFrame, series: Series, path: list[str]) -> Iterator[str]:
    """What to do about a fault, where the frame tells."""
    if len(path) == 2 and path[0] == "history" and path[1].isdecimal():
        at = int(path[1])
        fill = "with pandas by `interpolate`, or take a model that allows for missing ones."
        if (other := _other_frequency(series)) is not None:
            steps = f"{len(series):,} steps of {series.grid.frequency.value}"
            yield f"The frame has {len(series.places):,} rows for {steps}; give frequency={other.value!r}."
        elif at not in series.places:
            yield f"The frame has no row for this time: add it and give it a value, {fill}"
        elif frame.is_missing(series, at):
            yield f"Give it a value, {fill}"
    if path in (["past_covariates"], ["future_covariates"], ["static_covariates"]):
        columns = ", ".join(map(repr, frame.covariates(path[0])))
        yield f"These are the columns {columns}: leave them out, as in df[{frame.needed()!r}]."


def _other_frequency(series: Series) -> Frequency | None:
    """The frequency of the rows where it is another than was given, so that most steps have none."""
    if 2 * len(series.places) >= len(series):
        return None
    try:
        inferred = infer_frequency([[series.time(place) for place in series.places]])
    except InvalidFrameError:
        return None
    return None if inferred is series.grid.frequency else inferred


def _unescaped(part: str) -> str:
    return part.replace("~1", "/").replace("~0", "~")
