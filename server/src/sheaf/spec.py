"""What a deployment is: a backend with its settings, its resources and its batching, under a name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self, TypeAlias, cast

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SkipValidation, model_validator

from sheaf.backends.base import ModelBackend
from sheaf.backends.contexts import context_secret
from sheaf.backends.declared import check_license, checked_class, declared_type
from sheaf.backends.operations import served_by
from sheaf.cache import CacheConfig, cache_disabled
from sheaf.contract.operations import operations_of
from sheaf.lora import LoRAConfig
from sheaf.registry import find_backend, is_backend
from sheaf.scheduling.batch import BatchPolicy
from sheaf.settings import read_yaml, validated
from sheaf_client.contracts.types import ModelName

#: Names that would hide the server's own routes.
_RESERVED = frozenset(
    {"admin", "models", "docs", "metrics", "openapi.json", "openapi-3.2.json", "health", "ready"}
)


class ResourceConfig(BaseModel):
    """What one replica is given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_cpus: float = Field(default=1.0, ge=0, description="CPU cores per replica.")
    num_gpus: float = Field(default=0.0, ge=0, description="GPUs per replica; fractions share one.")
    memory_gb: float | None = Field(default=None, gt=0, description="Memory per replica in GiB.")
    replicas: int = Field(default=1, ge=1, description="Replicas, where the host has several.")


class ModelSpec(BaseModel):
    """One deployed model.

    A backend with its settings, under the name that clients call:

        ModelSpec(name="chronos", backend="chronos2", backend_kwargs={"model_id": "amazon/chronos-2"})
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    name: ModelName = Field(description="Name under which clients call it.")
    backend: str = Field(default="", description="Registered name of the backend.")
    backend_cls: SkipValidation[type[ModelBackend] | None] = Field(
        default=None, description="The backend class itself, in place of a registered name."
    )
    backend_kwargs: dict[str, Any] = Field(default_factory=dict, description="The backend's own settings.")
    model_type: str = Field(default="", description="The contract; taken from the backend when absent.")
    resources: ResourceConfig = Field(default_factory=ResourceConfig)
    batch_policy: BatchPolicy = Field(default_factory=BatchPolicy)
    lora: LoRAConfig | None = Field(default=None, description="LoRA adapters that requests may name.")
    cache: CacheConfig | None = Field(default=None, description="Keeps answers; none by default.")
    context_bytes: int | None = Field(
        default=None,
        gt=0,
        description="Most bytes that the backend keeps between requests, such as fitted tables; "
        "the backend's own bound by default.",
    )
    shared_contexts: bool = Field(
        default=False,
        description="Whether callers with different keys use each other's contexts: what the backend keeps "
        "of equal content, and what an identifier of another stands for.",
    )
    accept_license: bool = Field(
        default=False,
        description="That your use is allowed by the licence of weights which may not be used commercially; "
        "without it they are not loaded.",
    )
    #: Goes along to other processes, so that all replicas give equal content one identifier.
    _context_secret: bytes = PrivateAttr(default_factory=context_secret)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.name in _RESERVED:
            raise ValueError(f"{self.name!r} is the name of a route; give the model another")
        if not self.backend and self.backend_cls is None:
            raise ValueError("give `backend` or `backend_cls`")
        self._check_one_backend()
        cls = self.backend_class
        served = declared_type(cls, self.backend_kwargs)
        served_by(cls, served)
        if self.model_type and self.model_type != served:
            raise ValueError(f"backend {self.backend_name!r} serves {served}, not {self.model_type}")
        self.model_type = served
        if self.lora is not None and not cls.takes_adapters:
            raise ValueError(f"backend {self.backend_name!r} takes no adapters; leave `lora` out")
        if not self.accept_license:
            check_license(cls, self.backend_kwargs)
        if self.cache is not None:
            self._check_excluded(self.cache.exclude_fields)
        return self

    def _check_one_backend(self) -> None:
        """Raise `ValueError` where `backend` and `backend_cls` are two backends."""
        if not self.backend or self.backend_cls is None or not is_backend(self.backend):
            return  # a name that only the program which made the spec knows goes along with its class
        named = find_backend(self.backend)
        # A class that went to another process by value is another object there.
        if (named.__module__, named.__qualname__) != _place_of(self.backend_cls):
            raise ValueError(
                f"`backend` is {self.backend!r}, which is {named.__name__}, and `backend_cls` another class: "
                "give one of them"
            )

    def _check_excluded(self, names: Sequence[str]) -> None:
        """Raise `ValueError` for a field that no request to this model has."""
        if not names:
            return
        known = operations_of(self.model_type).fields
        if unknown := [name for name in names if name not in known]:
            raise ValueError(
                f"cache.exclude_fields: requests of {self.model_type} have no {unknown[0]!r}; "
                f"they have {', '.join(sorted(known))}"
            )

    @property
    def backend_class(self) -> type[ModelBackend]:
        """The class that runs this model; raises `ValueError` for an unknown name or what is no backend."""
        cls: Any = self.backend_cls  # given by the user, and not validated
        if cls is None:
            try:
                cls = find_backend(self.backend)
            except LookupError as error:
                raise ValueError(str(error)) from None
        return checked_class(cls).for_settings(self.backend_kwargs, self.model_type)

    @property
    def backend_name(self) -> str:
        """What `/models` calls the backend."""
        return self.backend or self.backend_class.__name__

    @property
    def active_cache(self) -> CacheConfig | None:
        """How answers are kept; None where the spec does not ask for it or the environment forbids it."""
        return None if self.cache is None or not self.cache.enabled or cache_disabled() else self.cache

    def make_backend(self) -> ModelBackend:
        """A new backend with this spec's settings, not loaded yet."""
        try:
            backend = self.backend_class(**self.backend_kwargs)
            if self.context_bytes is not None:
                backend.contexts.max_bytes = self.context_bytes
            backend.contexts.secret = self._context_secret
            backend.lora = self.lora
            return backend
        except TypeError as error:
            raise ValueError(
                f"backend_kwargs of {self.name!r} do not fit {self.backend_name}: {error}"
            ) from error


