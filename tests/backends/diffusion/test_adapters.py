"""Adapters of diffusion models as callers meet them: mixed in one batch, streamed, dropped, refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sheaf.embedded import EmbeddedServer
from sheaf.engine import ModelRuntime
from sheaf.extras import install_command
from sheaf.lora import ActiveAdapters, LoRAAdapter, LoRAConfig
from sheaf.spec import ModelSpec
from sheaf_client import ResultEvent, Sheaf
from sheaf_client.errors import BackendError, InvalidRequestError
from tests.backends.answers import fault_of
from tests.backends.diffusion.adapter_cases import FAMILIES, GroupedFlux, Studio
from tests.backends.diffusion.adapter_files import STANDARD
from tests.backends.diffusion.diffusion_cases import (
    CLOSE,
    Pixels,
    call,
    draw,
    mask,
    opened,
    pipeline_of,
    redraw,
)

pytestmark = pytest.mark.torch

CLIENT = Path(__file__).parents[3] / "clients/typescript/dist/index.js"


@pytest.fixture(params=FAMILIES)
def studio(request: pytest.FixtureRequest, studio_of: Callable[[str], Studio]) -> Studio:
    return studio_of(request.param)


@pytest.fixture
def flux(studio_of: Callable[[str], Studio]) -> Studio:
    return studio_of("flux")


def selections(studio: Studio) -> list[tuple[dict[str, Any], ActiveAdapters]]:
    """What requests may say of adapters, and what they then run with."""
    return [
        ({}, ()),
        ({"adapters": ["sketch"]}, (("sketch", studio.weight("sketch")),)),
        ({"adapters": ["ink"], "adapter_weights": [0.25]}, (("ink", 0.25),)),
        (
            {"adapters": ["oil", "sketch"], "adapter_weights": [-0.5, 0.75]},
            (("oil", -0.5), ("sketch", 0.75)),
        ),
        ({"adapters": ["style"]}, (("style", studio.weight("style")),)),
        ({"adapters": ["kohya"], "adapter_weights": [0.7]}, (("kohya", 0.7),)),
    ]


@contextmanager
def running(spec: ModelSpec) -> Iterator[ModelRuntime]:
    runtime = ModelRuntime(spec)
    runtime.start()
    try:
        yield runtime
    finally:
        runtime.stop()


def check_drawn(backend: Any, request: Any, wanted: Pixels) -> None:
    np.testing.assert_allclose(backend.drawn[request.request_id], wanted, atol=CLOSE, rtol=0)


def test_each_image_of_a_mixed_batch_is_the_one_that_the_library_draws_alone(studio: Studio) -> None:
    with running(studio.spec()) as runtime:
        said = selections(studio)
        requests = [
            draw(seed=k, num_inference_steps=2 + k % 3, **fields) for k, (fields, _) in enumerate(said)
        ]
        futures = [runtime.submit(request) for request in requests]
        for future, request, (_, active) in zip(futures, requests, said, strict=True):
            assert future.result(120).request_id == request.request_id
            check_drawn(runtime.backend, request, studio.alone(request, active))
        different = [set(forward) for forward in runtime.backend.forwards]
        assert max(map(len, different)) == len(said), "they were to share a forward"


def test_images_from_images_take_adapters_too(studio_of: Callable[[str], Studio]) -> None:
    studio = studio_of("sdxl")
    settings = {"model_id": studio.base, "device": "cpu", "dtype": "float32", "mode": "img2img"}
    library = pipeline_of("StableDiffusionXLImg2ImgPipeline", studio.base)
    library.load_lora_weights(str(studio.files / "style"), weight_name=STANDARD, adapter_name="style")
    library.set_adapters(["style"], [0.75])
    requests = [redraw(adapters=["style"], adapter_weights=[0.75]), redraw(mask=mask())]
    spec = ModelSpec(name="m", backend="sdxl", backend_kwargs=settings, lora=studio.config())
    with running(spec) as runtime:
        files = [future.result(120).image for future in [runtime.submit(request) for request in requests]]
    assert close_to(files[0].to_numpy(), call(library, requests[0]))
    untouched = pipeline_of("StableDiffusionXLInpaintPipeline", studio.base)
    assert close_to(files[1].to_numpy(), call(untouched, requests[1]))


def test_requests_that_name_none_get_the_default_until_they_name_another(flux: Studio) -> None:
    with running(flux.spec(lora=flux.config(default="ink"))) as runtime:
        default = (("ink", flux.weight("ink")),)
        for fields, active in (
            ({}, default),
            ({"adapters": ["sketch"], "adapter_weights": [1.5]}, None),
            ({}, default),
        ):
            request = draw(**fields)
            runtime.submit(request).result(60)
            check_drawn(runtime.backend, request, flux.alone(request, active or (("sketch", 1.5),)))


def test_adapters_that_a_deployment_lacks_are_refused(flux: Studio) -> None:
    plain = flux.spec().model_copy(update={"lora": None, "name": "plain"})
    for spec, adapters, fault in (
        (flux.spec(), ["sketch", "crayon"], ("not_allowed", "/adapters/1")),
        (plain, ["sketch"], ("unsupported", "/adapters")),
    ):
        with running(spec) as runtime:
            with pytest.raises(InvalidRequestError) as caught:
                runtime.submit(draw(adapters=adapters).model_copy(update={"model_name": spec.name}))
            assert fault_of(caught.value) == fault


def test_weights_that_no_model_can_draw_with_are_the_callers_fault(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sheaf.backends._families.diffusers import numbers

    absurd = [draw(adapters=["sketch", "ink"], adapter_weights=[1.0, w]) for w in (1e39, -1e300, 1001.0)]
    sound = draw(adapters=["sketch"], adapter_weights=[-2.0])
    with running(studio.spec()) as runtime:
        for request in absurd:
            with pytest.raises(InvalidRequestError) as caught:
                runtime.predict_now(request)
            assert fault_of(caught.value) == ("out_of_range", "/adapter_weights/1")
        assert runtime.predict_now(sound).width == sound.width
        # What passes and still overflows is told of too, not called a fault of the server.
        monkeypatch.setattr(numbers, "MAX_WEIGHT", float("inf"))
        with pytest.raises(InvalidRequestError) as caught:
            runtime.predict_now(draw(adapters=["sketch"], adapter_weights=[1e37]))
        assert fault_of(caught.value) == ("out_of_range", "/adapter_weights")
        assert runtime.predict_now(sound).width == sound.width


def test_a_default_that_cannot_be_loaded_stops_the_deployment(flux: Studio, tmp_path: Path) -> None:
    shutil.copytree(flux.files / "ink", tmp_path / "ink")
    spec = flux.spec(lora=flux.config("ink", default="ink", root=tmp_path))
    with running(spec):
        pass
    (tmp_path / "ink" / "pytorch_lora_weights.safetensors").unlink()
    with pytest.raises(Exception, match=r"adapter 'ink': .*holds no safetensors file"), running(spec):
        pass


def test_adapters_without_peft_say_what_to_install(flux: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    needed = re.escape(f"'flux' needs peft, of the extra diffusion: {install_command('diffusion')}")
    with pytest.raises(ModuleNotFoundError, match=needed), running(flux.spec()):
        pass


def test_an_adapter_that_cannot_be_loaded_fails_its_own_request_alone(flux: Studio, tmp_path: Path) -> None:
    shutil.copytree(flux.files / "ink", tmp_path / "ink")
    with running(flux.spec(lora=flux.config("ink", "sketch", root=tmp_path))) as runtime:
        requests = [
            draw(seed=k, adapters=names) for k, names in enumerate(([], ["ink"], ["sketch"], ["ink"]))
        ]
        futures = [runtime.submit(request) for request in requests]
        with pytest.raises(BackendError, match="The adapter 'sketch' cannot be loaded") as caught:
            futures[2].result(60)
        assert str(tmp_path) not in f"{caught.value} {caught.value.errors}"
        for k, active in ((0, ()), (1, (("ink", flux.weight("ink")),)), (3, (("ink", flux.weight("ink")),))):
            futures[k].result(60)
            check_drawn(runtime.backend, requests[k], flux.alone(requests[k], active))


def test_adapters_come_and_go_within_the_bound_while_requests_run(flux: Studio) -> None:
    names = ["sketch", "ink", "oil", "kohya"]
    with running(flux.spec(lora=flux.config(*names, default="sketch"))) as runtime:
        most = runtime.backend._adapters.size * 2
    with running(flux.spec(lora=flux.config(*names, max_bytes=most))) as runtime:
        adapters, seen = runtime.backend._adapters, set[str]()
        for k in range(12):
            name = names[k % 4]
            request = draw(seed=k, adapters=[name], num_inference_steps=2)
            runtime.submit(request).result(60)
            assert adapters.size <= most
            assert name in adapters.loaded
            seen |= set(adapters.loaded)
            check_drawn(runtime.backend, request, flux.alone(request, ((name, flux.weight(name)),)))
        assert seen == set(names)
        assert set(adapters.loaded) != seen, "the bound was to be too small for all"


def test_a_backend_that_cannot_mix_gets_one_selection_at_a_time(flux: Studio) -> None:
    with running(flux.spec(GroupedFlux)) as runtime:
        said = selections(flux) * 2
        requests = [draw(seed=k, **fields) for k, (fields, _) in enumerate(said)]
        futures = [runtime.submit(request) for request in requests]
        for future, request, (_, active) in zip(futures, requests, said, strict=True):
            future.result(120)
            check_drawn(runtime.backend, request, flux.alone(request, active))
        assert {len(set(forward)) for forward in runtime.backend.forwards} == {1}
        assert max(map(len, runtime.backend.forwards)) == 2, "equal selections were to share a forward"


def test_no_adapter_leaks_into_another_request_whatever_runs_at_once(studio: Studio) -> None:
    """Callers predict, stream, and leave streams in the middle, each with other adapters or with none."""
    said = selections(studio)
    wanted: dict[tuple[int, int], Pixels] = {}
    for k, (_, active) in enumerate(said):
        for steps in (2, 4):
            wanted[k, steps] = studio.alone(draw(seed=k, num_inference_steps=steps), active)
    start = threading.Barrier(len(said))

    def caller(number: int) -> None:
        start.wait()
        for turn in range(6):
            k, steps = (number + turn) % len(said), 2 + 2 * (turn % 2)
            request = draw(seed=k, num_inference_steps=steps, **said[k][0])
            if turn % 3 == 2:
                left = runtime.iter_stream(draw(seed=k, num_inference_steps=9, **said[k][0]))
                next(left)
                left.close()
            if turn % 3 == 1:
                assert isinstance(list(runtime.iter_stream(request))[-1], ResultEvent)
            else:
                runtime.submit(request).result(120)
            check_drawn(runtime.backend, request, wanted[k, steps])

    with running(studio.spec(batch_policy={"max_batch_size": 4})) as runtime:
        with ThreadPoolExecutor(len(said)) as callers:
            for done in [callers.submit(caller, number) for number in range(len(said))]:
                done.result()
        assert max(len(set(forward)) for forward in runtime.backend.forwards) > 1, "none was mixed"
        runtime.submit(last := draw()).result(60)
        np.testing.assert_array_equal(
            runtime.backend.drawn[last.request_id], call(studio.pipeline(), last), "something stayed"
        )


CASES: list[tuple[tuple[str, ...], dict[str, Any], ActiveAdapters]] = [
    ((), {}, ()),
    ((), {"adapters": ["sketch"]}, (("sketch", 0.5),)),
    ((), {"adapters": ["sketch"], "adapter_weights": [1.25]}, (("sketch", 1.25),)),
    (("sketch@0.8",), {}, (("sketch", 0.8),)),
    (("ink", "oil"), {}, (("ink", 0.625), ("oil", 0.75))),
    (("sketch@0.8",), {"adapters": []}, ()),
]
FIELDS: dict[str, Any] = {
    "prompt": "a cat",
    "seed": 1,
    "height": 64,
    "width": 64,
    "num_inference_steps": 3,
    "guidance_scale": 3.5,
}


def close_to(image: Any, wanted: Pixels) -> bool:
    """The file of 8 bits a channel has the pixels of the library."""
    return bool(np.abs(np.asarray(image) / 255 - wanted[0]).max() <= 0.5 / 255 + 2 * CLOSE)


@pytest.mark.parametrize("where", ["local", "http"])
def test_python_clients_select_adapters(flux: Studio, where: str) -> None:
    spec = flux.spec()
    server = EmbeddedServer([spec], port=0) if where == "http" else None
    with server or Sheaf.local([spec]) as at, Sheaf(at.url) if server else at as client:
        for selected, fields, active in CASES:
            selecting = client.with_adapters(*selected)
            wanted = flux.alone(draw(), active)
            answer = selecting.diffusion.generate(model="m", **FIELDS, **fields)
            assert close_to(answer.image.to_numpy(), wanted)
            with selecting.diffusion.stream(model="m", **FIELDS, **fields) as stream:
                assert close_to(stream.final().image.to_numpy(), wanted)
        with pytest.raises(InvalidRequestError) as caught:
            client.with_adapters("crayon@2").diffusion.generate(model="m", **FIELDS)
        assert fault_of(caught.value) == ("not_allowed", "/adapters/0")


SCRIPT = """
import { Sheaf } from "%s";

