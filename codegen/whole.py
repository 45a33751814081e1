"""Says which object a person may give whole in place of a request's fields: atoms, a dataset, a file.

`sheaf_client._inputs` takes them apart; which operation takes which follows from the fields of its contract.
"""

from __future__ import annotations

from collections.abc import Iterable

from codegen.fields import Field

#: Type of `sheaf_client._inputs`, the fields that it gives, and what a person calls it.
_WHOLE = (
    (
        "StructureLike",
        frozenset({"atomic_numbers", "positions", "cell", "pbc"}),
        "an `ase.Atoms` or a pymatgen structure",
    ),
    (
        "GridLike",
        frozenset(
            {
                *("lat", "lon", "pressure_levels", "current_time"),
                *("surface_vars", "atmospheric_vars", "prev_surface_vars", "prev_atmospheric_vars"),
            }
        ),
        "an `xarray.Dataset` whose last two times are the state now and the one before",
    ),
    ("SequencesLike", frozenset({"sequences"}), "Biopython sequences or the path of a FASTA file"),
    ("SequencesLike", frozenset({"chains"}), "Biopython sequences or the path of a FASTA file"),
    ("MoleculesLike", frozenset({"smiles"}), "RDKit molecules"),
)
_FILES = {
    "ImageFileLike": "an image (path, bytes, open file, Pillow image, RGB array)",
    "AudioFileLike": "a sound (path, bytes, open file, samples with their rate)",
}


class Whole:
    """The object that may stand for some of these fields; without a type where there is none."""

    type: str | None = None
    names: frozenset[str] = frozenset()
    words: str = ""

    def __init__(self, fields: Iterable[Field]) -> None:
        known = {field.name: field for field in fields}
        # An encoded file may stand where it is the only one that is required.
        files = [f for f in known.values() if f.default is None and f.type in _FILES]
        for kind, names, words in _WHOLE:
            if names <= known.keys():
                self.type, self.names, self.words = kind, names, words
                return
        if len(files) == 1:
            self.type, self.names = files[0].type, frozenset({files[0].name})
            self.words = _FILES[files[0].type]
