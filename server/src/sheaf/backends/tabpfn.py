"""TabPFN: a transformer that has learned to learn tables, from Prior Labs' own library.

The network reads a context once into the keys and values of its attention; queries are then answered from
these, which costs a tenth of reading the context again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from sheaf.api.tabular import TabularRequest
from sheaf.backends._families.tabular.backend import Fitted, Prediction, TabularBackend
from sheaf.backends._families.tabular.sizes import bytes_of
from sheaf.backends._families.tabular.tables import Column, Table
from sheaf.backends._shared.loading import libraries_of, loaded
from sheaf.backends._shared.refusals import refuse
from sheaf.backends._shared.settings import one_of, torch_dtype
from sheaf.backends.info import BackendInfo, Weights
from sheaf.registry import register_backend

if TYPE_CHECKING:
    from tabpfn import ModelSpecs  # type: ignore[import-untyped]

TASKS = {"classification": "TabPFNClassifier", "regression": "TabPFNRegressor"}
#: Versions whose checkpoints the library finds, and downloads where they are not there.
VERSIONS = ("v2", "v2.5", "v2.6", "v3", "v3.5", "v3.5-fast")
#: How the names of checkpoints begin to say what they are for; others are for both tasks.
_FILES = {"classification": "classifier", "regression": "regressor"}


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """What is known of a checkpoint for one task.

    Attributes:
        max_classes: classes that it tells apart.
        max_columns: columns that it was trained for.
        max_rows: rows that it was trained for, or that the library takes on a processor, where that is less.
        on_cpu: whether `max_rows` is that of a processor.
    """

    max_classes: int
    max_columns: int
    max_rows: int
    on_cpu: bool


def _facts_of(model: ModelSpecs, *, on_cpu: bool) -> TaskFacts:
    limits = model.inference_config
    most = limits.MAX_NUMBER_OF_SAMPLES
    on_cpu = on_cpu and most > limits.MAX_CPU_SAMPLES
    return TaskFacts(
        limits.MAX_NUMBER_OF_CLASSES,
        limits.MAX_NUMBER_OF_FEATURES,
        limits.MAX_CPU_SAMPLES if on_cpu else most,
        on_cpu,
    )


@register_backend("tabpfn")
class TabPFNBackend(TabularBackend):
    """Predictions equal the library's own `predict_proba` and `predict` on the same context.

    Args:
        model_id: a version (`v2`, `v2.5`, `v2.6`, `v3`, `v3.5`, `v3.5-fast`), whose checkpoints the library
            downloads once; the path of a checkpoint (`.ckpt` or `.safetensors`), or of a folder with one for
            each task. From v2.5 on the library asks for an accepted licence and its token in
            `TABPFN_TOKEN` before it downloads; a local checkpoint needs neither.
        device: `cpu`, `cuda`, `cuda:1` …
        dtype: `float32`, `bfloat16`, `float16`, or the library's own `auto` and `autocast`;
            `inference_precision` is the older spelling.
        n_estimators: how many views of the context are averaged; the checkpoint's own number by default.
        ignore_pretraining_limits: whether to take contexts beyond what the model was trained for.
        max_context_bytes: most bytes of fitted contexts; 0 keeps none.
    """

    info: ClassVar[BackendInfo | None] = BackendInfo(
        title="TabPFN",
        extra="tabpfn",
        libraries=("torch", "tabpfn"),
        default_model="v2",
        memory_mb=75,
        weights=(
            Weights(
                models=("v2",),
                license="Prior Labs License (Apache-2.0 with attribution)",
                card="https://huggingface.co/Prior-Labs/TabPFN-v2-clf",
            ),
            Weights(
                models=("v2.5", "v2.6", "v3", "v3.5", "v3.5-fast"),
                license="Prior Labs non-commercial licence",
                card="https://huggingface.co/Prior-Labs",
                gated=True,
                restriction="From version 2.5 on the weights are for other use than commercial.",
            ),
        ),
        papers=("https://doi.org/10.1038/s41586-024-08328-6",),
    )

    #: Beyond it the squares that the network takes do not fit into float32.
    largest: ClassVar[float] = 1e18

    def __init__(
        self,
        model_id: str = "v2",
        *,
        device: str = "cpu",
        dtype: Any = None,
        n_estimators: int | None = None,
        ignore_pretraining_limits: bool = False,
        max_context_bytes: int = 2**30,
        inference_precision: Any = None,
    ) -> None:
        super().__init__(max_context_bytes)
        if n_estimators is not None and n_estimators < 1:
            raise ValueError(f"n_estimators must be at least 1, not {n_estimators}")
        self.model_id = str(model_id)
        self.device = device
        self.dtype = one_of("dtype", dtype, "inference_precision", inference_precision, "float32")
        self.n_estimators = n_estimators
        self.ignore_pretraining_limits = ignore_pretraining_limits
        self._models: dict[str, ModelSpecs] = {}
        self._library: Any = None

    def load(self) -> None:
        """Load the checkpoints of both tasks, or of the one that there is.

        Raises `ModuleNotFoundError` where the library is missing, `FileNotFoundError` where the checkpoint
        is, and `ValueError` where it is none of the library's.
        """
        with libraries_of(self):
            import tabpfn
            import torch
        self._library, random = tabpfn, cast("Any", torch.random)  # annotated in part
        paths = _checkpoints(self.model_id)
        models: dict[str, ModelSpecs] = {}
        failures: list[ValueError] = []
        for task, path in paths.items():
            try:
                with random.fork_rng(devices=[]):  # some networks draw numbers as they are built
                    models[task] = self._read(task, path)
            except ValueError as error:
                failures.append(error)  # a checkpoint may have the head of one task alone
        _forget_file()
        if not models:
            raise ValueError(f"{self.model_id} holds no TabPFN model: {failures[0]}") from failures[0]
        self._models = models
        self.facts = {task: _facts_of(model, on_cpu=self.device == "cpu") for task, model in models.items()}

    def unload(self) -> None:
        self._models, self.facts = {}, None
        self.contexts.clear()

    def check_task(self, task: str) -> None:
        if task not in (known := self.known):
            raise refuse("/task", f"{Path(self.model_id).name} is a checkpoint for {' '.join(known)}.")

    def check_context(self, request: TabularRequest, n_classes: int) -> None:
        rows, limits = request.context_X or [[]], self.known[request.task]
        if len(rows) < 2:
            raise refuse("/context_X", "The model learns from two rows on.", "too_short")
        if request.task == "classification" and n_classes > limits.max_classes:
            most = limits.max_classes
            raise refuse("/context_y", f"The model tells {most} classes apart, not {n_classes}.")
        if self.ignore_pretraining_limits:
            return
        if len(rows[0]) > limits.max_columns:
            raise refuse("/context_X/0", f"The model takes up to {limits.max_columns} columns.")
        if len(rows) > limits.max_rows:
            where = " on a CPU" if limits.on_cpu else ""
            raise refuse("/context_X", f"The model takes up to {limits.max_rows} rows{where}.")

    @property
    def known(self) -> Mapping[str, TaskFacts]:
        """What is known of the loaded checkpoints, by task."""
        facts: Mapping[str, TaskFacts] | None = self.facts
        return loaded(facts)

    def fit(self, table: Table) -> Fitted:
        specs = self._specs(table.task)
        estimator = self._estimator(table.task, specs, categories=table.columns.categories or None)
        try:
            estimator.fit(_rows(table.features, table), table.target)
        except self._library.errors.TabPFNUserError as error:
            raise refuse("/context_X", str(error).splitlines()[0]) from error
        return _Learned(estimator, table, shared=(specs.model, specs.norm_criterion))

    def _specs(self, task: str) -> ModelSpecs:
        self.check_task(task)
        return self._models[task]

    def _read(self, task: str, path: str | Path) -> ModelSpecs:
        """The network of a checkpoint with its settings, held once for all contexts."""
        if isinstance(path, Path) and path.suffix != ".safetensors":
            _check_weights_alone(path)
        if isinstance(path, Path):
            estimator = self._estimator(task, str(path))
        else:
            version = self._library.constants.ModelVersion(path)
            made = getattr(self._library, TASKS[task]).create_default_for_version(version)
            estimator = self._estimator(task, made.model_path)
        try:
            settings = estimator.get_inference_config()
        except (KeyError, TypeError, RuntimeError, AttributeError) as error:
            raise ValueError(f"{path}: {error}") from error
        criterion = getattr(estimator, "znorm_space_bardist_", None)
        return self._library.ModelSpecs(estimator.models_[0], estimator.configs_[0], settings, criterion)

    def _estimator(self, task: str, model: Any, categories: list[int] | None = None) -> Any:
        return getattr(self._library, TASKS[task])(
            model_path=model,
            device=self.device,
            n_estimators=self.n_estimators or "auto",
            categorical_features_indices=categories,
            inference_precision=self.dtype if self.dtype == "autocast" else torch_dtype(self.dtype),
            ignore_pretraining_limits=self.ignore_pretraining_limits,
            fit_mode="fit_with_cache",
            # What newer models do by default, eight bits, is not what they say without a cache.
            kv_cache_precision="auto",
            random_state=0,
        )


class _Learned:
    """A fitted estimator; of its memory all counts but the network, which contexts share."""

    def __init__(self, estimator: Any, table: Table, shared: Sequence[object]) -> None:
        self._estimator = estimator
        self._table = Table(table.task, table.columns, [], table.target[:0], table.classes)
        self.size = bytes_of(estimator, shared=shared)

    def predict(self, features: Sequence[Column], levels: Sequence[float]) -> Prediction:
        rows = _rows(features, self._table)
        if self._table.classes is not None:
            return Prediction(probabilities=self._estimator.predict_proba(rows).astype(np.float64))
        found = self._estimator.predict(rows, output_type="full", quantiles=list(levels))
        quantiles = dict(zip(levels, found["quantiles"], strict=True))
        return Prediction(mean=found["mean"], quantiles=quantiles)

    def trim(self) -> None:
        pass


def _rows(features: Sequence[Column], table: Table) -> Any:
    """Rows as the library takes them: an array where all are numbers, else a frame that keeps text apart."""
    if not table.columns.text:
        return np.column_stack(features)
    import pandas as pd

    # The library reads text that looks like numbers as numbers; an equal beginning keeps the order of the
    # categories, which is all that it uses of them.
    columns = {
        j: [None if cell is None else f"={cell}" for cell in column] if j in table.columns.text else column
        for j, column in enumerate(features)
    }
    frame = pd.DataFrame(columns)
    return frame.astype(dict.fromkeys(table.columns.text, object))


def _checkpoints(model_id: str) -> dict[str, str | Path]:
    """The version, or the file, of each task; raises `FileNotFoundError` where there is none."""
    if model_id in VERSIONS:
        return dict.fromkeys(TASKS, model_id)
    path = Path(model_id)
    if path.is_file():
        return dict.fromkeys(TASKS, path)
    if not path.is_dir():
        known = ", ".join(VERSIONS)
        raise FileNotFoundError(f"{model_id} is no checkpoint, no folder of them, and none of {known}")
    files = sorted(file for file in path.iterdir() if file.suffix in (".ckpt", ".safetensors"))
    both = [file for file in files if not any(word in file.name for word in _FILES.values())]
    found: dict[str, str | Path] = {}
    for task, word in _FILES.items():
        fitting = [file for file in files if word in file.name] or both
        if len(fitting) > 1:
            raise ValueError(f"{model_id} has {len(fitting)} checkpoints for {task}: name one")
        if fitting:
            found[task] = fitting[0]
    if not found:
        raise FileNotFoundError(f"{model_id} has no checkpoint (.ckpt, .safetensors)")
    return found


def _forget_file() -> None:
    """Let go of the last file that was read: the library keeps all of it, a second copy of the weights."""
    from tabpfn import model_loading

    cached: Any = getattr(model_loading, "_load_checkpoint_cached", None)
    if cached is not None:
        cached.cache_clear()


def _check_weights_alone(path: Path) -> None:
    """Refuse a file that holds more than weights and plain values, whatever the environment allows torch."""
    import torch

    try:
        torch.load(path, map_location="meta", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} is no checkpoint of weights alone: {error}") from error
