"""Classical forecasters with real intervals from the statsforecast library; nothing to download.

Each series is a fit of its own, so a batch is an honest loop: it shares nothing but the call.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import frexp, ldexp
from typing import Any, ClassVar

import numpy as np

from sheaf.api.time_series import Frequency, TimeSeriesRequest, TimeSeriesResponse
from sheaf.backends._families.time_series import (
    Array,
    Forecast,
    answer,
    answer_size,
    check_history,
    check_level_count,
    check_no_covariates,
    check_sample_count,
    check_timestamps,
    one_variate_warnings,
    target_of,
    wants_quantiles,
    wants_samples,
)
from sheaf.backends._models.statsforecast.ets import smoothing
from sheaf.backends._models.statsforecast.naive import seasonal_naive
from sheaf.backends._models.statsforecast.predictive import Predictive, Seasoned
from sheaf.backends._models.statsforecast.theta import theta
from sheaf.backends._shared.loading import libraries_of, loaded
from sheaf.backends._shared.refusals import attempt, refuse
from sheaf.backends.base import LOOP_TARGET_MS, ModelBackend
from sheaf.backends.info import BackendInfo
from sheaf.registry import register_backend

MODELS = ("AutoETS", "AutoTheta", "MSTL", "SeasonalNaive")

#: Bytes of an answer that take as long as to fit one value more.
_ANSWER = 2**14

#: Observations in one season. Below a day the day repeats (for 10 seconds the hour: a day of them is too
#: long to be estimated), in days the week, in weeks, months and quarters the year.
SEASON_LENGTHS = {
    Frequency.TEN_SECONDLY: 360,
    Frequency.MINUTELY: 1440,
    Frequency.FIVE_MINUTELY: 288,
    Frequency.TEN_MINUTELY: 144,
    Frequency.FIFTEEN_MINUTELY: 96,
    Frequency.HALF_HOURLY: 48,
    Frequency.HOURLY: 24,
    Frequency.FOUR_HOURLY: 6,
    Frequency.SIX_HOURLY: 4,
    Frequency.TWELVE_HOURLY: 2,
    Frequency.DAILY: 7,
    Frequency.BUSINESS_DAILY: 5,
    Frequency.WEEKLY: 52,
    Frequency.MONTHLY: 12,
    Frequency.QUARTERLY: 4,
    Frequency.YEARLY: 1,
}

#: ETS has one state per step of the season; beyond this many they cannot be estimated.
MAX_ETS_SEASON = 24

#: Largest values that are fitted as they are. The library's tolerances are absolute and it sums squares, so
#: it loses the errors of smaller histories and overflows on larger ones.
COMMON_SIZES = (1e-6, 1e9)


@dataclass(frozen=True)
class _Choice:
    """The library's model for one request, and why it is not the one configured, if it is not."""

    name: str
    season_length: int
    warnings: tuple[str, ...]


