"""Sequences, molecules, structures and datasets, in keywords and in place of them."""

from __future__ import annotations

import gzip
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from ase import Atoms
from ase.build import bulk, molecule
from Bio.Seq import Seq
from Bio.SeqRecord import SeqRecord
from pymatgen.core import Lattice, Molecule, Structure
from rdkit import Chem

from sheaf_client._inputs import expand
from sheaf_client._operation import Operation
from sheaf_client.operations.depth import ESTIMATE
from sheaf_client.operations.materials import COMPUTE
from sheaf_client.operations.molecular import EMBED as EMBED_PROTEINS
from sheaf_client.operations.optical_flow import ESTIMATE as ESTIMATE_FLOW
from sheaf_client.operations.small_molecule import EMBED as EMBED_SMILES
from sheaf_client.operations.structure import FOLD
from sheaf_client.operations.time_series import FORECAST
from sheaf_client.operations.weather import FORECAST as FORECAST_WEATHER
from tests.unit.built import build, taken

PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


# ---- sequences and molecules


RECORDS = [SeqRecord(Seq("MKT"), id="a"), SeqRecord(Seq("GIVEQ"), id="b")]


@pytest.mark.parametrize("held", [RECORDS, [Seq("MKT"), Seq("GIVEQ")], tuple(RECORDS)])
def test_biopython_sequences_are_text(held: Any) -> None:
    assert build(EMBED_PROTEINS, sequences=held).sequences == ["MKT", "GIVEQ"]
    assert taken(EMBED_PROTEINS, held, pooling="mean").sequences == ["MKT", "GIVEQ"]


def test_one_record_is_a_list_of_one() -> None:
    assert taken(EMBED_PROTEINS, RECORDS[0]).sequences == ["MKT"]
    assert build(EMBED_PROTEINS, sequences=Seq("MKT")).sequences == ["MKT"]


