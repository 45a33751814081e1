"""Hands a replica's metrics to Ray, whose exporter on each node is what Prometheus reads there.

Every number is told as a gauge of the same name and labels: Ray's counters and histograms take single
events, and what is counted here is counted already. PromQL makes no difference between them.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from sheaf.observability.telemetry import Telemetry

log = logging.getLogger("sheaf.metrics")

#: Seconds between two readings; Ray itself sends what it was told about as often.
INTERVAL = 5.0


def export_to_ray(telemetry: Telemetry) -> None:
    """Tell Ray the numbers from now on, on a thread of its own, for as long as the process lives."""
    threading.Thread(target=_Export(telemetry).run, name="sheaf-metrics", daemon=True).start()


class _Export:
    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._gauges: dict[str, Any] = {}

    def run(self) -> None:
        pause = threading.Event()
        try:
            while True:
                self._tell()
                pause.wait(INTERVAL)
        except Exception:
            log.exception("the metrics of this replica can no longer be told to Ray")

    def _tell(self) -> None:
        from ray.util.metrics import Gauge

        gauge_of: Any = Gauge  # annotated in part
        for family in self._telemetry.registry.collect():
            for sample in family.samples:
                gauge = self._gauges.get(sample.name)
                if gauge is None:
                    keys = tuple(sorted(sample.labels))
                    gauge = gauge_of(sample.name, description=family.documentation, tag_keys=keys)
                    self._gauges[sample.name] = gauge
                gauge.set(sample.value, sample.labels)
