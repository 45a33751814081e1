"""LoRA adapters of a deployment: where they come from, which is the default, and what one request selects.

An adapter is declared once, on the spec, under the name that requests use. A request's own weights go before
the declared ones, so that `adapters=["sketch"]` has the strength its deployer chose.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from sheaf.scheduling.batch import bucket_value
from sheaf_client.contracts.problem import Fault
from sheaf_client.errors import InvalidRequestError

T = TypeVar("T")

#: What runs: adapters by name with their weights, in the order of the request.
ActiveAdapters: TypeAlias = tuple[tuple[str, float], ...]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class AdapterSource:
    """Where an adapter's weights are: a hub repository, with one file of it, or a local path."""

    repo: str | None = None
    file: str | None = None
    path: Path | None = None


def parse_source(source: str) -> AdapterSource:
    """Read `hf:org/repo`, `hf:org/repo:file.safetensors` or a local path to a safetensors file or its folder.

    Raises `ValueError` for anything else: weights in other formats may carry code.
    """
    if source.startswith("hf:"):
        repo, _, file = source.removeprefix("hf:").partition(":")
        if not _REPO.fullmatch(repo):
            raise ValueError(f"{source!r}: expected hf:org/repo or hf:org/repo:file.safetensors")
        if file:
            _check_file(source, PurePosixPath(file))
        return AdapterSource(repo=repo, file=file or None)
    if not source or "://" in source:
        raise ValueError(f"{source!r}: expected hf:org/repo[:file] or a local path")
    path = Path(source)
    if path.suffix:
        _check_file(source, PurePosixPath(path.name))
    return AdapterSource(path=path)


def _check_file(source: str, file: PurePosixPath) -> None:
    if file.suffix != ".safetensors" or file.is_absolute() or ".." in file.parts:
        raise ValueError(f"{source!r}: adapters are safetensors files inside their repository or folder")


class LoRAAdapter(BaseModel):
    """One adapter that requests may name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(description="`hf:org/repo[:file]`, or a local safetensors file or its folder.")
    weight: float = Field(
        default=1.0, description="Strength where a request names none.", allow_inf_nan=False
    )
    revision: str | None = Field(default=None, description="Commit of the hub repository.")

    @field_validator("source")
    @classmethod
    def _sound(cls, source: str) -> str:
        parse_source(source)
        return source


class LoRAConfig(BaseModel):
    """The adapters of one deployment.

    LoRAConfig(adapters={"sketch": LoRAAdapter(source="hf:org/sketch", weight=0.8)}, default="sketch")
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    adapters: dict[str, LoRAAdapter] = Field(min_length=1, description="Adapters by the name requests use.")
    default: str | None = Field(default=None, description="Adapter of requests that name none.")
    root: Path | None = Field(
        default=None, description="Folder that local adapters must lie in; needed where a source is a path."
    )
    max_bytes: int | None = Field(
        default=None, gt=0, description="Most bytes of adapters in memory; those used least recently go."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, adapter in self.adapters.items():
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r}: letters, digits, `.`, `_` and `-`, the first a letter or digit")
            self.locate(name, parse_source(adapter.source))
        if self.default is not None and self.default not in self.adapters:
            raise ValueError(f"the default {self.default!r} is none of {', '.join(sorted(self.adapters))}")
        return self

    def locate(self, name: str, source: AdapterSource) -> Path | None:
        """The local path of an adapter inside `root`; None for one from a hub.

        Raises `ValueError` for a path that leads out of `root`, by links too.
        """
        if source.path is None:
            return None
        if self.root is None:
            raise ValueError(f"adapter {name!r} is a local path: set `root`, the folder adapters may lie in")
        root = self.root.resolve()
        path = (root / source.path).resolve()
        if not path.is_relative_to(root):
            raise ValueError(f"adapter {name!r} lies outside of {self.root}")
        return path


def resolve_active_adapters(
    adapters: Sequence[str], weights: Sequence[float] | None, config: LoRAConfig | None
) -> ActiveAdapters:
    """What one request runs with: its own adapters and weights, the declared weights, or the default.

    Args:
        adapters: Names in the request, shape (n_adapters,).
        weights: The request's weights, shape (n_adapters,); None takes the declared ones.
        config: What the deployment declares; None where it has no adapters.

    Raises:
        InvalidRequestError: a name the deployment does not have, with its path.
    """
    if config is None:
        if adapters:
            raise _refused("unsupported", "/adapters", "This deployment has no adapters.")
        return ()
    if not adapters:
        return ((config.default, config.adapters[config.default].weight),) if config.default else ()
    for index, name in enumerate(adapters):
        if name not in config.adapters:
            known = ", ".join(sorted(config.adapters))
            raise _refused("not_allowed", f"/adapters/{index}", f"This deployment has {known}.")
    own = [config.adapters[name].weight for name in adapters] if weights is None else weights
    return tuple(zip(adapters, map(float, own), strict=True))


def select_adapters(request: Any, config: LoRAConfig | None) -> ActiveAdapters:
    """`resolve_active_adapters` of a request; nothing for contracts without adapters."""
    if config is None and "adapters" not in getattr(request, "__pydantic_fields__", "adapters"):
        return ()  # to ask a contract for what it lacks takes long
    names: Sequence[str] = getattr(request, "adapters", None) or ()
    if not names and config is None:
        return ()
    return resolve_active_adapters(names, getattr(request, "adapter_weights", None), config)


def bucket_with_adapter_resolution(
    requests: Sequence[T], bucket_by: str | None, config: LoRAConfig | None
) -> list[tuple[list[int], list[T], ActiveAdapters]]:
    """Group requests by the value of one field and by the adapters they run with.

    Returns:
        (indices into `requests`, the requests, their adapters) per group, in the order each was first met.
    """
    groups: dict[Hashable, tuple[list[int], list[T], ActiveAdapters]] = {}
    for index, request in enumerate(requests):
        active = select_adapters(request, config)
        indices, members, _ = groups.setdefault((bucket_value(request, bucket_by), active), ([], [], active))
        indices.append(index)
        members.append(request)
    return list(groups.values())


def _refused(code: str, path: str, message: str) -> InvalidRequestError:
    return InvalidRequestError(
        "The adapters cannot be used.", errors=[Fault(code=code, path=path, message=message)]
    )
