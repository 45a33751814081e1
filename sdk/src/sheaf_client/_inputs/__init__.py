"""Turns what people hold into what the contracts carry: arrays, frames, images, paths, structures, sequences.

Everything is recognised by the name of its class or by what it can do, so that no library is imported for it.
This is for the keywords of a client alone; a contract, and so a server, never reads a path.
"""

from __future__ import annotations

from sheaf_client._inputs.arrays import ArrayLike, missing_as_none, plain
from sheaf_client._inputs.fields import REPLACEABLE, as_body, expand
from sheaf_client._inputs.grids import GridLike
from sheaf_client._inputs.media import AudioFileLike, ImageFileLike
from sheaf_client._inputs.sequences import MoleculeLike, MoleculesLike, SequenceLike, SequencesLike
from sheaf_client._inputs.structures import StructureLike

__all__ = [
    "REPLACEABLE",
    "ArrayLike",
    "AudioFileLike",
    "GridLike",
    "ImageFileLike",
    "MoleculeLike",
    "MoleculesLike",
    "SequenceLike",
    "SequencesLike",
    "StructureLike",
    "as_body",
    "expand",
    "missing_as_none",
    "plain",
]