@pytest.mark.parametrize("name", ["x.fasta", "x.fa", "x.txt", "x.faa.gz"])
def test_a_fasta_file_is_its_sequences(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    text = ">one first protein\nMK\nT\n\n>two\r\nGIVEQ\r\n"
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    assert build(EMBED_PROTEINS, sequences=path).sequences == ["MKT", "GIVEQ"]
    assert taken(EMBED_PROTEINS, path).sequences == ["MKT", "GIVEQ"]
    if not name.endswith(".txt"):
        assert build(EMBED_PROTEINS, sequences=str(path)).sequences == ["MKT", "GIVEQ"]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf>one\nMKT\n>two\nGIVEQ\n",
        b"; written by hand\n\n>one\nMK\n; a note\nT\n>two\nGIVEQ",
        b"# a comment\r\n! another\r\n>one\r\nMKT  \r\n\r\n>two\t\r\n  GIVEQ\r\n\r\n",
        b"\xef\xbb\xbf;\n>one\rMKT\r>two\rGIV EQ\r",
        b">Gl\xfcck, in Latin-1\nMKT\n>two \xc3\xbc\nGIVEQ\n",
    ],
)
@pytest.mark.parametrize("name", ["x.fasta", "x.fa.gz"])
def test_a_fasta_file_of_any_editor_is_read(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert build(EMBED_PROTEINS, sequences=path).sequences == ["MKT", "GIVEQ"]


@pytest.mark.parametrize("text", ["", "MKT\n", "# only a comment\n", "<html>\n>one\nMKT\n"])
def test_a_file_that_is_no_fasta_says_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.fasta"
    path.write_text(text)
    with pytest.raises(ValueError, match="FASTA"):
        build(EMBED_PROTEINS, sequences=path)


def test_records_are_chains_with_letters() -> None:
    request = taken(FOLD, RECORDS)
    assert [(c.chain_id, c.sequence) for c in request.chains] == [("A", "MKT"), ("B", "GIVEQ")]
    with pytest.raises(ValueError, match="27 chains"):
        taken(FOLD, [RECORDS[0]] * 27)


def test_molecules_are_canonical_smiles() -> None:
    held = [Chem.MolFromSmiles("OCC"), Chem.MolFromSmiles("C1=CC=CC=C1")]
    assert build(EMBED_SMILES, smiles=held).smiles == ["CCO", "c1ccccc1"]
    assert taken(EMBED_SMILES, held).smiles == ["CCO", "c1ccccc1"]
    assert taken(EMBED_SMILES, held[0]).smiles == ["CCO"]


# ---- structures and grids


def test_ase_atoms_are_a_request() -> None:
    crystal = bulk("Si")
    request = taken(COMPUTE, crystal, compute_stress=True)
    assert request.atomic_numbers == [14, 14]
    assert np.allclose(request.positions, crystal.get_positions(), atol=1e-6)
    assert np.allclose(request.cell, crystal.cell.array)
    assert request.pbc == [True, True, True]
    water = taken(COMPUTE, molecule("H2O"))
    assert (water.atomic_numbers, water.cell, water.pbc) == ([8, 1, 1], None, [False, False, False])


def test_a_class_derived_from_ase_atoms_counts() -> None:
    class Labelled(Atoms):
        pass

    assert taken(COMPUTE, Labelled("H", positions=[[0, 0, 0]])).atomic_numbers == [1]


def test_pymatgen_structures_are_a_request() -> None:
    salt = Structure(Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    request = taken(COMPUTE, salt)
    assert request.atomic_numbers == [11, 17]
    assert np.allclose(request.positions[1], [2.82, 2.82, 2.82])
    assert np.allclose(request.cell, np.eye(3) * 5.64)
    assert request.pbc == [True, True, True]
    gas = taken(COMPUTE, Molecule(["O", "O"], [[0, 0, 0], [0, 0, 1.2]]))
    assert (gas.atomic_numbers, gas.cell, gas.pbc) == ([8, 8], None, False)


def dataset(times: int = 3, **renamed: str) -> xr.Dataset:
    random = np.random.default_rng(0)
    held = xr.Dataset(
        {
            "2t": (("time", "lat", "lon"), random.random((times, 2, 4))),
            # In an order of its own: the fields are put right by name.
            "t": (("lat", "level", "time", "lon"), random.random((2, 3, times, 4))),
            "lsm": (("lat", "lon"), random.random((2, 4))),
        },
        coords={
            "time": pd.date_range("2024-06-01", periods=times, freq="6h"),
            "lat": [45.0, -45.0],
            "lon": [0.0, 90.0, 180.0, 270.0],
            "level": [1000, 850, 500],
        },
    )
    return held.rename(renamed)


def test_times_that_stay_text_may_be_given_as_datetimes() -> None:
    given = expand(FORECAST_WEATHER.request, dataset())
    for time in (
        datetime(2024, 6, 1, 12),
        pd.Timestamp("2024-06-01T12"),
        np.datetime64("2024-06-01T12", "ns"),
    ):
        request = build(FORECAST_WEATHER, **{**given, "current_time": time})
        assert request.current_time == "2024-06-01T12:00:00"
    assert build(FORECAST_WEATHER, **{**given, "current_time": date(2024, 6, 1)}).current_time == "2024-06-01"


@pytest.mark.parametrize(
    "renamed", [{}, {"lat": "latitude", "lon": "longitude", "level": "pressure_level", "time": "valid_time"}]
)
def test_an_xarray_dataset_is_the_state_now_and_before(renamed: dict[str, str]) -> None:
    held = dataset()
    request = taken(FORECAST_WEATHER, held.rename(renamed), n_steps=2)
    assert request.current_time == "2024-06-01T12:00:00"
    assert (request.lat, request.pressure_levels) == ([45.0, -45.0], [1000, 850, 500])
    assert request.surface_vars.keys() == {"2t"}
    assert np.allclose(request.surface_vars["2t"], held["2t"][-1])
    assert np.allclose(request.prev_surface_vars["2t"], held["2t"][-2])
    assert np.allclose(request.atmospheric_vars["t"], held["t"].transpose("time", "level", "lat", "lon")[-1])
    assert np.allclose(
        request.prev_atmospheric_vars["t"], held["t"].transpose("time", "level", "lat", "lon")[-2]
    )


def test_a_dataset_that_lacks_something_says_what() -> None:
    with pytest.raises(ValueError, match="two times"):
        taken(FORECAST_WEATHER, dataset(times=1))
    with pytest.raises(ValueError, match="no dimension for level"):
        taken(FORECAST_WEATHER, dataset(level="height"))
    with pytest.raises(ValueError, match="no dimension for level"):
        taken(FORECAST_WEATHER, dataset().isel(level=0))
    with pytest.raises(ValueError, match="no dimension for lat"):
        taken(FORECAST_WEATHER, dataset(lat="y").drop_dims("level"))


def test_a_dataset_of_the_surface_alone_needs_no_levels() -> None:
    held = dataset().drop_dims("level")
    request = taken(FORECAST_WEATHER, held)
    assert (request.pressure_levels, request.atmospheric_vars, request.prev_atmospheric_vars) == ([], {}, {})
    assert np.allclose(request.surface_vars["2t"], held["2t"][-1])
    assert np.allclose(request.prev_surface_vars["2t"], held["2t"][-2])


# ---- whole objects


@pytest.mark.parametrize(
    ("operation", "whole"),
    [
        (COMPUTE, dataset()),
        (FORECAST, bulk("Si")),
        (EMBED_PROTEINS, ["MKT", RECORDS[0]]),
        (EMBED_PROTEINS, []),
        (ESTIMATE, 3),
        (ESTIMATE, "AAAA"),
        (ESTIMATE_FLOW, PIXELS),
        (FORECAST, object()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_object_that_fits_nothing_is_refused_by_name(operation: Operation[Any, Any], whole: Any) -> None:
    with pytest.raises(TypeError, match=operation.request.__name__):
        expand(operation.request, whole)
