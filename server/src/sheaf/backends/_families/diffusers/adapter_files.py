"""Reads LoRA files by the library's own loaders: any key format they convert, safetensors alone.

The loaders want a model to put their layers into. They get a skeleton, of the same layers and no weights, so
that a file that turns out broken, or to be for another model, has touched nothing that serves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
import torch
from safetensors import SafetensorError, safe_open

from sheaf.backends._families.diffusers.quiet import quiet
from sheaf.backends._families.diffusers.row_lora import Factors, Layers
from sheaf.lora import AdapterSource, LoRAConfig, read_source

#: The file that the library itself writes and looks for first.
STANDARD_NAME = "pytorch_lora_weights.safetensors"
_NAME = "adapter"
#: They say of the skeleton's weights that they are missing.
_LOADERS = ("transformers.modeling_utils", "peft", "diffusers")


class AdapterError(RuntimeError):
    """An adapter that cannot be used, with its name and its file."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """One adapter, ready to be added to its model's layers.

    Attributes:
        parts: By the pipeline's component the layers that it changes.
        size: Bytes of its weights.
    """

    parts: dict[str, Layers]
    size: int


def find_file(name: str, config: LoRAConfig) -> Path:
    """The local path of a declared adapter's safetensors file, downloaded where it is a hub's.

    Raises `AdapterError` where there is none, or several of which none is the standard one.
    """
    declared = config.adapters[name]
    source = read_source(declared.source)
    try:
        found = config.locate(name, source) or _from_hub(source, declared.revision)
    except (OSError, ValueError, httpx.HTTPError) as error:
        raise AdapterError(f"adapter {name!r}: {declared.source} cannot be had: {error}") from error
    if found.is_dir():
        found = _in_folder(name, found)
        if source.path is not None:  # a link in the folder may lead elsewhere
            try:
                config.confined(name, found)
            except ValueError as error:
                raise AdapterError(str(error)) from error
    if not found.is_file():
        raise AdapterError(f"adapter {name!r}: there is no file {found}")
    if found.suffix != ".safetensors":  # the loaders would read it as a pickle
        raise AdapterError(f"adapter {name!r}: {found} is no .safetensors file")
    return found


def _from_hub(source: AdapterSource, revision: str | None) -> Path:
    import huggingface_hub

    hub: Any = huggingface_hub
    repo = source.repo or ""
    if source.file:
        return Path(hub.hf_hub_download(repo, source.file, revision=revision))
    try:
        files: list[str] = [f for f in hub.list_repo_files(repo, revision=revision) if "/" not in f]
    except (ConnectionError, httpx.TransportError):  # offline, by choice or not
        return Path(hub.snapshot_download(repo, revision=revision, local_files_only=True))
    weights = [file for file in files if file.endswith(".safetensors")]
    wanted = [STANDARD_NAME] if STANDARD_NAME in weights else weights
    if len(wanted) != 1:
        raise ValueError(_choice(wanted))
    return Path(hub.hf_hub_download(repo, wanted[0], revision=revision))


def _in_folder(name: str, folder: Path) -> Path:
    if (folder / STANDARD_NAME).is_file():
        return folder / STANDARD_NAME
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        raise AdapterError(f"adapter {name!r}: {folder}: {_choice([file.name for file in files])}")
    return files[0]


def _choice(names: list[str]) -> str:
    if not names:
        return "it holds no safetensors file"
    return f"it holds {', '.join(sorted(names))}: name one of them in the source"


def read_adapter(name: str, file: Path, pipe: Any) -> Adapter:
    """Read a file for the components of `pipe`, into host memory, in the dtypes of their layers.

    Raises `AdapterError` for a file that is broken, is for another model, or has layers that are not plain
    LoRA on linear layers or convolutions.
    """
    try:
        _refuse_variants(file)
        with _random_state_kept(), quiet(*_LOADERS):
            skeletons, given = _load_skeletons(file, pipe)
        parts = {part: _layers(getattr(pipe, part), layers, given) for part, layers in skeletons.items()}
        if left := given.total():
            raise ValueError(f"{left} of its matrices belong to none of the model's layers")
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        raise AdapterError(f"adapter {name!r}: {file} is no LoRA for this model: {error}") from error
    size = sum(factors.size for layers in parts.values() for factors in layers.values())
    return Adapter(parts, size)


def _refuse_variants(file: Path) -> None:
    """The loaders drop the magnitudes of DoRA with a warning, which makes another adapter of it."""
    with cast("Any", safe_open)(file, "pt") as opened:
        keys: list[str] = opened.keys()
        for key in keys:
            if "dora_scale" in key or "lora_magnitude_vector" in key:
                raise ValueError("it is DoRA, and only plain LoRA can share a batch")


def _load_skeletons(file: Path, pipe: Any) -> tuple[dict[str, Any], Counter[Any]]:
    """Skeletons of the components that the file is for, with its layers; and the marks of its matrices."""
    given: dict[str, Any] = {"weight_name": file.name, "use_safetensors": True, "local_files_only": True}
    if getattr(pipe, "unet", None) is not None:
        given["unet_config"] = pipe.unet.config
    else:
        given["return_alphas"] = True
    state, alphas, metadata = pipe.lora_state_dict(str(file.parent), return_lora_metadata=True, **given)
    parts = lora_parts(pipe)
    for key in state:
        if key.split(".", 1)[0] not in parts or "lora" not in key:
            raise ValueError(f"it holds {key}, and a LoRA for this model holds factors of {', '.join(parts)}")
    skeletons: dict[str, Any] = {}
    for part in parts:
        if any(key.startswith(f"{part}.") for key in state):
            skeletons[part] = skeleton = _skeleton(getattr(pipe, part))
            kind = "text_encoder" if part.startswith("text_encoder") else part
            more = {"prefix": part} if kind == "text_encoder" else {}
            getattr(pipe, f"load_lora_into_{kind}")(
                state,
                network_alphas=alphas,
                adapter_name=_NAME,
                metadata=metadata,
                low_cpu_mem_usage=True,
                **{kind: skeleton},
                **more,
            )
    if not skeletons:
        raise ValueError("it holds no factors")
    return skeletons, Counter(_mark(matrix) for key, matrix in state.items() if not key.endswith(".alpha"))


def _mark(matrix: torch.Tensor) -> tuple[torch.Size, bytes]:
    """What tells whether a matrix of the file has come to a layer: its shape, and some of its values."""
    values = matrix.detach().flatten()
    return matrix.shape, values[:: max(1, len(values) // 64)].float().numpy().tobytes()


def lora_parts(pipe: Any) -> list[str]:
    """Names of the pipeline's components that the library has LoRA for, the denoiser first."""
    names: list[str] = pipe._lora_loadable_modules  # noqa: SLF001 - the library's one list of them
    return [part for part in names if getattr(pipe, part, None) is not None]


