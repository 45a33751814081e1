"""LoRA in one pipeline: rows of a batch with their own adapters, memory within its bound, files refused."""

from __future__ import annotations

import gc
import logging
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sheaf.lora import ActiveAdapters, LoRAAdapter, LoRAConfig
from sheaf_client.errors import BackendError, OverloadedError
from tests.backends.diffusion.adapter_cases import FAMILIES, Studio
from tests.backends.diffusion.adapter_files import denoiser_of, make_adapter
from tests.backends.diffusion.diffusion_cases import CLOSE, call, draw

pytestmark = pytest.mark.torch


@pytest.fixture(params=FAMILIES)
def studio(request: pytest.FixtureRequest, studio_of: Callable[[str], Studio]) -> Studio:
    return studio_of(request.param)


@pytest.fixture
def flux(studio_of: Callable[[str], Studio]) -> Studio:
    return studio_of("flux")


@pytest.fixture
def pipe(studio: Studio) -> Any:
    return studio.pipeline()


def adapters_of(pipe: Any, config: LoRAConfig, **settings: Any) -> Any:
    from sheaf.backends._families.diffusers.adapters import Adapters

    return Adapters(pipe, config, **settings)


def every(names: list[str]) -> ActiveAdapters:
    return tuple((name, 1.0) for name in names)


MIX: list[ActiveAdapters] = [
    (("sketch", 0.3), ("ink", 0.9)),
    (("ink", 0.25),),
    (),
    (("sketch", 1.4),),
    (("oil", -0.5),),
    (("oil", 1.0), ("sketch", 0.0)),
]


def together(pipe: Any, requests: list[Any]) -> Any:
    """The images of several requests by one call of the library, which stacks them itself."""
    import torch

    given: dict[str, Any] = {"max_sequence_length": 32} if denoiser_of(pipe) == "transformer" else {}
    return pipe(
        prompt=[request.prompt for request in requests],
        height=64,
        width=64,
        num_inference_steps=3,
        guidance_scale=3.5,
        generator=[torch.Generator("cpu").manual_seed(request.seed) for request in requests],
        output_type="np",
        **given,
    ).images


def doubled(studio: Studio, rows: list[ActiveAdapters]) -> list[ActiveAdapters]:
    """Guidance of SDXL asks for all rows without the prompt, then for all with it."""
    return rows * 2 if studio.family == "sdxl" else rows


def hooks_of(pipe: Any) -> list[int]:
    networks = [part for part in pipe.components.values() if hasattr(part, "modules")]
    return [len(module._forward_hooks) for network in networks for module in network.modules()]


@pytest.mark.parametrize("order", [1, -1])
def test_each_row_has_its_own_adapters_and_weights(studio: Studio, pipe: Any, order: int) -> None:
    rows = MIX[::order]
    requests = [draw(prompt, seed=seed) for seed, prompt in enumerate(["a cat", "the dog"] * 3)]
    adapters = adapters_of(pipe, studio.config())
    with adapters.held(every(["sketch", "ink", "oil"])), adapters.rows(doubled(studio, rows)):
        drawn = together(pipe, requests)
    for request, active, image in zip(requests, rows, drawn, strict=True):
        np.testing.assert_allclose(image, studio.alone(request, active)[0], atol=CLOSE, rtol=0)
    changed = np.abs(drawn - together(pipe, requests)).max(axis=(1, 2, 3))
    assert [bool(most > 0.05) for most in changed] == [bool(active) for active in rows]


@pytest.mark.parametrize(
    "active", [(("style", 0.8),), (("kohya", 0.7),), (("style", 0.5), ("sketch", 1.0))], ids=str
)
def test_text_encoders_get_what_was_trained_for_them(
    studio: Studio, pipe: Any, active: ActiveAdapters
) -> None:
    request = draw()
    adapters = adapters_of(pipe, studio.config())
    with adapters.held(active), adapters.text(active), adapters.rows(doubled(studio, [active])):
        drawn = call(pipe, request)
    np.testing.assert_allclose(drawn, studio.alone(request, active), atol=CLOSE, rtol=0)
    if active[0][0] == "style":
        with adapters.held(active), adapters.rows(doubled(studio, [active])):
            assert np.abs(call(pipe, request) - drawn).max() > 0.01


