"""The Grafana dashboard: its queries are PromQL over metrics that are there, and cover all that are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import promql_parser
import pytest

from sheaf.embedded import EmbeddedServer
from sheaf.observability import METRICS
from tests.observability.conftest import GOOD
from tests.observability.readings import eventually, scrape

DASHBOARD: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "dashboards/sheaf.json").read_text(encoding="utf-8")
)
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
SUFFIX = re.compile(r"_(bucket|sum|count)$")


def names(query: str) -> set[str]:
    return set(re.findall(r"\bsheaf_[a-z_]+", query))


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_is_promql(query: str) -> None:
    filled = query.replace("$__rate_interval", "5m").replace("$model", ".*")
    assert "$" not in filled, "a variable that the dashboard does not define"
    promql_parser.parse(filled)


def test_every_metric_of_a_query_is_there_after_traffic(server: EmbeddedServer, http: httpx.Client) -> None:
    http.post("/echo/predict", json=GOOD)
    http.post("/echo/predict", json={**GOOD, "horizon": 0})
    http.post("/kept/predict", json={**GOOD, "seed": 0})
    http.post("/fragile/predict", json={**GOOD, "history": [666.0]})
    eventually(lambda: scrape(server.url).total("sheaf_batch_size_count") >= 3)
    asked = {name for query in QUERIES for name in names(query)}
    assert asked - scrape(server.url).names == set()


def test_every_label_of_a_query_is_one_of_its_metric() -> None:
    labels = {metric.name: {*metric.labels, "le"} for metric in METRICS}
    for query in QUERIES:
        used = set(re.findall(r"(\w+)\s*=~?", query))
        used |= {name for group in re.findall(r"by \(([^)]*)\)", query) for name in group.split(", ")}
        for name in names(query):
            of = labels[name] if name in labels else labels[SUFFIX.sub("", name)]
            assert used <= of, query


def test_the_dashboard_shows_every_metric() -> None:
    shown = {SUFFIX.sub("", name) for query in QUERIES for name in names(query)}
    assert {metric.name for metric in METRICS} - shown == set()


def test_every_panel_reads_the_data_source_that_the_viewer_chose() -> None:
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    assert variables["model"]["query"]["query"] == "label_values(sheaf_model_ready, model)"
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert variables["model"]["datasource"] == chosen
    for panel in PANELS:
        assert panel["datasource"] == chosen
        assert all(target["datasource"] == chosen for target in panel["targets"])


def test_panels_have_a_place_of_their_own() -> None:
    everything = DASHBOARD["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    taken: set[tuple[int, int]] = set()
    for panel in everything:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert all(0 <= x < 24 for x, _ in cells)
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["title"]
    for panel in PANELS:
        assert panel["description"]
        assert [target["refId"] for target in panel["targets"]] == list("ABC")[: len(panel["targets"])]


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    assert isinstance(DASHBOARD["schemaVersion"], int)
    assert DASHBOARD["title"] == "Sheaf"
    assert "id" not in DASHBOARD, "an identifier of one installation"
