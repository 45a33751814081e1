"""One program may meet several clusters, one after the other: nothing of an ended one is asked again."""

from __future__ import annotations

from typing import Any

import pytest

from sheaf import ModelServer, ModelSpec
from sheaf.spec import ResourceConfig
from sheaf_client import Sheaf
from tests.contract.targets import ray_cluster
from tests.echoes import Echo

pytestmark = pytest.mark.ray

CALL: dict[str, Any] = {"history": [1.0, 2.0], "horizon": 1, "frequency": "1h"}


def test_models_are_served_on_the_cluster_that_follows_one_that_ended() -> None:
    spec = ModelSpec(name="echo", backend_cls=Echo, resources=ResourceConfig(num_cpus=0.1))
    ended = ModelServer([spec], port=18292, http_mode="proxy")
    with ray_cluster():
        ended.run()
    with ray_cluster():
        ended.shutdown()  # its models went with their cluster, and it takes nothing else away
        with ModelServer([spec], port=18292, http_mode="proxy") as server, Sheaf(server.url) as client:
            ended.shutdown()
            forecast = client.time_series.forecast(model="echo", **CALL)
            assert forecast.mean == [2.0]
