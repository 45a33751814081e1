"""A replica on Ray is seen like a server: its metrics by Ray's exporter, its log lines, its spans."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from sheaf import ModelServer, ModelSpec
from sheaf.spec import ResourceConfig
from tests.contract.targets import ray_cluster
from tests.echoes import Echo
from tests.observability.conftest import GOOD
from tests.observability.readings import Readings, eventually
from tests.observability.test_exporting import collector

pytestmark = pytest.mark.ray

PORT = 18276
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@dataclass
class Deployed:
    """A model on Ray, and where what it tells arrives."""

    url: str
    metrics: str
    logs: Path
    spans: list[Any]


@pytest.fixture(scope="module")
def deployed() -> Iterator[Deployed]:
    import ray

    with pytest.MonkeyPatch.context() as environment, collector() as (endpoint, received):
        environment.setenv("SHEAF_LOG_JSON", "1")
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "500")
        with ray_cluster():
            spec = ModelSpec(name="echo", backend_cls=Echo, resources=ResourceConfig(num_cpus=0.1))
            server = ModelServer([spec], port=PORT)
            server.run()
            sent = {"x-request-id": "on-ray-1", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
            assert httpx.post(f"{server.url}/echo/predict", json=GOOD, headers=sent).status_code == 200
            (node,) = ray.nodes()
            exporter = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
            logs = Path(node["ObjectStoreSocketName"]).parents[1] / "logs"
            yield Deployed(server.url, exporter, logs, received)
            server.shutdown()


def test_rays_exporter_tells_the_metrics_of_a_replica(deployed: Deployed) -> None:
    def now() -> Readings:
        return Readings(httpx.get(deployed.metrics).text)

    asked = {"model": "echo", "route": "predict", "status": "200"}
    eventually(lambda: now().total("ray_sheaf_requests_total", **asked) == 1, 60)
    told = now()
    assert told.total("ray_sheaf_model_ready", model="echo") == 1
    assert told.total("ray_sheaf_batch_size_bucket", model="echo", le="+Inf") == 1
    assert told.total("ray_sheaf_batch_size_bucket", model="echo", le="1.0") == 1
    assert told.total("ray_sheaf_predictions_total", model="echo", outcome="ok") == 1


def test_a_replica_logs_json_lines(deployed: Deployed) -> None:
    def lines() -> list[dict[str, Any]]:
        text = "\n".join(path.read_text() for path in deployed.logs.glob("worker-*.err"))
        return [json.loads(line) for line in text.splitlines() if line.startswith('{"time"')]

    eventually(lambda: any(line["logger"] == "sheaf.access" for line in lines()), 20)
    (line,) = [line for line in lines() if line["logger"] == "sheaf.access" and line["model"] == "echo"]
    assert (line["request_id"], line["route"], line["status"]) == ("on-ray-1", "predict", 200)


def test_a_replica_sends_its_spans(deployed: Deployed) -> None:
    def spans() -> list[Any]:
        resources = [resource for request in deployed.spans for resource in request.resource_spans]
        return [span for resource in resources for scope in resource.scope_spans for span in scope.spans]

    eventually(lambda: len([span for span in spans() if span.name.startswith("sheaf.")]) >= 2, 20)
    (predict,) = [span for span in spans() if span.name == "sheaf.predict"]
    assert predict.trace_id.hex() == TRACE
    assert predict.parent_span_id.hex() == "00f067aa0ba902b7"