def test_a_pipeline_that_has_used_adapters_is_the_one_that_was_loaded(studio: Studio, pipe: Any) -> None:
    before = {name: type(module) for name, module in pipe.components[denoiser_of(pipe)].named_modules()}
    flags = [parameter.requires_grad for parameter in getattr(pipe, denoiser_of(pipe)).parameters()]
    never = call(studio.pipeline(), draw())
    call(pipe, draw())  # the libraries hang in hooks of their own
    hooks = hooks_of(pipe)
    adapters = adapters_of(pipe, studio.config(default="sketch"))
    active = (("style", 1.0),)
    with adapters.held(active), adapters.text(active), adapters.rows(doubled(studio, [active])):
        assert np.abs(call(pipe, draw()) - never).max() > 0.05
    with pytest.raises(ZeroDivisionError), adapters.text(active), adapters.rows([active]):
        _ = 1 / 0
    with adapters.held(()), adapters.text(()), adapters.rows([(), ()]):
        np.testing.assert_array_equal(call(pipe, draw()), never)
    np.testing.assert_array_equal(call(pipe, draw()), never)
    denoiser = getattr(pipe, denoiser_of(pipe))
    assert {name: type(module) for name, module in denoiser.named_modules()} == before
    assert [parameter.requires_grad for parameter in denoiser.parameters()] == flags
    assert hooks_of(pipe) == hooks


def test_loading_leaves_the_process_as_it_was(
    studio: Studio, pipe: Any, caplog: pytest.LogCaptureFixture
) -> None:
    import torch

    loggers = [logging.getLogger(name) for name in ("transformers.modeling_utils", "peft", "diffusers")]
    before = [list(logger.filters) for logger in loggers]
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    with adapters_of(pipe, studio.config()).held(every(studio.names)):
        assert torch.equal(torch.rand(3), wanted)
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
    assert [list(logger.filters) for logger in loggers] == before
    assert "newly initialized" not in caplog.text


def test_a_pass_of_other_rows_than_said_is_refused(studio: Studio, pipe: Any) -> None:
    adapters, active = adapters_of(pipe, studio.config()), (("ink", 1.0),)
    refused = pytest.raises(RuntimeError, match="rows, and the batch has 3")
    with adapters.held(active), adapters.rows([active] * 3), refused:
        call(pipe, draw())


def test_weights_are_kept_in_the_dtype_of_their_layers(studio: Studio) -> None:
    import torch

    pipe = studio.pipeline()
    exact = adapters_of(pipe, studio.config("sketch", default="sketch")).size
    pipe.to(torch.bfloat16)
    assert adapters_of(pipe, studio.config("sketch", default="sketch")).size == exact // 2