def _skeleton(part: Any) -> Any:
    """A network of the same layers, whose weights are single zeros that only have the right shapes."""
    kind = cast("Any", type(part))
    with torch.device("meta"):
        skeleton: Any = kind.from_config(part.config) if _of_diffusers(part) else kind(part.config)
    modules: Iterable[torch.nn.Module] = skeleton.modules()
    for module in modules:
        for name, tensor in list(module.named_parameters(recurse=False)):
            hollow = torch.nn.Parameter(torch.zeros(()).expand(tensor.shape), requires_grad=False)
            setattr(module, name, hollow)
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.zeros((), dtype=buffer.dtype).expand(buffer.shape))
    return skeleton


def _of_diffusers(part: Any) -> bool:
    return type(part).__module__.partition(".")[0] == "diffusers"


def _layers(part: torch.nn.Module, skeleton: torch.nn.Module, given: Counter[Any]) -> Layers:
    """The factors in a skeleton, by the layers of the true network; takes them out of those given.

    Where a file leaves out layers that its configuration names, the loaders add factors that do nothing.
    """
    from peft.tuners.lora import layer as peft_layers
    from peft.tuners.tuners_utils import BaseTunerLayer

    plain = (peft_layers.Linear, peft_layers.Conv1d, peft_layers.Conv2d, peft_layers.Conv3d)
    found: dict[torch.nn.Module, Factors] = {}
    named = cast("Any", skeleton).named_modules()
    for name, module in cast("Iterable[tuple[str, torch.nn.Module]]", named):
        if not isinstance(module, BaseTunerLayer):
            continue
        layer: Any = module
        if type(layer) not in plain or layer.lora_variant or any(layer.lora_bias.values()):
            raise ValueError(f"{name} is not plain LoRA on a linear layer or a convolution")
        factors = Factors(layer.lora_A[_NAME], layer.lora_B[_NAME], float(layer.scaling[_NAME]))
        marks = Counter(map(_mark, factors.tensors()))
        if marks <= given:
            given -= marks
            true = part.get_submodule(name)
            _own(name, factors, getattr(true, "weight", None))
            found[true] = factors
    return found


def _own(name: str, factors: Factors, weight: torch.Tensor | None) -> None:
    """Copies of the factors' weights, which may lie in the mapped file, in the dtype of their layer."""
    for tensor in factors.tensors():
        dtype = weight.dtype if weight is not None and weight.is_floating_point() else tensor.dtype
        tensor.requires_grad = False
        tensor.data = tensor.detach().to(dtype=dtype, copy=True)
        if not tensor.isfinite().all():
            raise ValueError(f"the factors of {name} are not finite")


@contextmanager
def _random_state_kept() -> Generator[None]:
    """The loaders draw factors before they put those of the file in their places."""
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)
