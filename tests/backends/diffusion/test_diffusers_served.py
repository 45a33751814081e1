"""FLUX and SDXL behind the engine: joining, streams, leaving, and what is refused."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from sheaf.engine import ModelRuntime
from sheaf_client import ProgressEvent, ResultEvent, Sheaf
from sheaf_client.contracts.events import ImageProgress
from sheaf_client.errors import InvalidRequestError
from tests.backends.answers import fault_of
from tests.backends.diffusion.diffusion_cases import (
    call,
    draw,
    mask,
    opened,
    picture,
    pipeline_of,
    redraw,
    spec_of,
)

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def runtimes(diffusion_checkpoints: dict[str, str]) -> Iterator[dict[str, ModelRuntime]]:
    specs = {
        "flux": spec_of("flux", diffusion_checkpoints),
        "sdxl": spec_of("sdxl", diffusion_checkpoints),
        "redraw": spec_of("sdxl", diffusion_checkpoints, mode="img2img"),
    }
    started = {name: ModelRuntime(spec) for name, spec in specs.items()}
    for runtime in started.values():
        runtime.start()
    yield started
    for runtime in started.values():
        runtime.stop()


class Forwards:
    """Rows of the forwards of a model's denoiser; the one of a given number waits for the gate."""

    def __init__(self, held: int) -> None:
        self.rows: list[int] = []
        self.held = held
        self.entered, self.gate = threading.Event(), threading.Event()

    def note(self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = [*args, *(kwargs[name] for name in ("hidden_states", "sample") if name in kwargs)]
        self.rows.append(len(given[0]))
        if len(self.rows) == self.held:
            self.entered.set()
            assert self.gate.wait(60)


@contextmanager
def watched(runtime: ModelRuntime, held: int = 0) -> Iterator[Forwards]:
    forwards = Forwards(held)
    backend: Any = runtime.backend
    hook = backend.denoiser.register_forward_pre_hook(forwards.note, with_kwargs=True)
    try:
        yield forwards
    finally:
        forwards.gate.set()
        hook.remove()


def end_of_courses() -> None:
    for thread in threading.enumerate():
        if thread.name == "sheaf-loop":
            thread.join(60)
            assert not thread.is_alive()


def test_a_short_request_joins_a_long_one_at_a_step_and_leaves_before_it(
    runtimes: dict[str, ModelRuntime], diffusion_checkpoints: dict[str, str]
) -> None:
    runtime = runtimes["flux"]
    long, short = draw(num_inference_steps=8), draw("the dog", 2, num_inference_steps=2)
    with watched(runtime, held=3) as forwards:
        first = runtime.submit(long)
        assert forwards.entered.wait(60)
        second = runtime.submit(short)
        forwards.gate.set()
        answers = [first.result(60), second.result(60)]
    assert forwards.rows == [1, 1, 1, 2, 2, 1, 1, 1]
    library = pipeline_of("FluxPipeline", diffusion_checkpoints["flux"])
    for request, answer in zip((long, short), answers, strict=True):
        assert answer.metadata.usage.batch_size == 2
        assert np.abs(answer.image.to_numpy() / 255 - call(library, request)[0]).max() < 1 / 255


@pytest.mark.parametrize("name", ["flux", "sdxl", "redraw"])
def test_a_stream_tells_every_step_and_ends_in_the_answer(
    name: str, runtimes: dict[str, ModelRuntime]
) -> None:
    fields: dict[str, Any] = {"preview_interval": 2, "negative_prompt": "sketch"}
    if name == "redraw":
        request: Any = redraw(num_inference_steps=10, strength=0.5, image=picture(320, 640), **fields)
    else:
        request = draw(num_inference_steps=5, height=640, width=320, **fields)
    *events, last = list(runtimes[name].iter_stream(request))
    assert all(isinstance(event, ImageProgress) for event in events)
    progress = [event for event in events if isinstance(event, ImageProgress)]
    assert [(event.step, event.total_steps) for event in progress] == [(n, 5) for n in range(1, 6)]
    previews = [event.preview for event in progress]
    assert [preview is not None for preview in previews] == [False, True, False, True, False]
    shown = [preview.to_numpy() for preview in previews if preview is not None]
    assert [pixels.shape for pixels in shown] == [(256, 128, 3)] * 2
    assert isinstance(last, ResultEvent)
    assert last.response.image == runtimes[name].predict_now(request).image


def test_a_preview_near_the_end_shows_the_picture(runtimes: dict[str, ModelRuntime]) -> None:
    request = draw(num_inference_steps=4, preview_interval=4, height=128, width=128)
    *_, event, last = list(runtimes["flux"].iter_stream(request))
    assert isinstance(event, ImageProgress)
    assert isinstance(last, ResultEvent)
    assert event.preview is not None
    difference = event.preview.to_numpy().astype(float) - last.response.image.to_numpy()
    assert np.abs(difference).mean() < 10, "nothing but the loss of JPEG"


def test_a_caller_who_leaves_ends_the_loop(runtimes: dict[str, ModelRuntime]) -> None:
    runtime = runtimes["flux"]
    with watched(runtime, held=3) as forwards:
        stream = runtime.iter_stream(draw(num_inference_steps=50))
        event = next(stream)
        assert isinstance(event, ProgressEvent)
        assert forwards.entered.wait(60)
        stream.close()
        forwards.gate.set()
        runtime.predict_now(draw(seed=9, num_inference_steps=2))
        assert forwards.rows == [1] * 5
    end_of_courses()


def test_the_client_draws_in_this_process(diffusion_checkpoints: dict[str, str]) -> None:
    specs = [
        spec_of("flux", diffusion_checkpoints),
        spec_of("sdxl", diffusion_checkpoints, mode="inpaint"),
    ]
    with Sheaf.local(specs) as client:
        size = {"height": 64, "width": 64}
        drawn = client.diffusion.generate(model="flux", prompt="a cat", num_images=2, **size)
        again = client.diffusion.generate(model="flux", prompt="a cat", seed=drawn.seed, **size)
        assert np.abs(drawn.image.to_numpy().astype(int) - again.image.to_numpy()).max() <= 1
        assert drawn.images is not None
        assert len(drawn.images) == 2
        files = {
            name: client.diffusion.generate(
                model="flux",
                prompt="a cat",
                seed=1,
                output_format=name,  # type: ignore[arg-type]
                **size,
            ).image
            for name in ("png", "jpeg", "webp")
        }
        assert [file.to_pil().format for file in files.values()] == ["PNG", "JPEG", "WEBP"]
        assert np.abs(files["png"].to_numpy().astype(int) - files["webp"].to_numpy()).mean() < 10
        redrawn = client.multimodal_generation.generate(
            model="sdxl", prompt="a dog", image=picture(), mask=mask(), num_inference_steps=4, strength=0.5
        )
        assert redrawn.image.to_pil().size == (64, 64)
        with pytest.raises(InvalidRequestError) as refused:
            client.diffusion.generate(model="flux", prompt="a cat", height=72, width=64)
        assert fault_of(refused.value) == ("out_of_range", "/height")


def test_seeds_that_are_not_given_are_drawn(runtimes: dict[str, ModelRuntime]) -> None:
    request = draw(seed=None)
    assert not runtimes["flux"].backend.deterministic(request)
    assert runtimes["flux"].backend.deterministic(draw(seed=0))
    seeds = {runtimes["flux"].predict_now(request).seed for _ in range(3)}
    assert len(seeds) == 3


def damaged(png: bytes) -> bytes:
    """A PNG whose parts are all there, and whose pixels cannot be unpacked."""
    start = png.index(b"IDAT") + 4
    return png[:start] + b"\xff" * 16 + png[start + 16 :]


@pytest.mark.parametrize(
    ("request_", "fault"),
    [
        # What the header tells is refused by the contract; this is seen once it is decoded.
        (lambda: redraw(image=damaged(picture())), ("bad_format", "/image_b64")),
        (lambda: redraw(image=picture(4, 64)), ("out_of_range", "/image_b64")),
        (lambda: redraw(image=picture(4104, 8)), ("too_large_media", "/image_b64")),
        (lambda: redraw(mask=damaged(mask())), ("bad_format", "/mask_b64")),
        (lambda: redraw(mask=mask(64, 72)), ("mismatch", "/mask_b64")),
        (lambda: redraw(strength=0.1, num_inference_steps=5), ("out_of_range", "/strength")),
    ],
)
def test_bad_requests_are_refused_with_their_place(
    request_: Callable[[], Any], fault: tuple[str, str], runtimes: dict[str, ModelRuntime]
) -> None:
    runtime, good = runtimes["redraw"], redraw(num_inference_steps=2)
    with pytest.raises(InvalidRequestError) as refused:
        runtime.predict_now(request_())
    assert fault_of(refused.value) == fault
    outcomes = runtime.backend.predict_all([good, request_()])
    assert not isinstance(outcomes[0], Exception)
    assert fault_of(outcomes[1]) == fault


def test_sizes_are_multiples_of_what_the_model_draws(runtimes: dict[str, ModelRuntime]) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        runtimes["flux"].backend.check(draw(width=72))
    assert fault_of(refused.value) == ("out_of_range", "/width")
    runtimes["sdxl"].backend.check(draw(width=72))


def test_an_image_of_another_size_is_made_smaller_with_a_warning(runtimes: dict[str, ModelRuntime]) -> None:
    answer = runtimes["redraw"].predict_now(redraw(image=picture(70, 81), mask=mask(70, 81)))
    assert (answer.width, answer.height) == (64, 80)
    assert answer.image.to_pil().size == (64, 80)
    assert "70 x 81" in answer.metadata.warnings[0]


def test_photos_are_turned_upright(runtimes: dict[str, ModelRuntime]) -> None:
    from PIL import Image, ImageOps

    exif = Image.Exif()
    exif[0x0112] = 6
    turned = picture(64, 96, kind="jpeg", exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(turned)))
    answer = runtimes["redraw"].predict_now(redraw(image=turned, strength=0.0, mask=mask(96, 64)))
    assert (answer.width, answer.height) == (96, 64)
    assert np.array_equal(answer.image.to_numpy(), np.asarray(upright))


