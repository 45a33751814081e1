"""The numbers behind the metrics: one lock and a few dictionary entries for each event, read when scraped.

prometheus_client's own counters lock for every number and every histogram bucket; several of them for each
request cost more than the engine does. It still keeps the registry and writes what is read.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

Labels: TypeAlias = tuple[str, ...]


@dataclass(frozen=True)
class Metric:
    """One metric as it is documented. `buckets` are the upper bounds of a histogram."""

    name: str
    kind: Literal["counter", "histogram", "gauge"]
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


class Count:
    """A counter by its labels. Changed under the lock of its cells."""

    __slots__ = ("metric", "values")

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.values: dict[Labels, float] = {}

    def add(self, labels: Labels, amount: float = 1) -> None:
        self.values[labels] = self.values.get(labels, 0) + amount

    def family(self) -> Family:
        family = CounterMetricFamily(self.metric.name, self.metric.help, labels=self.metric.labels)
        for labels, value in self.values.items():
            family.add_metric(labels, value)
        return family


class Distribution:
    """A histogram by its labels: for each, the count in every bucket, then the sum."""

    __slots__ = ("metric", "values")

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.values: dict[Labels, list[float]] = {}

    def expect(self, labels: Labels) -> list[float]:
        """The cells of these labels, at zero where they are new."""
        found = self.values.get(labels)
        if found is None:
            found = self.values[labels] = [0] * (len(self.metric.buckets) + 2)
        return found

    def observe(self, labels: Labels, values: Sequence[float]) -> None:
        cells, bounds = self.values.get(labels) or self.expect(labels), self.metric.buckets
        for value in values:
            cells[bisect_left(bounds, value)] += 1
            cells[-1] += value

    def family(self) -> Family:
        family = HistogramMetricFamily(self.metric.name, self.metric.help, labels=self.metric.labels)
        bounds = [*map(str, map(float, self.metric.buckets)), "+Inf"]
        for labels, cells in self.values.items():
            total, buckets = 0.0, list[tuple[str, float]]()
            for bound, count in zip(bounds, cells, strict=False):
                total += count
                buckets.append((bound, total))
            family.add_metric(labels, buckets, sum_value=cells[-1])
        return family


class Cells(Collector):
    """Counters and histograms that are changed under one lock; `before` is called when they are read."""

    def __init__(self, metrics: Sequence[Metric], before: Callable[[], None]) -> None:
        self.lock = threading.Lock()
        self._before = before
        self.counts = {metric.name: Count(metric) for metric in metrics if metric.kind == "counter"}
        self.distributions = {
            metric.name: Distribution(metric) for metric in metrics if metric.kind == "histogram"
        }

    def collect(self) -> Iterator[Family]:
        self._before()
        with self.lock:
            families = [count.family() for count in self.counts.values()]
            families += [distribution.family() for distribution in self.distributions.values()]
        yield from families
