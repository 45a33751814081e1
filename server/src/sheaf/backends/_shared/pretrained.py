"""Backends of checkpoints in the format of the transformers library: a hub id, or a folder.

A family names the library's classes and computes; what may be wrong with a checkpoint is told here. Nothing
in it is run, be it code or a pickle, and no weight is served that it does not hold.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, TypedDict

from sheaf.backends._shared.loading import check_weights, free_device, import_libraries, loaded, use_threads
from sheaf.backends._shared.settings import one_of, torch_dtype
from sheaf.backends.base import ModelBackend, RequestT, ResponseT

#: Names of files of weights that hold tensors alone: one file, or the index of several.
_SAFE = ("model.safetensors", "model.safetensors.index.json")


class PretrainedSettings(TypedDict, total=False):
    """The settings of every checkpoint, for subclasses that have further ones."""

    device: str | None
    dtype: Any
    revision: str | None
    num_threads: int | None
    model_name: str | None
    device_map: str | None
    torch_dtype: Any


class PretrainedBackend(ModelBackend[RequestT, ResponseT]):
    """A model of a checkpoint; subclasses name its classes and compute answers.

    Args:
        model_id: Hub id, or the folder of a checkpoint in safetensors; `model_name` is the older spelling.
        device: `cpu`, `cuda`, `cuda:1` …, or `auto` to spread a large model over the devices there are;
            `device_map` is the older spelling.
        dtype: `float32`, `bfloat16`, `float16`, or `auto` for that of the checkpoint; `torch_dtype` is the
            older spelling.
        revision: Branch, tag or commit on the hub.
        num_threads: torch threads. They belong to the whole process, so nothing is set unless asked for.
    """

    #: What `config.json` calls models that are served.
    architectures: ClassVar[tuple[str, ...]] = ()
    #: The classes of the library that load the model and what prepares its input (None where nothing does).
    model_class: ClassVar[str] = ""
    processor_class: ClassVar[str | None] = None
    #: Options of the class of the model.
    model_options: ClassVar[Mapping[str, Any]] = {}
    #: Files without which the library would guess what is in them.
    required_files: ClassVar[tuple[str, ...]] = ()
    #: How names of weights begin that a checkpoint may lack, since nothing uses them.
    unused_weights: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        model_id: str | Path | None = None,
        *,
        device: str | None = None,
        dtype: Any = None,
        revision: str | None = None,
        num_threads: int | None = None,
        model_name: str | None = None,
        device_map: str | None = None,
        torch_dtype: Any = None,
    ) -> None:
        default = None if self.info is None else self.info.default_model
        found = one_of("model_id", model_id, "model_name", model_name, default)
        if found is None:
            raise TypeError(f"{type(self).__name__} needs `model_id`, a hub id or the folder of a checkpoint")
        self.model_id = str(found)
        self.device: str = one_of("device", device, "device_map", device_map, "cpu")
        self.dtype = one_of("dtype", dtype, "torch_dtype", torch_dtype, "float32")
        self.revision = revision
        self.num_threads = num_threads
        self._loaded: Any = None

    @abstractmethod
    def smallest(self) -> RequestT:
        """A request that is quickly answered, for the warm-up."""

    def read_facts(self, model: Any, processor: Any) -> Any:  # noqa: ARG002 - for those who override it
        """`facts` of the library's model and processor; None where nothing is needed."""
        return None

    def load(self) -> None:
        """Load the checkpoint.

        Raises `ModuleNotFoundError` where a library is missing, `OSError` where a file of the checkpoint is,
        and `ValueError` where it is of another model or lacks weights.
        """
        import_libraries(self)
        use_threads(self.num_threads)
        self._loaded = self.read()

    def read(self) -> Any:
        """The loaded model and its processor; sets `facts`."""
        library: Any = import_module("transformers")
        source: dict[str, Any] = {} if self.revision is None else {"revision": self.revision}
        # Before any class is asked for: of a model that the library lacks it would look for code.
        if (architecture := read_config(self.model_id, **source).get("model_type")) not in self.architectures:
            known = " or ".join(self.architectures)
            raise ValueError(f"{self.model_id} is a checkpoint of {architecture}, not of {known}")
        check_files(self.model_id, self.required_files, **source)
        processor = None
        if self.processor_class is not None:
            processor = getattr(library, self.processor_class).from_pretrained(
                self.model_id, trust_remote_code=False, **source
            )
        model, found = getattr(library, self.model_class).from_pretrained(
            self.model_id,
            device_map=self.device,
            dtype=torch_dtype(self.dtype),
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=False,
            **self.model_options,
            **source,
        )
        lacking = [name for name in found["missing_keys"] if not name.startswith(self.unused_weights)]
        check_weights(self.model_id, lacking)
        self.facts = self.read_facts(model, processor)
        return model.eval(), processor

    @property
    def model(self) -> Any:
        """The library's model, once it is loaded."""
        return loaded(self._loaded)[0]

    @property
    def processor(self) -> Any:
        """The library's processor (a tokenizer, a reader of images or of sound), once it is loaded."""
        return loaded(self._loaded)[1]

    def warm_up(self) -> None:
        self.predict(self.smallest())

    def unload(self) -> None:
        self._loaded = self.facts = None
        self.free_memory()

    def free_memory(self) -> None:
        free_device(self.device)


def read_config(model_id: str, **source: Any) -> dict[str, Any]:
    """The settings in `config.json`; raises `OSError` for a checkpoint that lacks it."""
    library: Any = import_module("transformers")
    told: dict[str, Any]
    told, _ = library.PreTrainedConfig.get_config_dict(model_id, **source)
    if not told:
        raise OSError(f"the checkpoint {model_id} has no config.json")
    return told


def check_files(model_id: str, names: tuple[str, ...], **source: Any) -> None:
    """Raise `OSError` for a file that a checkpoint lacks, and for weights that are not in safetensors."""
    files: Any = import_module("transformers.utils.hub")
    for name in names:
        files.cached_file(model_id, name, **source)  # raises with its name
    quietly = {**source, "_raise_exceptions_for_missing_entries": False}
    if all(files.cached_file(model_id, name, **quietly) is None for name in _SAFE):
        raise OSError(
            f"the checkpoint {model_id} has no {_SAFE[0]}: weights in other files are not loaded, "
            "since a pickle can run code"
        )
