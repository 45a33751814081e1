"""Metrics, logs and traces of whatever holds models: a server, a Ray replica, a client in its own process."""

from sheaf.observability.counters import Metric
from sheaf.observability.logs import configure_logging
from sheaf.observability.metrics import METRICS
from sheaf.observability.telemetry import Telemetry, process_telemetry
from sheaf.observability.tracing import start_tracing

__all__ = [
    "METRICS",
    "Metric",
    "Telemetry",
    "configure_logging",
    "process_telemetry",
    "start_tracing",
]
