"""The backends that can be deployed, as data: what `sheaf backends` prints and pages are checked against."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec

from sheaf.backends.base import ModelBackend
from sheaf.backends.declared import declared_type
from sheaf.backends.info import Weights
from sheaf.backends.operations import served_by
from sheaf.backends.stepwise import StepwiseBackend
from sheaf.registry import UnknownBackendError, backend_names, find_backend

log = logging.getLogger("sheaf.catalogue")

#: Columns of a terminal that the table takes at most.
WIDTH = 100


@dataclass(frozen=True)
class Entry:
    """One backend.

    Attributes:
        name: What a spec calls it.
        class_path: Its class.
        model_type: The contract it follows, where no setting says another.
        operations: Those that it serves.
        title: What people call its models.
        summary: The first line of its documentation.
        extra: The extra of `sheaf-serve` that brings its libraries; empty where it names none.
        installed: Whether the libraries are there.
        default_model: What it loads where no setting names a model.
        memory_mb: About how many MB its weights take; 0 where there are none, or nobody has said.
        license: Of the weights of the default model; empty where there are none, or nobody has said.
        commercial: Whether they may be used commercially.
        gated: Whether they are given only to those who agreed to terms.
        streams: Whether it tells of its progress.
        steps: Whether requests join and leave between its steps.
        adapters: Whether it takes LoRA adapters.
        contexts: Whether it keeps contexts between requests.
        weights: The published weights that it knows, by licence.
        papers: Where its models are described.
    """

    name: str
    class_path: str
    model_type: str
    operations: tuple[str, ...]
    title: str
    summary: str
    extra: str
    installed: bool
    default_model: str | None
    memory_mb: int
    license: str
    commercial: bool
    gated: bool
    streams: bool
    steps: bool
    adapters: bool
    contexts: bool
    weights: tuple[Weights, ...]
    papers: tuple[str, ...]


def catalogue() -> list[Entry]:
    """All backends, in order of names; one of another package that cannot be used is logged and left out."""
    found: list[Entry] = []
    for name in backend_names():
        try:
            found.append(_entry(name, find_backend(name)))
        except (UnknownBackendError, ValueError) as error:
            log.warning("%s", error)
    return found


def _entry(name: str, cls: type[ModelBackend]) -> Entry:
    info, model_type = cls.info, declared_type(cls, {})
    weights = info.weights_of(info.default_model) if info is not None and info.default_model else None
    return Entry(
        name=name,
        class_path=f"{cls.__module__}.{cls.__qualname__}",
        model_type=model_type,
        operations=served_by(cls, model_type),
        title=name if info is None else info.title,
        summary=(cls.__doc__ or "").strip().partition("\n")[0],
        extra="" if info is None else info.extra,
        installed=info is None or all(find_spec(library) for library in info.libraries),
        default_model=None if info is None else info.default_model,
        memory_mb=0 if info is None else info.memory_mb,
        license="" if weights is None else weights.license,
        commercial=weights is None or not weights.restriction,
        gated=weights is not None and weights.gated,
        streams=cls.streams(),
        steps=issubclass(cls, StepwiseBackend),
        adapters=cls.takes_adapters,
        contexts=cls.keeps_contexts,
        weights=() if info is None else info.weights,
        papers=() if info is None else info.papers,
    )


def as_json(entries: Iterable[Entry]) -> list[dict[str, object]]:
    """The same as JSON has it."""
    return [asdict(entry) for entry in entries]


def as_table(entries: Sequence[Entry]) -> str:
    """A table for a terminal, of at most 100 columns; a `*` marks what is installed."""
    head = ("", "backend", "model type", "extra", "memory", "default weights")
    rows = [head, *(_row(entry) for entry in entries)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    lines = [line if len(line) <= WIDTH else f"{line[: WIDTH - 2].rstrip()} …" for line in lines]
    legend = "* its libraries are installed. All of it, papers and terms included: sheaf backends --json"
    return "\n".join([*lines, "", legend])


def _row(entry: Entry) -> tuple[str, ...]:
    return (
        "*" if entry.installed else "",
        entry.name,
        entry.model_type,
        entry.extra,
        _memory(entry.memory_mb),
        _terms(entry),
    )


def _memory(megabytes: int) -> str:
    if not megabytes:
        return ""
    return f"{megabytes / 1000:.2g} GB" if megabytes >= 1000 else f"{megabytes} MB"


def _terms(entry: Entry) -> str:
    """The licence of the default weights, and what of it a deployer must know first."""
    if entry.license:
        marks = [
            word
            for word, holds in (("not commercial", not entry.commercial), ("gated", entry.gated))
            if holds
        ]
        return f"{', '.join(marks)}: {entry.license}" if marks else entry.license
    return "no download" if entry.default_model is None and not entry.weights else "to be named"
