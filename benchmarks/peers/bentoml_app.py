"""BentoML, tuned: adaptive batching, one worker, no access log, no metrics.

python -m bentoml serve bentoml_app:Peer --working-dir FOLDER --port PORT
"""

from typing import Any

import bentoml
from _work import MAX_BATCH, TIMEOUT, load


@bentoml.service(
    workers=1,
    traffic={"timeout": TIMEOUT},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
class Peer:
    def __init__(self) -> None:
        self.work = load()

    # A coroutine: a plain method would be handed to another thread for each batch.
    @bentoml.api(
        route="/predict",
        batchable=True,
        batch_dim=(0, 0),
        max_batch_size=MAX_BATCH,
        max_latency_ms=int(TIMEOUT * 1e3),
    )
    async def predict(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return self.work(requests)
