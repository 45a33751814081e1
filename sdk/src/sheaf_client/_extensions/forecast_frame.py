"""`forecast_frame`: forecasts for every series of a data frame, as a data frame."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    Required,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
)

from sheaf_client._errors import ArgumentError, SheafError
from sheaf_client._extensions.frame_work import Chunk, FrameForecast, FrameWork, Outcome, Step, Steps
from sheaf_client._extensions.frames import FrameColumns, SeriesFrame
from sheaf_client._resource import AsyncCaller, AsyncResource, Caller, SyncResource, build_request
from sheaf_client._signatures import signed
from sheaf_client.operations.time_series import FORECAST

if TYPE_CHECKING:
    from datetime import timedelta

    from sheaf_client._inputs import ArrayLike
    from sheaf_client.params._enums import FrequencyLike

FrameT = TypeVar("FrameT")


class FrameOptions(TypedDict, total=False):
    """Keywords of `forecast_frame`; its documentation says what they mean."""

    horizon: Required[int]
    time_col: Required[str]
    target_col: Required[str]
    id_col: str | None
    static_cols: Sequence[str]
    frequency: FrequencyLike | str | timedelta | None
    quantile_levels: Sequence[float] | ArrayLike | None
    num_samples: int
    seed: int | None
    model: str | None
    timeout: float | None
    extra_headers: Mapping[str, str] | None


def _begin_work(
    caller: Caller | AsyncCaller, frame: Any, future: Any, errors: str, options: FrameOptions
) -> FrameWork:
    if errors not in ("raise", "return"):
        raise ArgumentError(f"errors is 'raise' or 'return', not {errors!r}")
    if unknown := options.keys() - FrameOptions.__annotations__.keys():
        raise TypeError(f"forecast_frame() has no keyword {', '.join(sorted(unknown))}")
    if missing := {"horizon", "time_col", "target_col"} - options.keys():
        raise TypeError(f"forecast_frame() needs the keyword {', '.join(sorted(missing))}")
    columns = _columns(options)
    # Refused here, by the words of `forecast` for them, before anything begins.
    call = caller.options(options.get("timeout"), options.get("extra_headers"))
    more = _in_common(options)
    checked = build_request(
        FORECAST,
        options.get("model") or caller.model,
        {"history": [0.0], "frequency": "1d", "horizon": options["horizon"], **more},
    )
    more = {name: getattr(checked, name) for name in more}
    return FrameWork(
        SeriesFrame(
            frame,
            future,
            columns,
            checked.horizon,
            options.get("frequency"),
            ["mean", *map(repr, more.get("quantile_levels", ()))],
        ),
        raises=errors == "raise",
        model=checked.model_name,
        timeout=None if options.get("timeout") is None else call.timeout,
        call_timeout=caller.options().timeout,
        more=more,
    )


def _in_common(options: FrameOptions) -> dict[str, Any]:
    """What the requests of all series say alike, as it was given."""
    levels = options.get("quantile_levels", (0.1, 0.5, 0.9))
    more: dict[str, Any] = {"output_mode": "mean", "seed": options.get("seed")}
    if levels is not None:
        more |= {"output_mode": "quantiles", "quantile_levels": levels}
    if "num_samples" in options:
        more["num_samples"] = options["num_samples"]
    return more


def _columns(options: FrameOptions) -> FrameColumns:
    static = options.get("static_cols", ())
    if isinstance(static, str):
        raise ArgumentError(f"static_cols is a list of columns, as in [{static!r}], not text")
    return FrameColumns(options.get("id_col"), options["time_col"], options["target_col"], static)


def _advance(steps: Steps, outcome: Outcome | None) -> Step | None:
    try:
        return steps.send(outcome)
    except StopIteration:
        return None


def _in_thread(call: Callable[[Chunk], Outcome], chunk: Chunk) -> Future[Outcome]:
    """The call in a thread that an interrupted program does not wait for at its end."""
    future: Future[Outcome] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            future.set_result(context.run(call, chunk))
        except BaseException as error:  # noqa: BLE001 - raised where the future is waited for
            future.set_exception(error)

    threading.Thread(target=run, name="sheaf-frame", daemon=True).start()
    return future


def _keep_finished(
    work: FrameWork, running: Mapping[Chunk, Future[Outcome]] | Mapping[Chunk, asyncio.Task[Outcome]]
) -> None:
    """Take what came back of calls that were not waited for."""
    for chunk, call in running.items():
        if call.done() and not call.cancelled() and call.exception() is None:
            outcome = call.result()
            if not isinstance(outcome, SheafError):
                work.keep(chunk, outcome)


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
    @signed
    def forecast_frame(
        self, frame: Any, *, future_df: Any = None, errors: str = "raise", **options: Unpack[FrameOptions]
    ) -> Any:
        """Forecast every series of a data frame.

            forecasts = client.time_series.forecast_frame(
                sales, id_col="store", time_col="week", target_col="units", horizon=8, model="chronos"
            )

        Every other column is a covariate: of the past, and of the future too where `future_df` has it. Flags
        are numbers, 0 and 1; text and categories are categories, and none of them may be missing. A time that
        is missing within a series is sent as a missing value; a category stays what it was.

        The frame goes out in calls of at most 64 series, up to four of them at once, and of fewer where the
        model is slow.

        Args:
            frame: A DataFrame of pandas or polars, or a table of pyarrow, one row per series and time.
            future_df: Covariates of the steps to forecast: the id, the time, and columns that `frame` has.
                Each step has one row, on the grid of its series; rows of other times on it are not used.
            errors: `raise` the first error of a series, or `return` a `FrameForecast` with the forecasts of
                the others and all errors by id.
            options: The rest, by keyword:

                * `horizon`: steps to forecast.
                * `time_col`: column of times, as datetimes, dates, periods or ISO 8601 text, in any order.
                * `target_col`: column to forecast; missing values are allowed where the model allows them.
                * `id_col`: column that names the series; absent where the frame is one series.
                * `static_cols`: columns that do not change within a series.
                * `frequency`: spacing of the rows, as `1d`, by a pandas name that means the same, as `MS`,
                  or as a `timedelta`. Inferred when absent, and refused where the times leave it open.
                * `quantile_levels`: a column for each level, by default 0.1, 0.5 and 0.9; None for none.
                * `num_samples`, `seed`: for sampling models.
                * `model`: name of the deployed model; the client's `model` when absent.
                * `timeout`: seconds for the whole frame. When absent there is no such limit, and each call
                  has the client's `timeout`.
                * `extra_headers`: for each call.

        Returns:
            A frame of the same library, `horizon` rows per series in their first order: the id, the time,
            `mean`, and a column per quantile level, as `0.1`. Ids and times have the types they came with.

        Raises:
            ArgumentError: `timeout`, `errors`, `extra_headers` or `static_cols` cannot be used.
            InvalidFrameError: A `ValueError`. The frame has two columns of one name, lacks one or has one of
                the wrong type, or has a time that is absent, twice there or off the grid.
            InvalidRequestError: A keyword or a series breaks the contract, or this model cannot serve it.
            SheafError: Any other refusal or failure. What was forecast before is in the error's `partial`, a
                `FrameForecast`; that of an interrupt has it too.
        """
        work = _begin_work(self._caller, frame, future_df, errors, options)
        running: dict[Chunk, Future[Outcome]] = {}

        def call(chunk: Chunk) -> Outcome:
            begun = time.monotonic()
            try:
                return self._call_many(FORECAST, chunk.requests, chunk.timeout, options.get("extra_headers"))
            except SheafError as error:
                return error
            finally:
                chunk.seconds = time.monotonic() - begun

        with work.kept():
            try:
                steps, outcome = work.steps(), None
                while (step := _advance(steps, outcome)) is not None:
                    outcome = None
                    if not step.begins:
                        held = running.pop(step.chunk, None)
                        outcome = call(step.chunk) if held is None else held.result()
                    elif not step.chunk.alone:
                        running[step.chunk] = _in_thread(call, step.chunk)
            except Exception:
                # What is on its way comes back too; an interrupt waits for nothing.
                wait(running.values())
                raise
            finally:
                _keep_finished(work, running)
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
    @signed
    async def forecast_frame(
        self, frame: Any, *, future_df: Any = None, errors: str = "raise", **options: Unpack[FrameOptions]
    ) -> Any:
        """Forecast every series of a data frame; arguments, result and errors as for `Sheaf`."""
        work = _begin_work(self._caller, frame, future_df, errors, options)
        running: dict[Chunk, asyncio.Task[Outcome]] = {}

        async def call(chunk: Chunk) -> Outcome:
            begun = time.monotonic()
            try:
                return await self._call_many(
                    FORECAST, chunk.requests, chunk.timeout, options.get("extra_headers")
                )
            except SheafError as error:
                return error
            finally:
                chunk.seconds = time.monotonic() - begun

        with work.kept():
            try:
                steps, outcome = work.steps(), None
                while (step := _advance(steps, outcome)) is not None:
                    outcome = None
                    if step.begins:
                        running[step.chunk] = asyncio.create_task(call(step.chunk))
                    else:
                        outcome = await running[step.chunk]
                        del running[step.chunk]
            except Exception:
                await asyncio.gather(*running.values(), return_exceptions=True)
                raise
            finally:
                _keep_finished(work, running)
                for task in running.values():
                    task.cancel()
                await asyncio.gather(*running.values(), return_exceptions=True)
        return work.result()