def test_files_may_be_in_half_precision(flux: Studio, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    half = {key: matrix.to(torch.bfloat16) for key, matrix in load_file(flux.file("ink")).items()}
    save_file(half, tmp_path / "half.safetensors")
    save_file({key: matrix.float() for key, matrix in half.items()}, tmp_path / "full.safetensors")
    sources = {name: LoRAAdapter(source=f"{name}.safetensors") for name in ("half", "full")}
    pipe = flux.pipeline()
    adapters = adapters_of(pipe, LoRAConfig(adapters=sources, root=tmp_path))
    drawn: list[Any] = []
    for name in sources:
        with adapters.held(every([name])), adapters.rows([every([name])]):
            drawn.append(call(pipe, draw()))
    np.testing.assert_array_equal(*drawn)


def test_the_least_recently_used_go_when_memory_is_short_and_are_freed(flux: Studio) -> None:
    pipe = flux.pipeline()
    sizes = {name: adapters_of(pipe, flux.config(name, default=name)).size for name in flux.names}
    bound = sizes["sketch"] + sizes["oil"]
    adapters = adapters_of(pipe, flux.config(default="sketch", max_bytes=bound))
    assert (adapters.loaded, adapters.size) == (("sketch",), sizes["sketch"])
    weights = [
        weakref.ref(parameter)
        for factors in adapters._kept["sketch"].parts["transformer"].values()
        for parameter in factors.tensors()
    ]
    assert sum(weight().nbytes for weight in weights) == adapters.size
    with adapters.held(every(["oil"])), adapters.held(every(["sketch"])):
        assert adapters.loaded == ("oil", "sketch")
        with adapters.rows([every(["sketch"])]):
            call(pipe, draw())
    with adapters.held(every(["ink"])):  # goes in where `oil`, of longer ago, was
        assert adapters.loaded == ("sketch", "ink")
    with adapters.held(every(["style"])):
        pass
    assert "sketch" not in adapters.loaded
    assert adapters.size == sum(sizes[name] for name in adapters.loaded) <= bound
    gc.collect()
    assert [weight() for weight in weights] == [None] * len(weights)
    with adapters.held(every(["sketch"])), adapters.rows([every(["sketch"])]):
        again = call(pipe, draw())
    np.testing.assert_allclose(again, flux.alone(draw(), every(["sketch"])), atol=CLOSE, rtol=0)


def test_an_adapter_in_use_is_never_dropped(flux: Studio) -> None:
    pipe = flux.pipeline()
    bound = adapters_of(pipe, flux.config("sketch", default="sketch")).size
    adapters = adapters_of(pipe, flux.config("sketch", "ink", max_bytes=bound))
    with adapters.held(every(["sketch"])):
        with (
            pytest.raises(OverloadedError, match="no room for 'ink'") as caught,
            adapters.held(every(["ink"])),
        ):
            pass
        assert caught.value.retry_after == 1
        assert adapters.loaded == ("sketch",)
    with adapters.held(every(["ink"])):
        assert adapters.loaded == ("ink",)


def test_an_adapter_larger_than_the_bound_is_refused(flux: Studio) -> None:
    with pytest.raises(RuntimeError, match=r"'sketch' has \d+ bytes, and `max_bytes` is 100"):
        adapters_of(flux.pipeline(), flux.config("sketch", default="sketch", max_bytes=100))


def test_a_file_that_is_mended_is_read_again(flux: Studio, tmp_path: Path, caplog: Any) -> None:
    config = flux.config("sketch", root=tmp_path)
    patient, eager = (adapters_of(flux.pipeline(), config, retry_seconds=s) for s in (3600.0, 0.0))
    for adapters in (patient, eager):
        refused = pytest.raises(BackendError, match="'sketch' cannot be loaded")
        with refused as caught, adapters.held(every(["sketch"])):
            pass
        assert str(tmp_path) not in str(caught.value)
    assert caplog.text.count(f"there is no file {tmp_path}") == 2
    shutil.copytree(flux.files / "sketch", tmp_path / "sketch")
    with eager.held(every(["sketch"])):
        assert eager.loaded == ("sketch",)
    with pytest.raises(BackendError), patient.held(every(["sketch"])):
        pass


def refusal(studio: Studio, source: str, root: Path) -> str:
    config = LoRAConfig(adapters={"a": LoRAAdapter(source=source)}, default="a", root=root)
    with pytest.raises(RuntimeError) as caught:
        adapters_of(studio.pipeline(), config)
    assert type(caught.value).__name__ == "AdapterError"
    assert str(caught.value).startswith("adapter 'a': ")
    return str(caught.value)


def test_a_source_without_one_file_says_what_is_there(flux: Studio, tmp_path: Path) -> None:
    assert f"there is no file {tmp_path}/no.safetensors" in refusal(flux, "no.safetensors", tmp_path)
    (tmp_path / "empty").mkdir()
    assert "holds no safetensors file" in refusal(flux, "empty", tmp_path)
    for name in ("one", "two"):
        shutil.copy(flux.file("ink"), tmp_path / f"{name}.safetensors")
    assert "one.safetensors, two.safetensors: name one" in refusal(flux, ".", tmp_path)


def test_a_file_that_is_no_lora_of_this_model_is_refused_by_its_name(flux: Studio, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    file = tmp_path / "a.safetensors"

    def refused(state: dict[str, Any]) -> str:
        save_file(state, file)
        said = refusal(flux, "a.safetensors", tmp_path)
        assert f"{file} is no LoRA for this model" in said
        return said

    file.write_bytes(b"\x80\x04broken")
    assert f"{file} is no LoRA" in refusal(flux, "a.safetensors", tmp_path)
    torch.save({"transformer.x": torch.zeros(2)}, file)  # a pickle by another name
    assert f"{file} is no LoRA" in refusal(flux, "a.safetensors", tmp_path)
    good = load_file(flux.file("sketch"))
    key = next(iter(good))
    assert "norm_q" in refused(
        {**good, "transformer.transformer_blocks.0.attn.norm_q.weight": torch.ones(16)}
    )
    assert "text_encoder_2" in refused({**good, "text_encoder_2.encoder.x.lora_A.weight": torch.ones(2, 2)})
    assert "2 of its matrices belong to none" in refused(
        {**good, **{f"transformer.transformer_blocks.7.to_q.lora_{f}.weight": torch.ones(4, 4) for f in "AB"}}
    )
    assert "not finite" in refused({**good, key: torch.full_like(good[key], torch.nan)})
    assert "size mismatch" in refused({name: torch.cat([t, t], -1) for name, t in good.items()})
    assert "DoRA" in refused({**good, key.replace("lora_A.weight", "dora_scale"): torch.ones(32)})
    refused({"transformer.x.lokr_w1": torch.ones(2, 2), "transformer.x.lokr_w2": torch.ones(2, 2)})
    refused({"model.weight": torch.ones(2, 2)})
    refused({})


def test_dora_that_the_library_itself_wrote_is_refused(studio: Studio, tmp_path: Path) -> None:
    make_adapter(tmp_path / "dora", studio.pipeline(), seed=1, use_dora=True)
    assert "DoRA" in refusal(studio, "dora", tmp_path)


def test_an_adapter_of_another_family_is_refused(studio: Studio, studio_of: Callable[[str], Studio]) -> None:
    foreign = studio_of("sdxl" if studio.family == "flux" else "flux")
    for name in ("sketch", "kohya"):
        assert "is no LoRA for this model" in refusal(studio, name, foreign.files)


def test_adapters_of_the_hub_come_from_its_cache_where_there_is_no_network(
    flux: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The repository in the layout of the hub's own cache, with two revisions."""
    repo = tmp_path / "models--org--sketch"
    for branch, commit, adapter in (("main", "a" * 40, "sketch"), ("v2", "b" * 40, "oil")):
        (repo / "snapshots" / commit).mkdir(parents=True)
        shutil.copy(flux.file(adapter), repo / "snapshots" / commit / "style.safetensors")
        (repo / "refs").mkdir(exist_ok=True)
        (repo / "refs" / branch).write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    declared = {
        "named": LoRAAdapter(source="hf:org/sketch:style.safetensors"),
        "only": LoRAAdapter(source="hf:org/sketch"),
        "v2": LoRAAdapter(source="hf:org/sketch", revision="v2"),
        "gone": LoRAAdapter(source="hf:org/gone"),
    }
    pipe = flux.pipeline()
    adapters = adapters_of(pipe, LoRAConfig(adapters=declared))
    for name, same in (("named", "sketch"), ("only", "sketch"), ("v2", "oil")):
        with adapters.held(every([name])), adapters.rows([every([name])]):
            drawn = call(pipe, draw())
        np.testing.assert_allclose(drawn, flux.alone(draw(), every([same])), atol=CLOSE, rtol=0)
    with pytest.raises(BackendError, match="'gone' cannot be loaded"), adapters.held(every(["gone"])):
        pass
