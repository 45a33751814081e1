"""The TypeScript client against a real server: tensors there and back, as JSON, MessagePack and events."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sheaf.api.materials import MaterialsRequest, MaterialsResponse
from sheaf.api.weather import WeatherRequest, WeatherResponse
from sheaf.backends.base import ModelBackend, respond
from sheaf.embedded import EmbeddedServer
from sheaf.spec import ModelSpec
from sheaf_client import ProgressEvent

PACKAGE = Path(__file__).parents[2] / "clients/typescript"
PATIENCE = 120

pytestmark = pytest.mark.node

SCRIPT = """
import { InvalidRequestError, Sheaf } from "%s";

const wire = [];
const noting = async (request, next) => {
  const response = await next(request);
  wire.push([request.headers.get("Content-Type"), response.headers.get("Content-Type")]);
  return response;
};
const client = new Sheaf({ middleware: [noting] });
const structure = (atoms) => ({
  model: "springs",
  atomic_numbers: new Uint8Array(atoms).fill(1),
  positions: Float32Array.from({ length: 3 * atoms }, (_, i) => i / 8),
});
const twice = ({ positions }, { forces }) =>
  forces instanceof Float32Array &&
  forces.length === positions.length &&
  forces.every((force, i) => force === 2 * positions[i]);

const found = {};
for (const atoms of [3, 12000]) {
  const request = structure(atoms);
  found[`call of ${atoms}`] = twice(request, await client.materials.compute(request));
  const stream = client.materials.stream(request);
  found[`stream of ${atoms}`] = twice(request, await stream.final());
  const many = await client.materials.computeMany([request, { ...request, positions: new Float32Array(1) }]);
  found[`batch of ${atoms}`] = twice(request, many[0]) && many[1] instanceof InvalidRequestError;
}
const never = client.withOptions({ binary: "never" });
found.text = twice(structure(3), await never.materials.compute(structure(3)));

const field = (value) => ({ t: new Float32Array(4).fill(value) });
const weather = await client.weather.forecast({
  model: "persistence",
  surface_vars: field(280), prev_surface_vars: field(279),
  atmospheric_vars: field(250), prev_atmospheric_vars: field(249),
  lat: [10, 0], lon: [0, 90], pressure_levels: [500], current_time: "2024-06-01T00:00:00Z", n_steps: 2,
});
found.weather = weather.surface_forecasts.map(({ t }) => Array.from(t));

// The server's own opinion of what the client would not send.
const server = process.env.SHEAF_BASE_URL;
const [model_type, model_name] = ["materials", "springs"];
const given = { atomic_numbers: [1, 1], positions_b64: "AAAA" };
const refused = await fetch(`${server}/springs/materials/compute`, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ model_type, model_name, ...given }),
});
const own = await client.materials.compute({ model: model_name, ...given }).catch((error) => error.errors);
const faults = (errors) => errors.map(({ code, path, message }) => [code, path, message]);
console.log(JSON.stringify({ found, wire, faults: [faults((await refused.json()).errors), faults(own)] }));
"""


class Springs(ModelBackend[MaterialsRequest, MaterialsResponse]):
    """Forces are twice the positions."""

    model_type = "materials"

    def load(self) -> None: ...

    def answer(self, request: MaterialsRequest) -> MaterialsResponse:
        return respond(
            request,
            MaterialsResponse,
            energy=1.0,
            forces=2 * request.positions,
            n_atoms=len(request.atomic_numbers),
        )

    def batch_predict(self, requests: Sequence[MaterialsRequest]) -> list[MaterialsResponse | Exception]:
        return [self.answer(request) for request in requests]

    def stream(self, request: MaterialsRequest) -> Iterator[ProgressEvent | MaterialsResponse]:
        yield ProgressEvent(step=1, total_steps=1)
        yield self.answer(request)


class Persistence(ModelBackend[WeatherRequest, WeatherResponse]):
    """Tomorrow is like today, plus the number of the step."""

    model_type = "weather"

    def load(self) -> None: ...

    def batch_predict(self, requests: Sequence[WeatherRequest]) -> list[WeatherResponse | Exception]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: WeatherRequest) -> WeatherResponse:
        steps = range(1, request.n_steps + 1)

        def later(fields: dict[str, Any]) -> list[dict[str, Any]]:
            return [{name: np.add(field, step) for name, field in fields.items()} for step in steps]

        return respond(
            request,
            WeatherResponse,
            surface_forecasts=later(dict(request.surface_vars)),
            atmospheric_forecasts=later(dict(request.atmospheric_vars)),
            lat=request.lat,
            lon=request.lon,
            pressure_levels=request.pressure_levels,
            forecast_times=[request.current_time for _ in steps],
            step_hours=6,
            n_steps=request.n_steps,
        )


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the script saw."""
    index = PACKAGE / "dist/index.js"
    if not index.is_file():
        pytest.fail(f"{index} is missing: run `npm ci && npm run build` in clients/typescript")
    script = tmp_path_factory.mktemp("script") / "script.mjs"
    script.write_text(SCRIPT % index.as_uri(), encoding="utf-8")
    specs = [
        ModelSpec(name="springs", backend_cls=Springs),
        ModelSpec(name="persistence", backend_cls=Persistence),
    ]
    with EmbeddedServer(specs, port=0) as server:
        done = subprocess.run(
            ["node", str(script)],
            env={**os.environ, "SHEAF_BASE_URL": server.url, "NO_PROXY": "127.0.0.1,localhost"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def test_tensors_come_back_in_every_form(answered: dict[str, Any]) -> None:
    found = answered["found"]
    assert found.pop("weather") == [[281.0] * 4, [282.0] * 4]
    assert len(found) == 7
    assert [name for name, right in found.items() if right is not True] == []


def test_large_bodies_are_messagepack_and_answers_with_tensors_always(answered: dict[str, Any]) -> None:
    text, packed, events = "application/json", "application/msgpack", "text/event-stream"
    wire = [[sent, got.split(";")[0]] for sent, got in answered["wire"]]
    small, large = wire[:3], wire[3:6]
    assert small == [[text, packed], [text, events], [text, packed]]
    assert large == [[packed, packed], [packed, events], [packed, packed]]
    assert wire[6:8] == [[text, text], [text, packed]]


def test_both_sides_refuse_a_tensor_alike(answered: dict[str, Any]) -> None:
    server, client = answered["faults"]
    message = "Must hold 24 bytes, shape (2, 3) of float32; 3 given."
    assert server == client == [["bytes_match_shape", "/positions_b64", message]]
