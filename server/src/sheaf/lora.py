"""LoRA adapters of a deployment: where they come from, which is the default, and what one request selects.

An adapter is declared once, on the spec, under the name that requests use. A request's own weights go before
the declared ones, so that `adapters=["sketch"]` has the strength its deployer chose.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from sheaf_client.contracts.problem import Fault
from sheaf_client.errors import InvalidRequestError

T = TypeVar("T")

#: What runs: adapters by name with their weights, in the order of the request.
ActiveAdapters: TypeAlias = tuple[tuple[str, float], ...]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
#: Files of weights that are pickles, or may hold them.
_PICKLES = frozenset({".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"})


class AdapterRefusedError(InvalidRequestError, ValueError):
    """A request names adapters that its deployment does not have."""


@dataclass(frozen=True)
class AdapterSource:
    """Where an adapter's weights are: a hub repository, with one file of it, or a local path."""

    repo: str | None = None
    file: str | None = None
    path: Path | None = None


def read_source(source: str) -> AdapterSource:
    """Read `hf:org/repo`, `hf:org/repo:file.safetensors` or a local path to a safetensors file or its folder.

    Raises `ValueError` for anything else: weights in other formats may carry code.
    """
    if source.startswith("hf:"):
        repo, _, file = source.removeprefix("hf:").partition(":")
        if not _REPO.fullmatch(repo):
            raise ValueError(f"{source!r}: expected hf:org/repo or hf:org/repo:file.safetensors")
        inside = PurePosixPath(file)
        _refuse_pickle(source, inside.suffix)
        if file and (inside.suffix != ".safetensors" or inside.is_absolute() or ".." in inside.parts):
            raise ValueError(f"{source!r}: expected the path of a safetensors file inside the repository")
        return AdapterSource(repo=repo, file=file or None)
    if not source or "://" in source:
        raise ValueError(f"{source!r}: expected hf:org/repo[:file] or a local path")
    path = Path(source)
    _refuse_pickle(source, path.suffix)
    return AdapterSource(path=path)


def _refuse_pickle(source: str, suffix: str) -> None:
    if suffix.lower() in _PICKLES:
        raise ValueError(
            f"{source!r}: {suffix} files are pickles, which can run code when they are read; "
            "expected safetensors"
        )


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
        read_source(source)
        return source


class LoRAConfig(BaseModel):
    """The adapters of one deployment.

    LoRAConfig(adapters={"sketch": LoRAAdapter(source="hf:org/sketch", weight=0.8)}, default="sketch")
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    adapters: dict[str, LoRAAdapter] = Field(
        default_factory=dict, description="Adapters by the name requests use."
    )
    default: str | None = Field(default=None, description="Adapter of requests that name none.")
    root: Path | None = Field(
        default=None,
        description="Folder that local adapters must lie in, links followed. Without it local paths are the "
        "deployer's own; what comes by the admin's routes needs it.",
    )
    max_bytes: int | None = Field(
        default=None, gt=0, description="Most bytes of adapters in memory; those used least recently go."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, adapter in self.adapters.items():
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r}: letters, digits, `.`, `_` and `-`, the first a letter or digit")
            self.locate(name, read_source(adapter.source))
        if self.default is not None and self.default not in self.adapters:
            raise ValueError(f"the default {self.default!r} is none of {_listed(self)}")
        return self

    def locate(self, name: str, source: AdapterSource) -> Path | None:
        """The local path of an adapter; None for one from a hub.

        Raises `ValueError` for a path that leads out of `root`, where there is one, by links too.
        """
        if source.path is None or self.root is None:
            return source.path
        return self.confined(name, self.root.resolve() / source.path)

    def confined(self, name: str, path: Path) -> Path:
        """A local path of an adapter, links followed.

        Raises `ValueError` where they lead out of `root`, or nowhere.
        """
        try:
            path = path.resolve()
        except (OSError, RuntimeError) as error:  # links in a circle, by the version of Python
            raise ValueError(f"adapter {name!r}: {path} leads nowhere: {error}") from error
        if self.root is not None and not path.is_relative_to(self.root.resolve()):
            raise ValueError(f"adapter {name!r} lies outside of {self.root}")
        return path

    def unconfined(self) -> list[str]:
        """Names of the adapters that may lie anywhere on this machine: local paths without `root`."""
        if self.root is not None:
            return []
        return [name for name, adapter in self.adapters.items() if read_source(adapter.source).path]


def select_adapters(request: Any, config: LoRAConfig | None) -> ActiveAdapters:
    """What one request runs with: its own adapters and weights, the declared weights, or the default.

    Nothing for contracts without adapters.

    Args:
        request: May have `adapters` and `adapter_weights`, each of shape (n_adapters,).
        config: What the deployment declares; None where it has no adapters.

    Raises:
        AdapterRefusedError: A name the deployment does not have, with its path.
    """
    if config is None and "adapters" not in getattr(request, "__pydantic_fields__", "adapters"):
        return ()  # to ask a contract for what it lacks takes long
    names: Sequence[str] = getattr(request, "adapters", None) or ()
    if not names:
        default = config.default if config is not None else None
        return ((default, config.adapters[default].weight),) if config is not None and default else ()
    if config is None or not config.adapters:
        raise _refused("unsupported", "/adapters", "This deployment has no adapters.")
    for index, name in enumerate(names):
        if name not in config.adapters:
            raise _refused("not_allowed", f"/adapters/{index}", f"This deployment has {_listed(config)}.")
    weights: Sequence[float] | None = getattr(request, "adapter_weights", None)
    own = [config.adapters[name].weight for name in names] if weights is None else weights
    return tuple(zip(names, map(float, own), strict=True))


def _listed(config: LoRAConfig) -> str:
    return ", ".join(sorted(config.adapters)) or "no adapters"


def _refused(code: str, path: str, message: str) -> AdapterRefusedError:
    return AdapterRefusedError(
        "The adapters cannot be used.", errors=[Fault(code=code, path=path, message=message)]
    )


# The published names, for code that groups requests by itself; the engine has its own ways.


def parse_source(source: str) -> tuple[str, str | None]:
    """A source as diffusers' loaders take it: a repository or local path, and the file where one is named.

    Raises `ValueError` for what `LoRAAdapter` refuses.
    """
    found = read_source(source)
    return found.repo or source, found.file


def resolve_active_adapters(request: Any, lora: LoRAConfig | None) -> tuple[list[str], list[float]]:
    """Names and weights of the adapters that a request runs with, each of shape (n_adapters,).

    Both are empty where `lora` is None, whatever the request names. Raises `ValueError` for an adapter that
    is not declared.
    """
    active = select_adapters(request, lora) if lora is not None else ()
    return [name for name, _ in active], [weight for _, weight in active]


def bucket_with_adapter_resolution(
    requests: Sequence[T], lora: LoRAConfig | None
) -> list[tuple[list[int], list[T], list[str], list[float]]]:
    """Group requests by the adapters and weights that they run with.

    Returns:
        (indices into `requests`, the requests, names, weights) per group, in the order each was first met.

    Raises:
        ValueError: A request names an adapter that is not declared.
    """
    groups: dict[tuple[tuple[str, ...], tuple[float, ...]], tuple[list[int], list[T]]] = {}
    for index, request in enumerate(requests):
        names, weights = resolve_active_adapters(request, lora)
        indices, members = groups.setdefault((tuple(names), tuple(weights)), ([], []))
        indices.append(index)
        members.append(request)
    return [
        (indices, members, list(names), list(weights))
        for (names, weights), (indices, members) in groups.items()
    ]