@register_backend("statsforecast")
class StatsForecastBackend(ModelBackend[TimeSeriesRequest, TimeSeriesResponse]):
    """AutoETS, AutoTheta, MSTL or SeasonalNaive, chosen and fitted by the library.

    Point, quantiles and sample paths come from the one recursion of the fitted model, so they agree. They are
    the library's own where those follow its models' equations; `_models.statsforecast` says where not.

    Histories shorter than two seasons are forecast without a season, AutoETS with a season beyond 24 by
    MSTL (whose trend is AutoETS); the answer's `metadata.warnings` say so.

    Args:
        model: one of `MODELS`, in upper or lower case.
        season_length: observations in a season; by default that of the request's frequency.
        context_length: most observations to fit; of longer histories the last ones are taken, and the answer
            says so. A fit takes minutes from some ten thousand on. None for no bound.
        n_jobs: accepted for the library's sake, not used: one model answers in one thread.
    """

    model_type: ClassVar[str] = "time_series"
    target_ms: ClassVar[float | None] = LOOP_TARGET_MS
    info: ClassVar[BackendInfo | None] = BackendInfo(
        title="AutoETS, AutoTheta, MSTL, SeasonalNaive",
        extra="statsforecast",
        libraries=("statsforecast",),
        papers=("https://nixtlaverse.nixtla.io/statsforecast/",),
    )

    def __init__(
        self,
        model: str = "AutoETS",
        season_length: int | None = None,
        context_length: int | None = 10_000,
        n_jobs: int | None = None,
    ) -> None:
        names = {name.lower(): name for name in MODELS}
        if model.lower() not in names:
            raise ValueError(f"model must be one of {', '.join(MODELS)}, not {model!r}")
        if season_length is not None and season_length < 1:
            raise ValueError(f"season_length must be at least 1, not {season_length}")
        if context_length is not None and context_length < 1:
            raise ValueError(f"context_length must be at least 1, not {context_length}")
        self.model = names[model.lower()]
        self.season_length = season_length
        self.context_length = context_length
        self.n_jobs = n_jobs
        self._library: Any = None

    def load(self) -> None:
        """Import the library; raises `ModuleNotFoundError` where it is not installed."""
        with libraries_of(self):
            from statsforecast import models
        self._library = models

    def unload(self) -> None:
        self._library = None

    def warm_up(self) -> None:
        season = [0.0, 1.0, 3.0, 2.0, 5.0, 4.0]
        body = {"model_name": "warm-up", "history": season * 4, "horizon": 1, "frequency": "4h"}
        self.predict(TimeSeriesRequest.model_validate(body))

    def check(self, request: TimeSeriesRequest) -> None:
        check_history(request, self.context_length)
        unread = len(request.history or ()) - self._length(request)
        missing = np.flatnonzero(np.isnan(target_of(request)[unread:]))
        if missing.size:
            raise refuse(
                f"/history/{unread + missing[0]}", f"{self.model} needs every value; this one is missing."
            )
        check_no_covariates(request)
        check_timestamps(request)
        check_level_count(request)
        if wants_samples(request):
            check_sample_count(request, request.num_samples)

    def answer_size(self, request: TimeSeriesRequest) -> int:
        return answer_size(request)

    def cost(self, request: TimeSeriesRequest) -> float:
        return self._length(request) + answer_size(request) / _ANSWER

    def deterministic(self, request: TimeSeriesRequest) -> bool:
        """Chance decides over paths alone: the quantiles of every model draw nothing anew."""
        return request.seed is not None or not wants_samples(request)

    def batch_predict(self, requests: Sequence[TimeSeriesRequest]) -> list[TimeSeriesResponse | Exception]:
        """Fit and forecast one after another; a request that cannot be forecast gets its error in place."""
        return [attempt(self._answer, request) for request in requests]

    def _answer(self, request: TimeSeriesRequest) -> TimeSeriesResponse:
        return answer(request, self._forecast(request))

    def _forecast(self, request: TimeSeriesRequest) -> Forecast:
        choice = self._choose(request)
        model = self._build(choice)
        history = np.ascontiguousarray(target_of(request)[-self._length(request) :])
        unit = _unit(history)
        try:
            model.fit(history / unit)
        except Exception as error:
            # The library raises bare exceptions for series it cannot fit, a KeyError for some too short.
            told = "too few" if isinstance(error, KeyError) else error
            reason = f"{choice.name} cannot be fitted to these {len(history)} values ({told})."
            raise refuse("/history", reason) from error
        future = _future(choice, model)
        quantiles = samples = None
        if wants_quantiles(request):
            quantiles = future.quantiles(request.quantile_levels, request.horizon) * unit
        if wants_samples(request):
            generator = np.random.default_rng(request.seed)
            samples = future.paths(request.num_samples, request.horizon, generator) * unit
        warnings = (*choice.warnings, *one_variate_warnings(request))
        return Forecast(future.point(request.horizon) * unit, "mean", quantiles, samples, warnings)

    def _choose(self, request: TimeSeriesRequest) -> _Choice:
        name = self.model
        season = self.season_length or SEASON_LENGTHS[request.frequency]
        length = self._length(request)
        warnings: list[str] = []
        if length < len(request.history or ()):
            warnings.append(f"Only the last {length} of {len(request.history or ())} observations were used.")
        if season > 1 and length < 2 * season:
            warnings.append(
                f"The history is shorter than two seasons of {season}: forecast without a season."
            )
            season = 1
        if name == "AutoETS" and season > MAX_ETS_SEASON:
            warnings.append(f"ETS cannot estimate a season of {season}: forecast by MSTL with an ETS trend.")
            name = "MSTL"
        elif name == "MSTL" and season == 1:
            warnings.append("MSTL needs a season: forecast by its trend model, AutoETS.")
            name = "AutoETS"
        return _Choice(name, season, tuple(warnings))

    def _length(self, request: TimeSeriesRequest) -> int:
        return min(len(request.history or ()), self.context_length or sys.maxsize)

    def _build(self, choice: _Choice) -> Any:
        return getattr(loaded(self._library), choice.name)(season_length=choice.season_length)


def _unit(history: Array) -> float:
    """The unit to fit in: 1 for numbers of a common size, else a power of two, which rounds nothing."""
    largest = float(np.abs(history).max())
    if largest == 0 or COMMON_SIZES[0] <= largest <= COMMON_SIZES[1]:
        return 1.0
    # About a thousand units; no unit is so small that it is 0.
    return ldexp(1.0, max(frexp(largest)[1] - 10, -1000))


def _future(choice: _Choice, model: Any) -> Predictive:
    """What a model of the library, once fitted, says of the steps to come."""
    if choice.name == "MSTL":
        season = model.model_["seasonal"].to_numpy()[-choice.season_length :]
        return Seasoned(smoothing(model.trend_forecaster.model_), season)
    read = {"AutoETS": smoothing, "AutoTheta": theta, "SeasonalNaive": seasonal_naive}
    return read[choice.name](model.model_)
