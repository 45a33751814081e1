"""Predicted structures as ASE's atoms, read from files as the libraries of the field write them."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from Bio.PDB.mmcifio import MMCIFIO
from Bio.PDB.PDBIO import PDBIO
from Bio.PDB.StructureBuilder import StructureBuilder

from sheaf_client.contracts.structure import StructureResponse

#: Atom, element, residue, its number, chain, position in Å.
ATOMS = [
    ("N", "N", "GLY", 1, "A", (-8.863, 5.512, -2.104)),
    ("CA", "C", "GLY", 1, "A", (-7.62, 4.748, -2.337)),
    ("O5'", "O", "DA", 1, "B", (0.125, -1.5, 2.25)),
    ("ZN", "ZN", "ZN", 7, "9", (10.0, 20.0, 30.0)),
]


def written(file_format: str, models: int = 1) -> str:
    """The text of a file with the atoms, shifted by 1 Å in each further model."""
    builder: Any = StructureBuilder()
    builder.init_structure("s")
    for model in range(models):
        builder.init_model(model, model + 1)
        builder.init_seg("    ")
        chain = None
        for name, element, residue, number, letter, position in ATOMS:
            if letter != chain:
                builder.init_chain(letter)
            if (letter, number) != (chain, number) or name == "ZN":
                builder.init_residue(residue, "H_ZN" if name == "ZN" else " ", number, " ")
            chain = letter
            held = np.array(position) + model
            builder.init_atom(name, held, 87.31, 1.0, " ", f"{name:^4}", None, element)
    out = io.StringIO()
    writer: Any = MMCIFIO() if file_format == "mmcif" else PDBIO()
    writer.set_structure(builder.get_structure())
    writer.save(out)
    return out.getvalue()


def folded(text: str, file_format: str) -> StructureResponse:
    return StructureResponse.model_validate(
        {
            "request_id": "11111111-2222-4333-8444-555555555555",
            "model_name": "m",
            "structure": text,
            "structure_format": file_format,
            "plddt": [0.9],
        }
    )


@pytest.mark.parametrize("file_format", ["mmcif", "pdb"])
@pytest.mark.parametrize("models", [1, 2])
def test_a_structure_is_atoms_with_their_names(file_format: str, models: int) -> None:
    atoms: Any = folded(written(file_format, models), file_format).to_ase()
    assert atoms.get_chemical_symbols() == ["N", "C", "O", "Zn"]
    assert np.allclose(atoms.get_positions(), [position for *_, position in ATOMS], atol=1e-3)
    assert not atoms.pbc.any()
    arrays = {name: values.tolist() for name, values in atoms.arrays.items()}
    assert arrays["atomtypes"] == ["N", "CA", "O5'", "ZN"]
    assert arrays["residuenames"] == ["GLY", "GLY", "DA", "ZN"]
    assert arrays["residuenumbers"] == [1, 1, 1, 7]
    assert arrays["chainids"] == ["A", "A", "B", "9"]
    assert arrays["bfactor"] == [87.31] * 4
    assert arrays["occupancy"] == [1.0] * 4


def test_the_file_of_the_contracts_example_is_read() -> None:
    text = "ATOM      1  N   GLY A   1      -8.863   5.512  -2.104  1.00 87.31           N\nEND\n"
    atoms: Any = folded(text, "pdb").to_ase()
    assert atoms.get_positions().tolist() == [[-8.863, 5.512, -2.104]]


@pytest.mark.parametrize("file_format", ["mmcif", "pdb"])
@pytest.mark.parametrize("text", ["", "not a structure", "data_x\n#\n", "END\n"])
def test_a_text_without_atoms_says_so(file_format: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"no {file_format} file with atoms"):
        folded(text, file_format).to_ase()


def test_a_structure_takes_no_atoms() -> None:
    answer = folded(written("pdb"), "pdb")
    with pytest.raises(TypeError, match="has its own atoms"):
        answer.to_ase(answer.to_ase())


@pytest.mark.parametrize(
    ("file_format", "missing", "package"), [("pdb", "ase", "ase"), ("mmcif", "Bio", "biopython")]
)
def test_a_library_that_is_not_installed_is_named(file_format: str, missing: str, package: str) -> None:
    code = (
        "import sys; from sheaf_client.contracts.structure import StructureResponse\n"
        f"sys.modules[{missing!r}] = None\n"
        "answer = StructureResponse.model_construct(structure=sys.stdin.read(), "
        f"structure_format={file_format!r})\n"
        "try: answer.to_ase()\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=written(file_format), capture_output=True, text=True, check=True
    )
    assert done.stdout == f"these atoms need the package '{package}': pip install {package}\n"
