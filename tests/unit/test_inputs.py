"""What people hold, as real libraries make it, in the keywords of a client."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
import wave
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
import xarray as xr
from ase import Atoms
from ase.build import bulk, molecule
from Bio.Seq import Seq
from Bio.SeqRecord import SeqRecord
from PIL import Image
from pymatgen.core import Lattice, Molecule, Structure
from rdkit import Chem

from sheaf_client._inputs import as_body, expand, plain
from sheaf_client._inputs.media import png_bytes
from sheaf_client._operation import Operation
from sheaf_client._resource import build_request
from sheaf_client.contracts.base import BaseRequest
from sheaf_client.errors import InvalidRequestError
from sheaf_client.resources.audio import TRANSCRIBE
from sheaf_client.resources.depth import ESTIMATE
from sheaf_client.resources.embedding import EMBED as EMBED_TEXTS
from sheaf_client.resources.materials import COMPUTE
from sheaf_client.resources.molecular import EMBED as EMBED_PROTEINS
from sheaf_client.resources.optical_flow import ESTIMATE as ESTIMATE_FLOW
from sheaf_client.resources.point_cloud import INFER as INFER_POINTS
from sheaf_client.resources.small_molecule import EMBED as EMBED_SMILES
from sheaf_client.resources.structure import FOLD
from sheaf_client.resources.tabular import PREDICT
from sheaf_client.resources.time_series import FORECAST
from sheaf_client.resources.video import INFER as INFER_VIDEO
from sheaf_client.resources.weather import FORECAST as FORECAST_WEATHER

PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def build(operation: Operation[Any, Any], **fields: Any) -> Any:
    return build_request(operation, "m", fields)


def taken(operation: Operation[Any, Any], whole: object, **fields: Any) -> Any:
    return build_request(operation, "m", {**expand(operation.request, whole), **fields})


# ---- arrays, series and frames


@pytest.mark.parametrize(
    "history",
    [
        np.array([1.0, np.nan, 3.0]),
        np.array([1.0, np.nan, 3.0], dtype=np.float32),
        torch.tensor([1.0, float("nan"), 3.0], requires_grad=True),
        pd.Series([1.0, None, 3.0]),
        pd.Series([1, None, 3], dtype="Int64"),
        pl.Series([1.0, None, 3.0]),
        pa.array([1.0, None, 3.0]),
        pa.chunked_array([[1.0, None], [3.0]]),
        xr.DataArray([1.0, np.nan, 3.0]),
        (1.0, None, 3),
    ],
    ids=lambda value: f"{type(value).__module__}.{type(value).__name__}",
)
def test_a_series_of_any_library_is_a_list_with_none_for_what_is_missing(history: Any) -> None:
    request = build(FORECAST, history=history, horizon=1, frequency="1h")
    assert request.history == [1.0, None, 3.0]


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}),
        pl.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}),
        pa.table({"a": [1.0, 2.0], "b": [3.0, 4.0]}),
        np.array([[1.0, 3.0], [2.0, 4.0]]),
    ],
    ids=["pandas", "polars", "pyarrow", "numpy"],
)
def test_a_frame_is_rows_where_the_field_is_a_list(frame: Any) -> None:
    assert build(FORECAST, history=frame, horizon=1, frequency="1h").history == [[1.0, 3.0], [2.0, 4.0]]


@pytest.mark.parametrize(
    "library", [pd.DataFrame, pl.DataFrame, pa.table], ids=["pandas", "polars", "pyarrow"]
)
def test_a_frame_is_columns_where_the_field_is_a_mapping(library: Any) -> None:
    frame = library({"promotion": [0, 1, 1], "weekday": ["mo", "tu", "we"]})
    request = build(FORECAST, history=[1, 2, 3], past_covariates=frame, horizon=1, frequency="1d")
    assert request.past_covariates == {"promotion": [0, 1, 1], "weekday": ["mo", "tu", "we"]}


def test_a_frame_of_mixed_columns_keeps_each_values_own_type() -> None:
    frame = pd.DataFrame(
        {
            "age": [31, 47],
            "city": pd.Categorical(["Rome", "Oslo"]),
            "income": pd.array([None, 2], dtype="Int64"),
        }
    )
    request = build(PREDICT, context_X=frame, context_y=pd.Series(["yes", "no"]), query_X=frame.iloc[:1])
    assert request.context_X == [[31, "Rome", None], [47, "Oslo", 2]]
    assert request.context_y == ["yes", "no"]


@pytest.mark.parametrize(
    "times",
    [
        pd.date_range("2024-01-01", periods=2, freq="h"),
        pd.Series(pd.date_range("2024-01-01", periods=2, freq="h")),
        pd.period_range("2024-01-01", periods=2, freq="h"),
        pl.Series([datetime(2024, 1, 1, 0), datetime(2024, 1, 1, 1)]),
        np.array(["2024-01-01T00", "2024-01-01T01"], dtype="datetime64[ns]"),
        ["2024-01-01", np.datetime64("2024-01-01T01")],
        [pd.Timestamp("2024-01-01"), np.datetime64("2024-01-01T01", "ns")],
        [pd.Period("2024-01-01T00", "h"), datetime(2024, 1, 1, 1)],
        xr.DataArray(np.array(["2024-01-01T00", "2024-01-01T01"], dtype="datetime64[ns]")),
    ],
    ids=["index", "series", "periods", "polars", "numpy", "text", "scalars", "period", "xarray"],
)
def test_times_of_any_library_are_datetimes(times: Any) -> None:
    request = build(FORECAST, history=[1, 2], timestamps=times, horizon=1, frequency="1h")
    assert [t.isoformat() for t in request.timestamps] == ["2024-01-01T00:00:00", "2024-01-01T01:00:00"]


@pytest.mark.parametrize(
    "start",
    [
        pd.Timestamp("2024-01-01"),
        np.datetime64("2024-01-01", "ns"),
        np.datetime64("2024-01-01"),
        pd.Period("2024-01-01", "D"),
        datetime(2024, 1, 1),
        "2024-01-01",
    ],
    ids=lambda value: f"{type(value).__module__}.{type(value).__name__}",
)
def test_one_time_of_any_library_is_a_datetime(start: Any) -> None:
    request = build(FORECAST, history=[1, 2], start=start, horizon=1, frequency="1h")
    assert request.start == datetime(2024, 1, 1)


def test_a_long_list_of_numbers_is_left_alone() -> None:
    numbers = [1.0] * 10
    assert plain(numbers) is numbers


# ---- tensors


@pytest.mark.parametrize(
    "points",
    [
        np.zeros((5, 3), dtype=np.float64),
        torch.zeros((5, 3), requires_grad=True),
        torch.zeros((5, 3), dtype=torch.bfloat16),
        pd.DataFrame(np.zeros((5, 3))),
        xr.DataArray(np.zeros((5, 3))),
        [[0.0, 0.0, 0.0]] * 5,
        np.zeros((5, 3), dtype="<f4").tobytes(),
    ],
    ids=["numpy", "torch", "bfloat16", "pandas", "xarray", "lists", "bytes"],
)
def test_a_tensor_is_taken_from_any_array(points: Any) -> None:
    request = build(INFER_POINTS, points=points, n_points=5)
    assert request.points.dtype == np.float32
    assert request.points.shape == (5, 3)


def test_a_field_given_under_both_names_is_refused() -> None:
    with pytest.raises(TypeError, match="one field"):
        build(INFER_POINTS, points=np.zeros((1, 3)), points_b64="AAAA", n_points=1)


def test_a_tensor_of_the_wrong_shape_names_its_field() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        build(INFER_POINTS, points=np.zeros((5, 2)), n_points=5)
    assert [(f.code, f.path) for f in caught.value.errors] == [("bytes_match_shape", "/points_b64")]


# ---- images and sounds


def pixels_of(image: Any) -> Any:
    return np.asarray(Image.open(io.BytesIO(image.bytes)).convert("RGB"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(PIXELS).save(path)
    return path


def test_an_image_is_taken_in_every_form(picture: Path) -> None:
    import base64

    data = picture.read_bytes()
    forms: list[Any] = [
        data,
        bytearray(data),
        base64.b64encode(data).decode(),
        picture,
        str(picture),
        io.BytesIO(data),
        Image.open(picture),
        PIXELS,
        torch.from_numpy(PIXELS),
    ]
    for form in forms:
        request = build(ESTIMATE, image=form)
        assert np.array_equal(pixels_of(request.image), PIXELS), type(form)
        assert build(ESTIMATE, image_b64=request.image_b64).image == request.image
    with picture.open("rb") as file:
        assert build(ESTIMATE, image=file).image.bytes == data


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "F"])
def test_pillow_images_of_any_mode_are_sent(mode: str) -> None:
    request = build(ESTIMATE, image=Image.new(mode, (3, 2)))
    assert Image.open(io.BytesIO(request.image.bytes)).size == (3, 2)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((4, 6), np.uint8),
        ((4, 6, 3), np.uint8),
        ((4, 6, 4), np.uint8),
        ((1, 1), np.uint8),
        ((4, 6), np.bool_),
    ],
)
def test_pixels_survive_their_png(shape: tuple[int, ...], dtype: Any) -> None:
    array = (np.arange(np.prod(shape)) % 251).reshape(shape).astype(dtype)
    read = np.asarray(Image.open(io.BytesIO(png_bytes(array))))
    assert np.array_equal(read, array.astype(np.uint8) * (255 if dtype == np.bool_ else 1))


@pytest.mark.parametrize(
    "array", [np.zeros((2, 2)), np.zeros((2, 2, 2), np.uint8), np.zeros((0, 2), np.uint8)]
)
def test_an_array_that_is_no_image_says_why(array: Any) -> None:
    with pytest.raises(TypeError, match="uint8"):
        build(ESTIMATE, image=array)


def test_several_images_in_one_field(picture: Path) -> None:
    request = build(INFER_VIDEO, frames=[picture, Image.open(picture), PIXELS])
    assert [pixels_of(frame).shape for frame in request.frames] == [(4, 6, 3)] * 3
    assert len(build(INFER_VIDEO, frames=np.stack([PIXELS, PIXELS])).frames) == 2
    assert len(build(EMBED_TEXTS, images=[picture]).images) == 1


def test_a_path_without_a_file_is_told_apart_from_base64(tmp_path: Path) -> None:
    for missing in (tmp_path / "no.png", str(tmp_path / "no.png"), "no.png"):
        with pytest.raises(FileNotFoundError):
            build(ESTIMATE, image=missing)
    with pytest.raises(InvalidRequestError):
        build(ESTIMATE, image="not base64!")


def test_a_file_opened_as_text_is_refused() -> None:
    with pytest.raises(TypeError, match="rb"):
        build(ESTIMATE, image=io.StringIO("x"))


def test_a_contract_never_reads_a_path(picture: Path) -> None:
    from pydantic import ValidationError

    for value in (str(picture), picture):
        with pytest.raises(ValidationError):
            ESTIMATE.request.model_validate({"model_name": "m", "image_b64": value})


@pytest.mark.parametrize(
    ("samples", "channels"),
    [
        (np.array([0.0, 0.5, -1.0, 2.0]), 1),
        (torch.tensor([[0.0, 0.5], [-1.0, 1.0]]), 2),
        (np.array([0, 100], np.int16), 1),
    ],
)
def test_samples_with_their_rate_become_a_wav(samples: Any, channels: int) -> None:
    request = build(TRANSCRIBE, audio=(samples, 16000))
    with wave.open(io.BytesIO(request.audio.bytes)) as sound:
        assert (sound.getnchannels(), sound.getframerate(), sound.getsampwidth()) == (channels, 16000, 2)
        assert sound.getnframes() == len(samples)
        read = np.frombuffer(sound.readframes(99), "<i2").reshape(len(samples), -1).squeeze()
    wanted = np.asarray(samples)
    scaled = wanted if wanted.dtype == np.int16 else np.clip(wanted, -1, 1) * 32767
    assert np.abs(read - scaled).max() <= 0.5


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


@pytest.mark.parametrize("text", ["", "MKT\n"])
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
    given = dataset()
    for time in (
        datetime(2024, 6, 1, 12),
        pd.Timestamp("2024-06-01T12"),
        np.datetime64("2024-06-01T12", "ns"),
    ):
        fields = {**expand(FORECAST_WEATHER.request, given), "current_time": time}
        assert build(FORECAST_WEATHER, **fields).current_time == "2024-06-01T12:00:00"


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
        taken(FORECAST_WEATHER, dataset().drop_dims("level"))


# ---- whole objects


def test_a_file_stands_for_the_one_file_that_is_required(picture: Path) -> None:
    assert taken(ESTIMATE, picture).image.bytes == picture.read_bytes()
    assert pixels_of(taken(ESTIMATE, PIXELS).image).shape == (4, 6, 3)
    assert taken(TRANSCRIBE, (np.zeros(8), 16000), language="en").language == "en"


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


def test_unknown_keywords_are_left_to_the_contract() -> None:
    assert as_body(FORECAST.request, {"horizn": 3}) == {"horizn": 3}
    with pytest.raises(InvalidRequestError) as caught:
        build(FORECAST, history=[1.0], horizon=1, frequency="1h", horizn=3)
    assert [f.code for f in caught.value.errors] == ["unknown_field"]


def test_nothing_is_imported_to_recognise_what_is_not_there() -> None:
    code = (
        "import sys; from sheaf_client.resources.time_series import FORECAST\n"
        "from sheaf_client._resource import build_request\n"
        "build_request(FORECAST, 'm', dict(history=[1.0], horizon=1, frequency='1h'))\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert (
        loaded & {"pandas", "polars", "pyarrow", "torch", "xarray", "ase", "pymatgen", "Bio", "rdkit", "PIL"}
        == set()
    )
    assert issubclass(FORECAST.request, BaseRequest)
