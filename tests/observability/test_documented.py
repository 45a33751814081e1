"""The page on metrics, logs and traces says what is there."""

from __future__ import annotations

import re
from pathlib import Path

from sheaf.observability import METRICS, Telemetry
from tests.observability.readings import Readings

PAGE = (Path(__file__).parents[2] / "docs/observability.md").read_text(encoding="utf-8")


def test_the_table_of_metrics_is_the_list_of_metrics() -> None:
    rows = re.findall(r"^\| `(sheaf_\w+)` \| (\w+) \| (.*?) \| (.*) \|$", PAGE, re.MULTILINE)
    assert rows == [(m.name, m.kind, ", ".join(f"`{label}`" for label in m.labels), m.help) for m in METRICS]


def test_each_metric_is_exposed_with_its_kind_and_its_help() -> None:
    text = Telemetry().exposition().decode()
    kinds = Readings(text).kinds
    for metric in METRICS:
        assert kinds[metric.name.removesuffix("_total")] == metric.kind
        assert f"# HELP {metric.name} {metric.help}" in text
    assert len(kinds) == len(METRICS), "a metric that is not in the list"


def test_spans_and_switches_that_the_page_names_are_in_the_code() -> None:
    sources = Path(__file__).parents[2] / "server/src/sheaf"
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources.rglob("*.py"))
    named = set(re.findall(r"`(sheaf\.[a-z_.]+)`", PAGE)) - {"sheaf.feast.resolve"}
    assert {"sheaf.predict", "sheaf.backend.infer", "sheaf.queue_seconds"} <= named
    assert {name for name in named if f'"{name}"' not in code} == set()
    for variable in set(re.findall(r"\bSHEAF_[A-Z_]+", PAGE)):
        assert f'"{variable}"' in code
