"""Adapters of a deployment: sources, defaults, weights, and what is refused at deployment and by request."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
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
    read_source,
    resolve_active_adapters,
    select_adapters,
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


def request(**fields: Any) -> DiffusionRequest:
    return DiffusionRequest(model_name="m", prompt="a kite", **fields)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("hf:org/repo", AdapterSource(repo="org/repo")),
        ("hf:org/repo:a/b.safetensors", AdapterSource(repo="org/repo", file="a/b.safetensors")),
        ("styles/sketch", AdapterSource(path=Path("styles/sketch"))),
        ("styles/sketch.safetensors", AdapterSource(path=Path("styles/sketch.safetensors"))),
        ("styles/v1.5", AdapterSource(path=Path("styles/v1.5"))),
    ],
)
def test_sources_are_repositories_or_paths(source: str, expected: AdapterSource) -> None:
    assert read_source(source) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("hf:org/repo", ("org/repo", None)),
        ("hf:org/repo:weight.safetensors", ("org/repo", "weight.safetensors")),
        ("/abs/path/file.safetensors", ("/abs/path/file.safetensors", None)),
        ("./relative/path", ("./relative/path", None)),
    ],
)
def test_a_source_is_parsed_into_what_loaders_take(source: str, expected: tuple[str, str | None]) -> None:
    assert parse_source(source) == expected


@pytest.mark.parametrize("source", ["", "hf:repo", "hf:org/repo:../x.safetensors", "https://x/y"])
def test_other_sources_are_refused(source: str) -> None:
    for read in (read_source, parse_source):
        with pytest.raises(ValueError, match="expected"):
            read(source)


@pytest.mark.parametrize("source", ["hf:org/repo:model.bin", "a/b.ckpt", "/a/pytorch_lora_weights.PT"])
def test_pickles_are_refused_with_the_reason(source: str) -> None:
    with pytest.raises(ValidationError, match="pickles, which can run code when they are read"):
        LoRAAdapter(source=source)


def test_a_requests_weights_go_before_the_declared_ones() -> None:
    both = request(adapters=["sketch", "ink"])
    assert select_adapters(both, CONFIG) == (("sketch", 0.8), ("ink", 1.0))
    assert resolve_active_adapters(both, CONFIG) == (["sketch", "ink"], [0.8, 1.0])
    weighed = request(adapters=["sketch"], adapter_weights=[0.25])
    assert resolve_active_adapters(weighed, CONFIG) == (["sketch"], [0.25])


def test_a_request_that_names_none_gets_the_default() -> None:
    assert resolve_active_adapters(request(), CONFIG) == (["ink"], [1.0])
    plain = CONFIG.model_copy(update={"default": None})
    assert resolve_active_adapters(request(), plain) == ([], [])
    assert resolve_active_adapters(SimpleNamespace(), CONFIG) == (["ink"], [1.0])


def test_without_declared_adapters_nothing_is_resolved() -> None:
    requests = [request(adapters=["ink"]), request()]
    assert resolve_active_adapters(requests[0], None) == ([], [])
    assert bucket_with_adapter_resolution(requests, None) == [([0, 1], requests, [], [])]
    assert bucket_with_adapter_resolution([], CONFIG) == []


@pytest.mark.parametrize(
    ("config", "code", "path"),
    [
        (CONFIG, "not_allowed", "/adapters/1"),
        (LoRAConfig(), "unsupported", "/adapters"),
        (None, "unsupported", "/adapters"),
    ],
)
def test_unknown_adapters_are_refused_with_their_path(
    config: LoRAConfig | None, code: str, path: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        select_adapters(request(adapters=["ink", "oil"]), config)
    assert [(f.code, f.path) for f in caught.value.errors] == [(code, path)]
    assert isinstance(caught.value, ValueError)


def test_an_unknown_adapter_is_a_value_error_that_says_which_there_are() -> None:
    with pytest.raises(ValueError, match="This deployment has ink, sketch"):
        resolve_active_adapters(request(adapters=["oil"]), CONFIG)
    with pytest.raises(ValueError, match="adapters"):
        bucket_with_adapter_resolution([request(), request(adapters=["oil"])], CONFIG)
    copied = pickle.loads(pickle.dumps(_refusal()))  # noqa: S301 - our own, as processes hand it on
    assert isinstance(copied, ValueError)
    assert copied.errors == _refusal().errors


def _refusal() -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        select_adapters(request(adapters=["oil"]), CONFIG)
    return caught.value


def test_a_local_adapter_of_a_spec_may_lie_anywhere(tmp_path: Path) -> None:
    for source in (str(tmp_path / "sketch.safetensors"), "styles/sketch", "./sketch.safetensors"):
        config = LoRAConfig(adapters={"sketch": LoRAAdapter(source=source)})
        assert config.locate("sketch", read_source(source)) == Path(source)
        assert config.unconfined() == ["sketch"]
    assert CONFIG.unconfined() == []


def test_local_adapters_lie_in_their_folder_where_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "out").symlink_to(tmp_path)
    inside = {"a": LoRAAdapter(source="a.safetensors")}
    config = LoRAConfig(adapters=inside, root=tmp_path / "in")
    assert (config.adapters, config.unconfined()) == (inside, [])
    for source in ("../a.safetensors", "/etc/a.safetensors", "out/a.safetensors"):
        with pytest.raises(ValidationError, match="outside"):
            LoRAConfig(adapters={"a": LoRAAdapter(source=source)}, root=tmp_path / "in")


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="a path into a circle is one like others there")
def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "round").symlink_to(tmp_path / "round")
    for source in ("round", "round/a.safetensors"):
        with pytest.raises(ValidationError, match="leads nowhere"):
            LoRAConfig(adapters={"a": LoRAAdapter(source=source)}, root=tmp_path)


def test_a_default_must_be_declared() -> None:
    with pytest.raises(ValidationError, match="default 'oil'"):
        LoRAConfig(adapters=CONFIG.adapters, default="oil")


def test_requests_are_grouped_by_resolved_adapters() -> None:
    requests = [
        request(adapters=["ink"]),
        request(),  # the default is ink too
        request(adapters=["ink"], adapter_weights=[0.5]),
        request(adapters=["ink", "sketch"]),
        request(adapters=["ink"], adapter_weights=[0.5]),
        request(adapters=["sketch", "ink"]),
    ]
    assert bucket_with_adapter_resolution(requests, CONFIG) == [
        ([0, 1], requests[:2], ["ink"], [1.0]),
        ([2, 4], [requests[2], requests[4]], ["ink"], [0.5]),
        ([3], [requests[3]], ["ink", "sketch"], [1.0, 0.8]),
        ([5], [requests[5]], ["sketch", "ink"], [0.8, 1.0]),
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
