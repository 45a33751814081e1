"""Starlette by hand, without batches: JSON in and out, or the contract's own checks around the same answer.

python starlette_app.py bare|checked|threaded PORT

`threaded` computes the answer on one of Starlette's threads, so that a model does not hold up the event loop.
"""

import json
import sys

import uvicorn
from _work import USAGE, load
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

work = load()


async def bare(request: Request) -> Response:
    (answer,) = work([json.loads(await request.body())])
    return Response(json.dumps(answer, separators=(",", ":")), media_type="application/json")


async def checked(request: Request) -> Response:
    asked = TimeSeriesRequest.model_validate_json(await request.body())
    return Response(answer(asked).model_dump_json(), media_type="application/json")


async def threaded(request: Request) -> Response:
    asked = TimeSeriesRequest.model_validate_json(await request.body())
    answered = await run_in_threadpool(answer, asked)
    return Response(answered.model_dump_json(), media_type="application/json")


def answer(asked):
    return TimeSeriesResponse(
        request_id=asked.request_id,
        model_name=asked.model_name,
        metadata=Metadata(usage=Usage(**USAGE, batch_size=1)),
        mean=asked.history[-asked.horizon :],
        point="mean",
        horizon=asked.horizon,
        frequency=asked.frequency,
    )


if __name__ == "__main__":
    if sys.argv[1] != "bare":
        from sheaf_client.contracts.base import Metadata, Usage
        from sheaf_client.contracts.time_series import TimeSeriesRequest, TimeSeriesResponse
    endpoint = {"bare": bare, "checked": checked, "threaded": threaded}[sys.argv[1]]
    app = Starlette(routes=[Route("/predict", endpoint, methods=["POST"])])
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False)