const cases = JSON.parse(process.argv[2]);
const client = new Sheaf({ baseUrl: process.env.SHEAF_BASE_URL });
const images = [];
for (const [selected, fields] of cases) {
  const answer = await client.withAdapters(...selected).diffusion.generate({ model: "m", ...fields });
  images.push(Buffer.from(answer.image).toString("base64"));
}
console.log(JSON.stringify(images));
"""


@pytest.mark.node
def test_the_typescript_client_selects_adapters(flux: Studio, tmp_path: Path) -> None:
    script = tmp_path / "draw.mjs"
    script.write_text(SCRIPT % CLIENT)
    given = [(selected, {**FIELDS, **fields}) for selected, fields, _ in CASES]
    with EmbeddedServer([flux.spec()], port=0) as server:
        done = subprocess.run(
            ["node", str(script), json.dumps(given)],
            env={**os.environ, "SHEAF_BASE_URL": server.url},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    for image, (_, _, active) in zip(json.loads(done.stdout), CASES, strict=True):
        assert close_to(opened(b64decode(image)), flux.alone(draw(), active))


@pytest.mark.parametrize("link", [STANDARD, "other.safetensors"])
def test_a_link_in_an_adapter_s_folder_does_not_lead_out_of_root(tmp_path: Path, link: str) -> None:
    from sheaf.backends._families.diffusers.adapter_files import AdapterError, find_file

    for name in ("root/ink", "root/kept", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("root/kept/a.safetensors", "elsewhere/a.safetensors"):
        (tmp_path / name).touch()
    adapters, path = {"ink": LoRAAdapter(source="ink")}, tmp_path / "root" / "ink" / link
    confined = LoRAConfig(adapters=adapters, root=tmp_path / "root")
    path.symlink_to(tmp_path / "elsewhere" / "a.safetensors")
    with pytest.raises(AdapterError, match="outside"):
        find_file("ink", confined)
    free = LoRAConfig(adapters={"ink": LoRAAdapter(source=str(path.parent))})
    assert find_file("ink", free) == path  # the deployer's own, who named no root
    path.unlink()
    path.symlink_to(tmp_path / "root" / "kept" / "a.safetensors")
    assert find_file("ink", confined) == path
