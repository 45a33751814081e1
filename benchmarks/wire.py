"""A 16 MB float32 raster as MessagePack against JSON with base64: each step of one call, and their ratio.

    python benchmarks/wire.py [--rounds 15] [--side 1024]

The steps are those of the client and the server themselves: the client encodes the request, the server
decodes and checks it, the server encodes the response, the client decodes it. The whole call is measured
too, over the embedded server and a socket, with a backend that only takes the mean of each band.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._report import goal, interleaved, median_ms, report, table
from sheaf.api.satellite import SatelliteRequest, SatelliteResponse
from sheaf.backends.base import ModelBackend, respond
from sheaf.embedded import EmbeddedServer
from sheaf.http.bodies import Body, decode
from sheaf.http.encodings import encode_response
from sheaf.http.limits import Limits
from sheaf.http.memory import Memory, Share
from sheaf.spec import ModelSpec
from sheaf_client import Sheaf
from sheaf_client._exchange import CallOptions, _acceptable, _encode
from sheaf_client._msgpack import MSGPACK_TYPE
from sheaf_client._reading import read_response

BANDS = 4
FORMS: dict[str, Literal["never", "always"]] = {"JSON": "never", "MessagePack": "always"}
STEPS = ("client encode", "server decode", "server encode", "client decode")


class BandMeans(ModelBackend[SatelliteRequest, SatelliteResponse]):
    """The mean of each band: work that costs next to nothing."""

    model_type = "geospatial"

    def load(self) -> None:
        pass

    def batch_predict(self, requests: Sequence[SatelliteRequest]) -> list[SatelliteResponse | Exception]:
        return [answer(request) for request in requests]


def answer(request: SatelliteRequest) -> SatelliteResponse:
    """A response of the usual size of an embedding."""
    means = request.pixels[:, :, ::64, ::64].mean(axis=(0, 2, 3))
    return respond(
        request,
        SatelliteResponse,
        embedding=np.resize(means, 768).astype(float).tolist(),
        dim=768,
        n_time=request.n_time,
    )


def raster(side: int) -> dict[str, Any]:
    """A scene of 4 bands: 16 MiB at a side of 1024 pixels."""
    pixels = np.random.default_rng(0).random((1, BANDS, side, side), dtype=np.float32)
    return {
        "pixels": pixels,
        "n_bands": BANDS,
        "height": side,
        "width": side,
        "band_names": [f"B{i:02}" for i in range(BANDS)],
    }


def steps_of(form: str, request: SatelliteRequest) -> tuple[dict[str, Callable[[], object]], int]:
    """The four steps of one call in one form, each ready to run by itself, and the bytes of the body."""
    options = CallOptions(binary=FORMS[form])
    content, media = _encode(request, options)
    body = Body(content, media == MSGPACK_TYPE, Share(Memory(Limits()), ""))
    headers = {"accept": _acceptable(SatelliteResponse, options)}
    response = answer(request)
    encoded, sent_as = encode_response(response, headers)
    received = httpx.Response(200, content=encoded, headers={"content-type": sent_as})

    read = read_response(received, SatelliteResponse, request.request_id)
    decoded = decode(body, SatelliteRequest, request.model_name)
    assert read == response
    assert np.array_equal(decoded.pixels, request.pixels)
    steps: dict[str, Callable[[], object]] = {
        f"{form}: client encode": partial(_encode, request, options),
        f"{form}: server decode": partial(decode, body, SatelliteRequest, request.model_name),
        f"{form}: server encode": partial(encode_response, response, headers),
        f"{form}: client decode": partial(read_response, received, SatelliteResponse, request.request_id),
    }
    return steps, len(content)


def measure(side: int, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds by form and step, and the whole call over a socket."""
    scene = raster(side)
    request = SatelliteRequest.model_validate({"model_name": "means", **scene})
    steps: dict[str, Callable[[], object]] = {}
    sizes: dict[str, int] = {}
    for form in FORMS:
        four, sizes[form] = steps_of(form, request)
        steps |= four
    spec = ModelSpec(name="means", backend_cls=BandMeans)
    limits = Limits(max_body=8 * scene["pixels"].nbytes)
    with EmbeddedServer([spec], port=0, limits=limits) as server:
        clients = {form: Sheaf(server.url, model="means", binary=FORMS[form]) for form in FORMS}
        for form, client in clients.items():
            steps[f"{form}: whole call"] = partial(client.geospatial.embed, **scene)
        taken = interleaved(steps, rounds)
        for client in clients.values():
            client.close()
    figures: dict[str, dict[str, float]] = {}
    for form in FORMS:
        each = {step: median_ms(taken[f"{form}: {step}"]) for step in (*STEPS, "whole call")}
        figures[form] = {**each, "four steps": sum(each[step] for step in STEPS), "body bytes": sizes[form]}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15, help="times each step is run")
    parser.add_argument("--side", type=int, default=1024, help="rows and columns of the scene, in pixels")
    given = parser.parse_args()
    figures = measure(given.side, given.rounds)
    plain, packed = figures["JSON"], figures["MessagePack"]
    rows = [
        [step, f"{plain[step]:.2f}", f"{packed[step]:.2f}", f"{packed[step] / plain[step]:.3f}"]
        for step in (*STEPS, "four steps", "whole call")
    ]
    megabytes = 4 * BANDS * given.side**2 / 2**20
    title = f"A raster of {megabytes:g} MiB, median of {given.rounds}, milliseconds\n"
    text = title + table(["", "JSON", "MessagePack", "ratio"], rows)
    goals = [
        goal(
            "the four steps, MessagePack over JSON", packed["four steps"] / plain["four steps"], 0.1, "times"
        )
    ]
    report("wire", text, goals, {"milliseconds": figures, "rounds": given.rounds, "mebibytes": megabytes})


if __name__ == "__main__":
    main()
