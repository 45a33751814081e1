"""Forecast the airline passengers of 1960 from the years before, in this process and through a server.

The series (Box & Jenkins, monthly, 1949 to 1960, in thousands) ships with the statsforecast library, so
nothing is downloaded. The last year is held out; the table compares the forecast with what came.
"""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from statsforecast.utils import AirPassengers

from sheaf.api.time_series import TimeSeriesResponse
from sheaf.embedded import EmbeddedServer
from sheaf.spec import ModelSpec
from sheaf_client import Sheaf

HORIZON = 12
SPECS = [
    ModelSpec(name="ets", backend="statsforecast", backend_kwargs={"model": "AutoETS"}),
    ModelSpec(name="seasonal-naive", backend="statsforecast", backend_kwargs={"model": "SeasonalNaive"}),
]


def forecast(client: Sheaf, model: str, history: np.ndarray) -> TimeSeriesResponse:
    """The next year with its 80 % interval: the same lines whatever stands behind the client."""
    return client.time_series.forecast(
        model=model,
        history=history,
        horizon=HORIZON,
        frequency="1M",
        output_mode="quantiles",
        quantile_levels=[0.1, 0.5, 0.9],
        start=date(1949, 1, 31).isoformat(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo-output/airline_passengers.png"))
    output: Path = parser.parse_args().output

    series = np.asarray(AirPassengers, dtype=float)
    history, actual = series[:-HORIZON], series[-HORIZON:]

    with Sheaf.local(SPECS) as client:
        ets, naive = forecast(client, "ets", history), forecast(client, "seasonal-naive", history)
    with EmbeddedServer(SPECS, port=0) as server, Sheaf(server.url) as client:
        served = forecast(client, "ets", history)
        print(f"In this process, and through {server.url}: ", end="")
    if not np.allclose(served.mean, ets.mean):
        raise SystemExit("the two forecasts differ")
    print("the same forecast.\n")

    print_table(actual, ets, naive)
    draw(history, actual, ets, naive, output)
    print(f"\nPlot: {output}")


def print_table(actual: np.ndarray, ets: TimeSeriesResponse, naive: TimeSeriesResponse) -> None:
    """Each month with its errors, then the mean errors of both models."""
    assert ets.quantiles is not None
    assert ets.timestamps is not None
    low, high = ets.quantiles["0.1"], ets.quantiles["0.9"]
    print("Passengers (thousands)    actual  forecast   80 % interval     error   seasonal naive   error")
    for i, month in enumerate(ets.timestamps):
        print(
            f"{month:%B %Y}".ljust(24)
            + f"{actual[i]:8.0f}{ets.mean[i]:10.1f}"
            + f"{low[i]:10.1f} to {high[i]:5.1f}{ets.mean[i] - actual[i]:9.1f}"
            + f"{naive.mean[i]:17.0f}{naive.mean[i] - actual[i]:8.0f}"
        )
    inside = int(np.sum((actual >= low) & (actual <= high)))
    error, baseline = mean_absolute_error(ets, actual), mean_absolute_error(naive, actual)
    print(f"\nMean absolute error: {error:.1f} against {baseline:.1f} ", end="")
    print(f"for seasonal naive ({error / baseline:.2f} of it).")
    percent, baseline_percent = percentage_error(ets, actual), percentage_error(naive, actual)
    print(f"Mean absolute percentage error: {percent:.1f} % against {baseline_percent:.1f} %.")
    print(f"Months inside the 80 % interval: {inside} of {HORIZON}.")


def mean_absolute_error(answer: TimeSeriesResponse, actual: np.ndarray) -> float:
    return float(np.abs(np.asarray(answer.mean) - actual).mean())


def percentage_error(answer: TimeSeriesResponse, actual: np.ndarray) -> float:
    return float(np.abs(np.asarray(answer.mean) / actual - 1).mean() * 100)


def draw(
    history: np.ndarray, actual: np.ndarray, ets: TimeSeriesResponse, naive: TimeSeriesResponse, output: Path
) -> None:
    """History, forecast with its interval, and what came."""
    assert ets.quantiles is not None
    past = np.arange(len(history)) / 12 + 1949
    future = (np.arange(HORIZON) + len(history)) / 12 + 1949
    figure, axes = plt.subplots(figsize=(10, 4.5), layout="constrained")
    shown = past >= 1955
    axes.plot(past[shown], history[shown], color="#334155", label="History")
    axes.fill_between(
        future, ets.quantiles["0.1"], ets.quantiles["0.9"], color="#93c5fd", alpha=0.6, label="80 % interval"
    )
    axes.plot(future, ets.mean, color="#1d4ed8", label="Forecast (AutoETS)")
    axes.plot(future, naive.mean, color="#94a3b8", linestyle="--", label="Seasonal naive")
    axes.plot(future, actual, color="#dc2626", marker="o", markersize=3, linewidth=1, label="What came")
    axes.set_title("Airline passengers: 1960 forecast from the years before")
    axes.set_ylabel("Passengers per month (thousands)")
    axes.set_xlim(1955, 1961)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=150)


if __name__ == "__main__":
    main()
