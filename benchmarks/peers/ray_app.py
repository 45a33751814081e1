"""Ray Serve by hand: `@serve.batch` as the first example of its documentation has it, and tuned.

python ray_app.py plain|tuned PORT
"""

import os
import signal
import sys
from typing import Any

import ray
from _work import MAX_BATCH, load
from ray import serve
from starlette.requests import Request


@serve.deployment
class Plain:
    def __init__(self) -> None:
        self.work = load()

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.1)
    async def predict(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return self.work(items)

    async def __call__(self, request: Request) -> dict[str, Any]:
        return await self.predict(await request.json())


@serve.deployment(max_ongoing_requests=1024, max_queued_requests=int(os.environ.get("MAX_QUEUE", "-1")))
class Tuned:
    def __init__(self) -> None:
        self.work = load()

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=0)
    async def predict(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return self.work(items)

    async def __call__(self, request: Request) -> dict[str, Any]:
        return await self.predict(await request.json())


if __name__ == "__main__":
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
    deployment: Any = {"plain": Plain, "tuned": Tuned}[sys.argv[1]]
    serve.run(deployment.bind(), route_prefix="/predict")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    signal.pause()
