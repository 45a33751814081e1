"""What the time series backends share: histories, refusals, calendar, and the answer."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from sheaf.api.time_series import Frequency, TimeSeriesRequest
from sheaf.backends._families import time_series as family
from sheaf.backends.chronos import Chronos2Backend
from sheaf.backends.statsforecast import MODELS, SEASON_LENGTHS, StatsForecastBackend
from sheaf.extras import install_command
from sheaf.registry import backend_names, find_backend
from sheaf_client.errors import InvalidRequestError


def ask(**fields: Any) -> TimeSeriesRequest:
    body = {"model_name": "m", "history": [1.0, 2.0, 3.0], "horizon": 3, "frequency": "1d", **fields}
    return TimeSeriesRequest.model_validate(body)


def fault_of(refused: pytest.ExceptionInfo[InvalidRequestError]) -> tuple[str, str]:
    (fault,) = refused.value.errors
    return fault.code, fault.path


def times(**fields: Any) -> list[str]:
    found = family.forecast_timestamps(ask(**fields))
    assert found is not None
    return [time.isoformat() for time in found]


def test_history_of_one_variate_is_a_column_with_nan_for_null() -> None:
    history = family.history_of(ask(history=[1, None, 3]))
    assert history.shape == (3, 1)
    assert history.dtype == np.float64
    np.testing.assert_array_equal(history[:, 0], [1, np.nan, 3])


def test_target_is_the_column_asked_for() -> None:
    target = family.target_of(ask(history=[[1, 2], [3, None], [5, 6]], target_index=1))
    np.testing.assert_array_equal(target, [2, np.nan, 6])


def test_an_unresolved_feature_reference_is_refused() -> None:
    reference = {"feature_view": "v", "feature_name": "f", "entity_key": "k", "entity_value": "1"}
    with pytest.raises(InvalidRequestError) as refused:
        family.history_of(ask(history=None, feature_ref=reference))
    assert fault_of(refused) == ("missing", "/history")


@pytest.mark.parametrize(
    ("fields", "context"),
    [
        ({"history": [[1, None], [2, None]], "target_index": 1}, None),
        ({"history": [1, None, None]}, 2),
    ],
)
def test_a_target_without_a_value_the_model_reads_is_refused(
    fields: dict[str, Any], context: int | None
) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        family.check_history(ask(**fields), context)
    assert fault_of(refused) == ("unsupported", "/history")


def test_one_value_in_reach_is_enough() -> None:
    family.check_history(ask(history=[None, 1, None]), 2)


@pytest.mark.parametrize("name", ["past_covariates", "future_covariates", "static_covariates"])
def test_covariates_a_model_would_ignore_are_refused(name: str) -> None:
    given = {"past_covariates": {"x": [1, 2, 3]}} if name != "static_covariates" else {name: {"x": 1}}
    if name == "future_covariates":
        given[name] = {"x": [4, 5, 6]}
    with pytest.raises(InvalidRequestError) as refused:
        family.check_no_covariates(ask(**given), name)
    assert fault_of(refused) == ("unsupported", f"/{name}")


def test_sample_paths_are_bounded_by_their_numbers() -> None:
    family.check_sample_count(ask(horizon=1000), 1000)
    with pytest.raises(InvalidRequestError) as refused:
        family.check_sample_count(ask(horizon=1000), 1001)
    assert fault_of(refused) == ("out_of_range", "/num_samples")


@pytest.mark.parametrize("level", [0.1, 0.5, 1 / 3, 1e-7, 0.30000000000000004])
def test_quantile_keys_read_back_as_the_level(level: float) -> None:
    assert float(family.quantile_key(level)) == level


def test_quantile_keys_are_short() -> None:
    assert family.quantile_key(0.1) == "0.1"


def test_answer_carries_all_that_was_asked() -> None:
    request = ask(
        output_mode="quantiles", quantile_levels=[0.9, 0.1], start="2024-01-01", item_id="a", horizon=2
    )
    forecast = family.Forecast(
        np.array([1.0, 2.0]), "median", np.array([[3.0, 4.0], [0.5, 0.6]]), warnings=("Careful.",)
    )
    response = family.answer(request, forecast)
    assert response.request_id == request.request_id
    assert response.mean == [1.0, 2.0]
    assert response.point == "median"
    assert response.quantiles == {"0.9": [3.0, 4.0], "0.1": [0.5, 0.6]}
    assert response.samples is None
    assert (response.horizon, response.frequency, response.item_id) == (2, "1d", "a")
    assert response.timestamps == [datetime(2024, 1, 4), datetime(2024, 1, 5)]
    assert response.metadata.warnings == ["Careful."]


@pytest.mark.parametrize("part", ["point", "quantiles", "samples"])
def test_numbers_that_are_not_finite_never_leave(part: str) -> None:
    fields: dict[str, Any] = {
        "point": np.zeros(3),
        "quantiles": np.zeros((3, 3)),
        "samples": np.zeros((2, 3)),
    }
    fields[part] = np.full_like(fields[part], np.inf)
    with pytest.raises(InvalidRequestError) as refused:
        family.answer(ask(output_mode="quantiles"), family.Forecast(statistic="mean", **fields))
    assert fault_of(refused) == ("unsupported", "/history")


def test_no_time_given_no_time_answered() -> None:
    assert family.forecast_timestamps(ask()) is None


@pytest.mark.parametrize(
    ("frequency", "step"),
    [
        ("10s", timedelta(seconds=10)),
        ("5min", timedelta(minutes=5)),
        ("6h", timedelta(hours=6)),
        ("1d", timedelta(days=1)),
        ("1W", timedelta(weeks=1)),
    ],
)
def test_fixed_steps_count_from_the_last_observation(frequency: str, step: timedelta) -> None:
    start = datetime(2024, 2, 28, 12, tzinfo=UTC)
    expected = [(start + step * i).isoformat() for i in (3, 4, 5)]
    assert times(frequency=frequency, start=start.isoformat()) == expected
    observed = [(start + step * i).isoformat() for i in range(3)]
    assert times(frequency=frequency, timestamps=observed) == expected


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("2023-11-30", ["2024-02-29", "2024-03-31", "2024-04-30"]),  # a series of month ends
        ("2023-12-31", ["2024-03-31", "2024-04-30", "2024-05-31"]),
        ("2023-11-15", ["2024-02-15", "2024-03-15", "2024-04-15"]),
        ("2023-10-30", ["2024-01-30", "2024-02-29", "2024-03-30"]),  # the 30th where there is one
        ("2023-11-01", ["2024-02-01", "2024-03-01", "2024-04-01"]),
    ],
)
def test_months_keep_their_day_or_their_end(start: str, expected: list[str]) -> None:
    assert times(frequency="1M", start=start) == [f"{day}T00:00:00" for day in expected]


def test_a_month_that_ends_on_the_usual_day_does_not_move_the_rest() -> None:
    observed = ["2022-12-28", "2023-01-28", "2023-02-28"]
    assert times(frequency="1M", timestamps=observed) == [
        "2023-03-28T00:00:00",
        "2023-04-28T00:00:00",
        "2023-05-28T00:00:00",
    ]


def test_quarters_and_years() -> None:
    assert times(frequency="1Q", start="2023-03-31", horizon=2) == [
        "2023-12-31T00:00:00",
        "2024-03-31T00:00:00",
    ]
    assert times(frequency="1Y", start="2020-02-29", horizon=2) == [
        "2023-02-28T00:00:00",
        "2024-02-29T00:00:00",
    ]


@pytest.mark.parametrize("start", [f"2024-01-{day:02}" for day in range(1, 15)])
def test_business_days_agree_with_numpy(start: str) -> None:
    found = times(frequency="1B", start=start, history=list(range(9)), horizon=12)
    first = np.datetime64(start)
    expected = np.busday_offset(first, np.arange(9, 21), roll="backward")
    assert [time[:10] for time in found] == [str(day) for day in expected]


def test_offsets_stay() -> None:
    assert times(frequency="1h", start="2024-01-01T00:00:00+05:30", horizon=1) == [
        "2024-01-01T03:00:00+05:30"
    ]
    offset = timezone(timedelta(hours=-3))
    start = datetime(2024, 1, 31, 8, tzinfo=offset)
    assert times(frequency="1M", start=start, horizon=1) == ["2024-04-30T08:00:00-03:00"]


def test_hours_are_elapsed_time_across_a_change_of_the_clock() -> None:
    start = datetime(2024, 3, 30, 23, tzinfo=ZoneInfo("Europe/Berlin"))
    assert times(frequency="1h", start=start, horizon=2) == [
        "2024-03-31T03:00:00+02:00",
        "2024-03-31T04:00:00+02:00",
    ]


def test_a_horizon_past_the_last_year_is_refused() -> None:
    for frequency in ("1Y", "1d", "1B"):
        request = ask(frequency=frequency, start="9999-12-20", horizon=16)
        with pytest.raises(InvalidRequestError) as refused:
            family.check_timestamps(request)
        assert fault_of(refused) == ("out_of_range", "/horizon")


def test_every_frequency_has_a_season_and_a_step() -> None:
    for frequency in Frequency:
        assert SEASON_LENGTHS[frequency] >= 1
        found = times(frequency=frequency, start="2024-01-01", horizon=2)
        assert "2024-01-01T00:00:00" < found[0] < found[1]


def test_only_several_variates_get_a_warning() -> None:
    assert family.one_variate_warnings(ask()) == ()
    assert family.one_variate_warnings(ask(history=[[1], [2]])) == ()
    (warning,) = family.one_variate_warnings(ask(history=[[1, 2], [3, 4]], target_index=1))
    assert "column 1 of 2" in warning


def test_the_backends_have_their_names() -> None:
    assert {"chronos2", "statsforecast"} <= set(backend_names())
    assert find_backend("chronos2") is Chronos2Backend
    assert find_backend("statsforecast") is StatsForecastBackend


def test_older_spellings_are_understood_and_not_mixed() -> None:
    backend = Chronos2Backend(model_id="x", device_map="cuda", torch_dtype="bfloat16")
    assert (backend.device, backend.dtype) == ("cuda", "bfloat16")
    assert (Chronos2Backend().device, Chronos2Backend().dtype) == ("cpu", "float32")
    with pytest.raises(TypeError, match="device_map"):
        Chronos2Backend(device="cpu", device_map="cuda")


def test_a_model_that_is_not_there_is_refused_at_once() -> None:
    assert [StatsForecastBackend(model=name.upper()).model for name in MODELS] == list(MODELS)
    with pytest.raises(ValueError, match="AutoETS"):
        StatsForecastBackend(model="ARIMAX")
    with pytest.raises(ValueError, match="season_length"):
        StatsForecastBackend(season_length=0)


@pytest.mark.parametrize(
    ("backend", "library", "command"),
    [
        (Chronos2Backend(), "chronos", install_command("chronos")),
        (Chronos2Backend(), "torch", install_command("chronos")),
        (StatsForecastBackend(), "statsforecast", install_command("statsforecast")),
    ],
)
def test_a_missing_library_is_told_with_the_command_that_installs_it(
    backend: Any, library: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [
        name for name in sys.modules if name.split(".")[0] == library or "._models.chronos." in name
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ModuleNotFoundError) as missing:
        backend.load()
    assert command in str(missing.value)


def test_importing_the_backends_imports_no_model_library() -> None:
    code = (
        "import sys, sheaf.backends.chronos, sheaf.backends.statsforecast;"
        "heavy = {'torch', 'chronos', 'transformers', 'statsforecast', 'pandas', 'scipy'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_backend_that_is_not_loaded_says_so() -> None:
    with pytest.raises(RuntimeError, match="load"):
        Chronos2Backend().check(ask())
    with pytest.raises(RuntimeError, match="load"):
        StatsForecastBackend().batch_predict([ask()])