def test_strength_nought_keeps_the_image(runtimes: dict[str, ModelRuntime]) -> None:
    request = redraw(strength=0.0, num_images=2)
    assert runtimes["redraw"].backend.deterministic(request)
    assert not runtimes["redraw"].backend.deterministic(redraw(strength=0.5, seed=None))
    with watched(runtimes["redraw"]) as forwards:
        (*_, last) = list(runtimes["redraw"].iter_stream(request))
    assert isinstance(last, ResultEvent)
    assert forwards.rows == []
    assert [np.array_equal(f.to_numpy(), opened(request.image)) for f in last.response.images] == [True, True]


def logs() -> dict[str, Any]:
    """What of the logs is the process's: how much the libraries tell, and what filters it."""
    import diffusers
    import transformers

    loggings: list[Any] = [diffusers.utils.logging, transformers.utils.logging]
    loggers = {name: logging.getLogger(name) for name in logging.root.manager.loggerDict}
    told = {found.__name__: (found.get_verbosity(), found.is_progress_bar_enabled()) for found in loggings}
    return {name: len(logger.filters) for name, logger in loggers.items()} | told


@pytest.mark.parametrize("kind", ["flux", "sdxl"])
def test_logs_stay_as_they_are_and_nothing_is_printed(
    kind: str, diffusion_checkpoints: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    backend: Any = spec_of(kind, diffusion_checkpoints).make_backend()
    before = logs()
    backend.load()
    assert {name: state for name, state in logs().items() if name in before} == before
    backend.warm_up()
    answer = backend.predict(draw(" ".join(["a cat"] * 90), negative_prompt="sketch"))
    assert "truncated" in answer.metadata.warnings[0]
    state = backend.prepare(draw())
    backend.step([state])
    backend.discard(state)
    end_of_courses()
    assert {name: state for name, state in logs().items() if name in before} == before
    assert all(parameter.grad is None for parameter in backend.denoiser.parameters())
    assert capfd.readouterr() == ("", "")
