"""Loads a checkpoint of diffusers, part by part; never serves weights that the checkpoint does not hold.

A pipeline's own loading fills parameters that a file lacks with whatever memory held and says so in a log
line. Its parts tell what was missing, when asked one by one.
"""

from __future__ import annotations

import importlib
import inspect
import json
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from sheaf.backends._families.diffusers.family import Family
from sheaf.backends._shared.loading import check_weights
from sheaf.backends._shared.settings import torch_dtype

_diffusers: Any = diffusers
_INDEX = "model_index.json"
#: Where parts may come from; others would be code out of the checkpoint.
_LIBRARIES = ("diffusers", "transformers")
#: Loggers of the libraries are of the whole process: one load at a time makes them quiet and loud again.
_quiet = threading.Lock()


@dataclass(frozen=True)
class Source:
    """Where a checkpoint is and how it is wanted.

    Attributes:
        model_id: a hub identifier or the folder of a checkpoint.
        device: where the parts go.
        dtype: of their weights, by name or as torch has it.
        revision: branch, tag or commit on the hub.
        variant: of the weights' files, such as `fp16`.
        offload: keep the parts in main memory and move each to the device when it works.
        scheduler: name of a scheduler's class, in place of the checkpoint's.
        scheduler_kwargs: settings of the scheduler that replace the checkpoint's.
    """

    model_id: str
    device: str
    dtype: Any
    revision: str | None = None
    variant: str | None = None
    offload: bool = False
    scheduler: str | None = None
    scheduler_kwargs: Mapping[str, Any] | None = None


def load_pipelines(source: Source, family: Family, names: Sequence[str]) -> dict[str, Any]:
    """The family's pipelines of these class names, over one set of parts.

    Raises `OSError` naming what is missing of the checkpoint, and `ValueError` for one that does not fit.
    """
    with quiet_libraries():
        folder = _folder(source)
        index = _read_index(folder)
        parts = _load_parts(source, folder, index)
        loaded = getattr(_diffusers, family.text2img).from_pretrained(folder, **parts, **family.settings)
        if source.scheduler or source.scheduler_kwargs:
            loaded.scheduler = _scheduler(source, loaded.scheduler)
        if hasattr(loaded.vae, "enable_slicing"):
            loaded.vae.enable_slicing()  # pictures of one request are decoded one by one, as if alone
        if source.offload:
            loaded.enable_model_cpu_offload(device=source.device)
        else:
            loaded.to(source.device)
        pipelines = {name: _sibling(name, loaded, index, family) for name in names}
    for pipeline in pipelines.values():
        pipeline.set_progress_bar_config(disable=True)
    return pipelines


def _folder(source: Source) -> Path:
    path = Path(source.model_id)
    if path.is_dir():
        return path
    if path.is_absolute() or source.model_id.startswith(".") or source.model_id.count("/") != 1:
        raise FileNotFoundError(f"there is no checkpoint at {source.model_id}")
    options = {"revision": source.revision, "variant": source.variant, "use_safetensors": True}
    return Path(_diffusers.DiffusionPipeline.download(source.model_id, **options))


def _read_index(folder: Path) -> dict[str, Any]:
    try:
        index: dict[str, Any] = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder} is no checkpoint of diffusers: it has no {_INDEX}") from None
    except ValueError as error:
        raise ValueError(f"{folder / _INDEX} cannot be read: {error}") from None
    for name, (library, _) in _components(index):
        if library not in _LIBRARIES:
            raise ValueError(f"{name} of {folder} is of {library!r}; parts of {_LIBRARIES} alone are loaded")
    return index


def _components(index: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, str]]]:
    for name, value in index.items():
        pair: Any = value
        if isinstance(value, list) and len(pair) == 2 and pair[0] is not None:
            yield name, (str(pair[0]), str(pair[1]))


def _load_parts(source: Source, folder: Path, index: Mapping[str, Any]) -> dict[str, Any]:
    """The parts that have weights, by name."""
    parts: dict[str, Any] = {}
    for name, (library, class_name) in _components(index):
        cls: Any = getattr(importlib.import_module(library), class_name, None)
        if cls is None:
            raise ValueError(f"{name} of {folder} is a {class_name}, which this {library} does not have")
        if not (isinstance(cls, type) and issubclass(cls, torch.nn.Module)):
            continue
        if not (folder / name).is_dir():
            raise FileNotFoundError(f"the checkpoint {folder} has no {name}")
        loading: Any = cls
        part, info = loading.from_pretrained(
            folder / name,
            dtype=torch_dtype(source.dtype),
            variant=source.variant,
            use_safetensors=True,
            output_loading_info=True,
        )
        check_weights(folder / name, info["missing_keys"])
        parts[name] = part.eval()
    return parts


def _scheduler(source: Source, own: Any) -> Any:
    kind: Any = own.__class__
    cls: Any = getattr(_diffusers, source.scheduler, None) if source.scheduler else kind
    if cls is None or not hasattr(cls, "set_timesteps") or not hasattr(cls, "from_config"):
        known = ", ".join(sorted({kind.__name__, *(c.__name__ for c in own.compatibles)}))
        raise ValueError(f"scheduler must be one of diffusers', such as {known}; not {source.scheduler!r}")
    return cls.from_config(own.config, **(source.scheduler_kwargs or {}))


def _sibling(name: str, loaded: Any, index: Mapping[str, Any], family: Family) -> Any:
    """Another pipeline over the same parts, with the checkpoint's settings.

    The library's `from_pipe` casts the weights on its way, and `components` alone forgets the settings.
    """
    cls: Any = getattr(_diffusers, name)
    if type(loaded) is cls:
        return loaded
    parts = loaded.components
    accepted = inspect.signature(cls.__init__).parameters
    settings = {key: index[key] for key in accepted if key in index and key not in parts}
    settings |= {key: value for key, value in family.settings.items() if key in accepted}
    return cls(**{key: value for key, value in parts.items() if key in accepted}, **settings)


@contextmanager
def quiet_libraries() -> Generator[None]:
    """No progress bars and no warnings of the libraries meanwhile; afterwards all is as it was."""
    loggings: list[Any] = [_diffusers.utils.logging, transformers.utils.logging]
    with _quiet:
        before = [(logging.get_verbosity(), logging.is_progress_bar_enabled()) for logging in loggings]
        try:
            for logging in loggings:
                logging.set_verbosity_error()
                logging.disable_progress_bar()
            yield
        finally:
            for logging, (verbosity, bar) in zip(loggings, before, strict=True):
                logging.set_verbosity(verbosity)
                if bar:
                    logging.enable_progress_bar()
