"""What a backend class says of itself, checked with errors that say what it lacks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from inspect import isasyncgenfunction, iscoroutinefunction, isfunction
from typing import Any, cast

from sheaf.api.operations import OPERATIONS
from sheaf.backends.base import ModelBackend

#: What the engine calls and does not await: every method that a backend may write.
_CALLED = sorted(name for name, member in vars(ModelBackend).items() if isfunction(member) and name[0] != "_")


def checked_class(cls: Any) -> type[ModelBackend]:
    """The class itself; raises `ValueError` where it is no backend, or one that lacks methods."""
    if not isinstance(cls, type):
        raise ValueError(f"{cls!r} is no class: `backend_cls` is a class that extends ModelBackend")
    if not issubclass(cls, ModelBackend):
        raise ValueError(f"{cls.__name__} is no backend: it does not extend sheaf.backends.base.ModelBackend")
    backend = cast("Any", cls)
    missing = sorted(backend.__abstractmethods__)
    if backend.batch_predict is ModelBackend.batch_predict and backend.predict is ModelBackend.predict:
        missing.append("batch_predict or predict")
    awaited = [name for name in _CALLED if _is_async(getattr(backend, name))]
    if awaited:
        raise ValueError(
            f"{backend.__name__}.{awaited[0]} is `async`: the engine calls it on the model's own thread "
            "and waits for its answer: write a plain function, with `asyncio.run` inside where it must await"
        )
    if missing:
        raise ValueError(f"the backend {backend.__name__} does not write {' and '.join(missing)}")
    return cast("type[ModelBackend[Any, Any]]", backend)


def _is_async(method: object) -> bool:
    return iscoroutinefunction(method) or isasyncgenfunction(method)


def declared_type(cls: type[ModelBackend], settings: Mapping[str, Any]) -> str:
    """The model type of a backend; where it is a property, of one with these settings.

    Raises `ValueError` where it is none of the schema's.
    """
    given: Any = getattr(cls, "model_type", None)
    if isinstance(given, property | cached_property):
        try:
            given = cls(**settings).model_type
        except TypeError as error:
            raise ValueError(f"backend_kwargs do not fit {cls.__name__}: {error}") from error
    known = f"one of {', '.join(OPERATIONS)}"
    if not isinstance(given, str):
        raise ValueError(f"the backend {cls.__name__} says no `model_type`: expected {known}")
    if given not in OPERATIONS:
        raise ValueError(f"the backend {cls.__name__} says `model_type` {str(given)!r}: expected {known}")
    return str(given)


def check_license(cls: type[ModelBackend], settings: Mapping[str, Any]) -> None:
    """Raise `ValueError` where these settings load published weights that may not be used commercially."""
    info = cls.info
    if info is None or not any(weights.restriction for weights in info.weights):
        return
    try:
        model: Any = getattr(cls(**settings), "model_id", None)
    except (TypeError, ValueError):
        return  # settings that do not fit are told where the backend is made
    weights = info.weights_of(model)
    if weights is not None and weights.restriction:
        raise ValueError(
            f"the weights {model} are under the licence {weights.license!r}. {weights.restriction} "
            f"Read {weights.card}, and where it allows your use, say `accept_license: true` in the spec"
        )
