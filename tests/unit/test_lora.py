"""Adapters of a deployment: sources, defaults, weights, and what is refused at deployment and by request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sheaf.api.diffusion import DiffusionRequest
from sheaf.backends.base import ModelBackend
from sheaf.engine import ModelRuntime
from sheaf.lora import (
    AdapterSource,
    LoRAAdapter,
    LoRAConfig,
    bucket_with_adapter_resolution,
    parse_source,
    resolve_active_adapters,
)
from sheaf.spec import ModelSpec
from sheaf_client.errors import InvalidRequestError
from tests.contract.echo import EchoBackend


class Plain(EchoBackend.of("diffusion")):  # type: ignore[misc]
    """A model of images without adapters."""

    takes_adapters = False
    resolve_adapters = ModelBackend.resolve_adapters


CONFIG = LoRAConfig(
    adapters={
        "sketch": LoRAAdapter(source="hf:org/sketch", weight=0.8),
        "ink": LoRAAdapter(source="hf:org/inks:ink.safetensors"),
    },
    default="ink",
)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("hf:org/repo", AdapterSource(repo="org/repo")),
        ("hf:org/repo:a/b.safetensors", AdapterSource(repo="org/repo", file="a/b.safetensors")),
        ("styles/sketch", AdapterSource(path=Path("styles/sketch"))),
        ("styles/sketch.safetensors", AdapterSource(path=Path("styles/sketch.safetensors"))),
    ],
)
def test_sources_are_repositories_or_paths(source: str, expected: AdapterSource) -> None:
    assert parse_source(source) == expected


@pytest.mark.parametrize(
    "source",
    ["", "hf:repo", "hf:org/repo:model.bin", "hf:org/repo:../x.safetensors", "https://x/y", "a/b.ckpt"],
)
def test_other_sources_are_refused(source: str) -> None:
    with pytest.raises(ValueError, match=r"expected|safetensors"):
        parse_source(source)


def test_a_requests_weights_go_before_the_declared_ones() -> None:
    assert resolve_active_adapters(["sketch", "ink"], None, CONFIG) == (("sketch", 0.8), ("ink", 1.0))
    assert resolve_active_adapters(["sketch"], [0.25], CONFIG) == (("sketch", 0.25),)


def test_a_request_that_names_none_gets_the_default() -> None:
    assert resolve_active_adapters([], None, CONFIG) == (("ink", 1.0),)
    plain = CONFIG.model_copy(update={"default": None})
    assert resolve_active_adapters([], None, plain) == ()


@pytest.mark.parametrize(
    ("config", "code", "path"), [(CONFIG, "not_allowed", "/adapters/1"), (None, "unsupported", "/adapters")]
)
def test_unknown_adapters_are_refused_with_their_path(
    config: LoRAConfig | None, code: str, path: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        resolve_active_adapters(["ink", "oil"], None, config)
    assert [(f.code, f.path) for f in caught.value.errors] == [(code, path)]


def test_local_adapters_lie_in_their_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "out").symlink_to(tmp_path)
    inside = {"a": LoRAAdapter(source="a.safetensors")}
    assert LoRAConfig(adapters=inside, root=tmp_path / "in").adapters == inside
    with pytest.raises(ValidationError, match="set `root`"):
        LoRAConfig(adapters=inside)
    for source in ("../a.safetensors", "/etc/a.safetensors", "out/a.safetensors"):
        with pytest.raises(ValidationError, match="outside"):
            LoRAConfig(adapters={"a": LoRAAdapter(source=source)}, root=tmp_path / "in")


def test_a_default_must_be_declared() -> None:
    with pytest.raises(ValidationError, match="default 'oil'"):
        LoRAConfig(adapters=CONFIG.adapters, default="oil")


def request(**fields: Any) -> DiffusionRequest:
    return DiffusionRequest(model_name="m", prompt="a kite", **fields)


def test_requests_are_grouped_by_field_and_by_resolved_adapters() -> None:
    requests = [
        request(adapters=["ink"]),
        request(),  # the default is ink too
        request(adapters=["ink"], adapter_weights=[0.5]),
        request(num_inference_steps=8),
        request(adapters=["ink"], adapter_weights=[0.5]),
    ]
    groups = bucket_with_adapter_resolution(requests, "num_inference_steps", CONFIG)
    assert [(indices, active) for indices, _, active in groups] == [
        ([0, 1], (("ink", 1.0),)),
        ([2, 4], (("ink", 0.5),)),
        ([3], (("ink", 1.0),)),
    ]


def test_a_backend_without_adapters_is_refused_at_deployment() -> None:
    with pytest.raises(ValidationError, match="takes no adapters"):
        ModelSpec(name="m", backend_cls=Plain, lora=CONFIG)


def test_adapters_on_a_deployment_without_them_are_refused() -> None:
    runtime = ModelRuntime(ModelSpec(name="m", backend_cls=Plain))
    runtime.start()
    try:
        with pytest.raises(InvalidRequestError) as caught:
            runtime.submit(request(adapters=["ink"]))
    finally:
        runtime.stop()
    assert [(f.code, f.path) for f in caught.value.errors] == [("unsupported", "/adapters")]