def _place_of(cls: object) -> tuple[str, str]:
    return getattr(cls, "__module__", ""), getattr(cls, "__qualname__", "")


#: A spec, or the name of a backend whose defaults will do.
SpecLike: TypeAlias = ModelSpec | str


def as_specs(models: Iterable[SpecLike] | SpecLike) -> list[ModelSpec]:
    """Specs for specs and backend names; two models of one name are a `ValueError`."""
    given = [models] if isinstance(models, ModelSpec | str) else list(models)
    specs = [m if isinstance(m, ModelSpec) else _by_name(m) for m in given]
    names = [spec.name for spec in specs]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two models are called {repeated[0]!r}")
    return specs


def hosted_specs(models: Iterable[SpecLike] | SpecLike) -> list[ModelSpec]:
    """`as_specs` for a host that is of no use without a model: none at all is a `ValueError`."""
    specs = as_specs(models)
    if not specs:
        raise ValueError("models: name at least one")
    return specs


def read_specs(path: Path) -> list[ModelSpec]:
    """The specs of a YAML file: a list, or a mapping with `models`.

    Raises `ValueError` with the place of what is wrong.
    """
    content = read_yaml(path)
    place, items = str(path), content
    if isinstance(content, dict):
        place, items = f"{path}: models", cast("dict[str, Any]", content).get("models")
    if not isinstance(items, list):
        raise ValueError(f"{path}: expected a list of models, or a mapping with `models`")
    entries = enumerate(cast("Sequence[Any]", items))
    return as_specs(
        [
            _by_name(e, f"{place}[{i}]") if isinstance(e, str) else validated(ModelSpec, e, f"{place}[{i}]")
            for i, e in entries
        ]
    )


def _by_name(name: str, place: str = "") -> ModelSpec:
    """The spec of a backend whose defaults will do; raises `ValueError` that begins with the place."""
    return validated(ModelSpec, {"name": name, "backend": name}, place)
