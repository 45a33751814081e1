"""Biological sequences and molecules as text: Biopython's records, FASTA files, RDKit's molecules."""

from __future__ import annotations

import gzip
import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Protocol, TypeAlias, cast

from sheaf_client._inputs.kinds import comes_from

#: What lines of comments begin with, in FASTA and its relatives.
_COMMENTS = (";", "#", "!")
_FASTA = (".fasta", ".fas", ".fa", ".faa", ".fna", ".ffn", ".frn", ".mpfa")


class _Record(Protocol):
    """Biopython's `SeqRecord`."""

    @property
    def seq(self) -> Any: ...
    @property
    def id(self) -> Any: ...


class _Seq(Protocol):
    """Biopython's `Seq`."""

    def reverse_complement(self) -> Any: ...


class _Mol(Protocol):
    """RDKit's `Mol`."""

    def GetNumAtoms(self) -> int: ...  # noqa: N802 - RDKit's name


SequenceLike: TypeAlias = _Record | _Seq
"""A sequence of Biopython's."""
SequencesLike: TypeAlias = "SequenceLike | Sequence[SequenceLike] | os.PathLike[str]"
"""One or more sequences of Biopython's, or the path of a FASTA file, which may be gzipped."""
MoleculeLike: TypeAlias = _Mol
"""A molecule of RDKit's."""
MoleculesLike: TypeAlias = "MoleculeLike | Sequence[MoleculeLike]"
"""One or more molecules of RDKit's."""


def as_text(value: Any) -> Any:
    """The residues or bases of a sequence, the canonical SMILES of a molecule; anything else as it is."""
    if is_sequence(value):
        return str(getattr(value, "seq", value))
    if is_molecule(value):
        return importlib.import_module("rdkit.Chem").MolToSmiles(value)
    return value


def is_sequence(value: Any) -> bool:
    """Whether the value is Biopython's `Seq` or `SeqRecord`."""
    return comes_from(value, "Bio", "SeqRecord", "_SeqAbstractBaseClass")


def is_molecule(value: Any) -> bool:
    """Whether the value is RDKit's `Mol`."""
    return comes_from(value, "rdkit", "Mol")


def fasta_path(value: Any) -> Path | None:
    """The path where the value is one: a path object, or text that names a FASTA file that is there."""
    if isinstance(value, os.PathLike):
        return Path(cast("os.PathLike[str]", value))
    if (
        isinstance(value, str)
        and value.removesuffix(".gz").lower().endswith(_FASTA)
        and Path(value).is_file()
    ):
        return Path(value)
    return None


def sequence_fields(value: Any) -> dict[str, Any] | None:
    """`sequences` of the records or the file; None where the value is neither."""
    named = _named_sequences(value)
    return None if named is None else {"sequences": [sequence for _, sequence in named]}


def chain_fields(value: Any) -> dict[str, Any] | None:
    """`chains` of the records or the file, called A, B, … in their order; None where the value is neither."""
    named = _named_sequences(value)
    if named is None:
        return None
    if len(named) > len(ascii_uppercase):
        raise ValueError(f"{len(named)} chains have no letters of their own; give `chains` with their ids")
    letters = zip(ascii_uppercase, named, strict=False)
    return {"chains": [{"chain_id": letter, "sequence": sequence} for letter, (_, sequence) in letters]}


def molecule_fields(value: Any) -> dict[str, Any] | None:
    """`smiles` of the molecules; None where the value is none."""
    molecules = _all(value, is_molecule)
    return None if molecules is None else {"smiles": [as_text(molecule) for molecule in molecules]}


def _named_sequences(value: Any) -> list[tuple[str, str]] | None:
    if (path := fasta_path(value)) is not None:
        return read_fasta(path)
    records = _all(value, is_sequence)
    return None if records is None else [(str(getattr(r, "id", "")), as_text(r)) for r in records]


def _all(value: Any, is_one: Callable[[Any], bool]) -> list[Any] | None:
    """The value as a list where it is one, or a list of nothing else."""
    if is_one(value):
        return [value]
    if isinstance(value, list | tuple):
        items = cast("Sequence[Any]", value)
        return list(items) if items and all(is_one(item) for item in items) else None
    return None


def read_fasta(path: Path) -> list[tuple[str, str]]:
    """Name and sequence of each entry of a FASTA file, gzipped or not.

    Raises `ValueError` where it has no entries, or something else before the first.
    """
    # Sequences are ASCII; names may be in any encoding, and cost nobody the file.
    form: Any = {"mode": "rt", "encoding": "utf-8-sig", "errors": "replace"}
    opener: Any = gzip.open if path.suffix == ".gz" else Path.open
    with opener(path, **form) as lines:
        entries = list(_entries(cast("Iterable[str]", lines)))
    if not entries:
        raise ValueError(f"{path} holds no FASTA entries")
    return entries


def _entries(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    name: str | None = None
    parts: list[str] = []
    for raw in lines:
        line = raw.strip()
        if line.startswith(">"):
            if name is not None:
                yield name, "".join(parts)
            name, parts = line[1:].split(maxsplit=1)[0] if line[1:].split() else "", []
        elif not line or line.startswith(_COMMENTS):
            continue
        elif name is None:
            raise ValueError("a FASTA file begins with '>'")
        else:
            parts += line.split()  # in blocks, as some programs write them
    if name is not None:
        yield name, "".join(parts)
