"""Where spans go: to the collector that OpenTelemetry's variables name, and nowhere without the package."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sheaf.extras import install_command
from tests.observability.conftest import GOOD
from tests.observability.test_logs import serving

ROOT = Path(__file__).parents[2]


@contextmanager
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """An OTLP collector over HTTP, and what it was sent."""
    received: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/v1/traces"
            received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}", received
        finally:  # else the thread keeps the process for ever
            httpd.shutdown()
            thread.join()


def ask(client: httpx.Client) -> None:
    assert client.post("/echo/predict", json=GOOD).status_code == 200


def test_a_server_sends_its_spans_to_the_collector_it_is_told(tmp_path: Path) -> None:
    with (
        collector() as (endpoint, received),
        serving(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_SERVICE_NAME="forecasts") as (client, _),
    ):
        ask(client)
    sent = [resource for request in received for resource in request.resource_spans]
    services = {
        attribute.value.string_value
        for resource in sent
        for attribute in resource.resource.attributes
        if attribute.key == "service.name"
    }
    names = {span.name for resource in sent for scope in resource.scope_spans for span in scope.spans}
    assert services == {"forecasts"}
    assert names == {"sheaf.predict", "sheaf.backend.infer"}


def test_without_the_package_a_server_answers_and_says_what_is_missing() -> None:
    code = """
import sys
sys.modules["opentelemetry"] = None  # as if it were not installed
from sheaf.extras import install_command
from sheaf.embedded import EmbeddedServer
from sheaf.observability import start_tracing
from sheaf.spec import ModelSpec
from sheaf_client import Sheaf
from tests.echoes import Echo
start_tracing()
with EmbeddedServer(ModelSpec(name="echo", backend_cls=Echo), port=0) as server, Sheaf(server.url) as client:
    print(client.time_series.forecast(model="echo", history=[1.0, 2.0], horizon=1, frequency="1h").mean)
assert not [name for name in sys.modules if name.startswith("opentelemetry.")]
"""
    env = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert run.stdout == "[2.0]\n"
    assert install_command("otel") in run.stderr


def test_a_program_that_uses_no_traces_never_loads_the_package() -> None:
    code = """
import sys
from sheaf.embedded import EmbeddedServer
from sheaf.spec import ModelSpec
from sheaf_client import Sheaf
from tests.echoes import Echo
with EmbeddedServer(ModelSpec(name="echo", backend_cls=Echo), port=0) as server, Sheaf(server.url) as client:
    client.time_series.forecast(model="echo", history=[1.0, 2.0], horizon=1, frequency="1h")
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout == "[]\n"
