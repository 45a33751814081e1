"""Reads metrics as Prometheus does."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx
from prometheus_client.parser import text_string_to_metric_families


class Readings:
    """What a registry or a server tells now; `of` gives one number, 0 where it is not there."""

    def __init__(self, text: str) -> None:
        families = list(text_string_to_metric_families(text))
        self.kinds = {family.name: family.type for family in families}
        self._samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self._samples}

    def of(self, name: str, /, **labels: str) -> float:
        return self._samples.get((name, frozenset(labels.items())), 0.0)

    def has(self, name: str, /, **labels: str) -> bool:
        return (name, frozenset(labels.items())) in self._samples

    def total(self, name: str, /, **labels: str) -> float:
        """The sum over all series that have these labels among theirs."""
        return sum(v for (n, have), v in self._samples.items() if n == name and labels.items() <= have)

    def labels(self, label: str) -> set[str]:
        """Every value that a label has."""
        return {value for _, have in self._samples for name, value in have if name == label}


def scrape(url: str) -> Readings:
    answer = httpx.get(f"{url}/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return Readings(answer.text)


def eventually(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for what another thread does after the answer was sent; there is no event to wait for."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition never held"
        time.sleep(0.005)
