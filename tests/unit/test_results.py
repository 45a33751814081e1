"""Answers as the libraries of each field hold them."""

from __future__ import annotations

import base64
import importlib
import io
import pkgutil
import subprocess
import sys
import wave
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ase.build import bulk, molecule
from PIL import Image
from pymatgen.core import Molecule

import sheaf_client.contracts
from sheaf_client._results import Results
from sheaf_client.contracts.audio import AudioResponse, TTSResponse
from sheaf_client.contracts.base import BaseResponse
from sheaf_client.contracts.depth import DepthResponse
from sheaf_client.contracts.detection import DetectionResponse
from sheaf_client.contracts.diffusion import DiffusionResponse
from sheaf_client.contracts.embedding import EmbeddingResponse
from sheaf_client.contracts.materials import MaterialsRequest, MaterialsResponse
from sheaf_client.contracts.point_cloud import PointCloudResponse
from sheaf_client.contracts.segmentation import SegmentationResponse
from sheaf_client.contracts.tabular import TabularResponse
from sheaf_client.contracts.time_series import TimeSeriesResponse
from sheaf_client.contracts.weather import WeatherResponse


def test_metadata_is_read_like_a_dict_too() -> None:
    given = {"point": "median", "copy": 1, "warnings": ["short"]}
    metadata = make(TimeSeriesResponse, mean=[1.0], horizon=1, frequency="1h", metadata=given).metadata
    assert (metadata["point"], metadata.get("point"), metadata["copy"]) == ("median", "median", 1)
    assert (metadata["warnings"], metadata.warnings) == (["short"], ["short"])
    assert ("point" in metadata, "usage" in metadata, "model_dump" in metadata) == (True, True, False)
    assert (metadata.get("none"), metadata.get("none", 3)) == (None, 3)
    with pytest.raises(KeyError, match="model_dump"):
        metadata["model_dump"]
    assert dict(metadata) == {
        "usage": None,
        "warnings": ["short"],
        "context_hit": None,
        "point": "median",
        "copy": 1,
    }


def make(kind: type[Any], **fields: Any) -> Any:
    head = {"request_id": "11111111-2222-4333-8444-555555555555", "model_name": "m"}
    return kind.model_validate({**head, **fields})


def forecast(**fields: Any) -> TimeSeriesResponse:
    return make(TimeSeriesResponse, **{"mean": [1.0, 2.0], "horizon": 2, "frequency": "1h", **fields})


# ---- numpy


def test_the_main_values_are_one_array_and_other_fields_can_be_named() -> None:
    answer = forecast(quantiles={"0.1": [0.0, 1.0]}, samples=[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert answer.to_numpy().tolist() == [1.0, 2.0]
    assert answer.to_numpy("samples").shape == (3, 2)
    for field in ("quantiles", "frequency", "nothing"):
        with pytest.raises(TypeError, match=field):
            answer.to_numpy(field)
    with pytest.raises(TypeError, match="did not ask"):
        forecast().to_numpy("samples")


def test_tensors_images_and_sounds_are_arrays() -> None:
    depth = np.arange(6, dtype=np.float32).reshape(2, 3)
    answer = make(DepthResponse, depth=depth, height=2, width=3, min_depth=0, max_depth=5)
    assert np.array_equal(answer.to_numpy(), depth)
    masks = [np.eye(2, dtype=np.uint8), np.zeros((2, 2), np.uint8)]
    assert make(SegmentationResponse, masks=masks, scores=[1, 0], height=2, width=2).to_numpy().shape == (
        2,
        2,
        2,
    )
    held = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(held, "PNG")
    drawn = make(DiffusionResponse, image=held.getvalue(), height=2, width=3, seed=1)
    assert drawn.to_numpy()[0, 0].tolist() == [255, 0, 0]
    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", "NONE"))
        file.writeframes(np.array([0, 16384], "<i2").tobytes())
    assert make(TTSResponse, audio=sound.getvalue(), sample_rate=16000).to_numpy().tolist() == [0.0, 0.5]


def test_the_first_main_field_that_is_there_counts() -> None:
    assert make(PointCloudResponse, embedding=[1.0, 2.0]).to_numpy().tolist() == [1.0, 2.0]
    scored = make(PointCloudResponse, label="cup", scores=[0.9, 0.1], label_names=["cup", "jar"])
    assert scored.to_numpy().tolist() == [0.9, 0.1]


def test_an_answer_without_one_array_asks_for_a_name() -> None:
    with pytest.raises(TypeError, match="name a field"):
        make(AudioResponse, text="", language="en").to_numpy()


# ---- pandas


def test_a_forecast_is_a_table_of_its_steps() -> None:
    answer = forecast(
        quantiles={"0.1": [0.0, 1.0], "0.9": [3.0, 4.0]}, timestamps=["2024-01-01", "2024-01-01T01:00"]
    )
    table = answer.to_pandas()
    assert list(table.columns) == ["mean", "0.1", "0.9"]
    assert isinstance(table.index, pd.DatetimeIndex)
    assert table.loc["2024-01-01T01:00", "0.9"] == 4.0
    plain = forecast(samples=[[1.0, 2.0], [3.0, 4.0]]).to_pandas()
    assert list(plain.columns) == ["mean", "samples_0", "samples_1"]
    assert plain["samples_1"].tolist() == [3.0, 4.0]
    assert list(plain.index) == [0, 1]


def test_predictions_are_a_table_with_a_column_for_each_class() -> None:
    answer = make(
        TabularResponse,
        predictions=["no", "yes"],
        probabilities=[[0.7, 0.3], [0.2, 0.8]],
        classes=["no", "yes"],
        task="classification",
        n_context=4,
        n_query=2,
    )
    assert answer.to_pandas().to_dict("list") == {
        "predictions": ["no", "yes"],
        "no": [0.7, 0.2],
        "yes": [0.3, 0.8],
    }


def test_detections_are_a_table_also_where_there_are_none() -> None:
    columns = ["labels", "scores", "x_min", "y_min", "x_max", "y_max"]
    answer = make(DetectionResponse, boxes=[[0, 1, 2, 3]], scores=[0.9], labels=["cat"], width=9, height=9)
    assert answer.to_pandas().loc[0].tolist() == ["cat", 0.9, 0, 1, 2, 3]
    assert list(answer.to_pandas().columns) == columns
    empty = make(DetectionResponse, boxes=[], scores=[], labels=[], width=9, height=9).to_pandas()
    assert (list(empty.columns), len(empty)) == (columns, 0)


def test_embeddings_are_a_table_with_a_row_for_each_input() -> None:
    table = make(EmbeddingResponse, embeddings=[[1.0, 2.0], [3.0, 4.0]], dim=2).to_pandas()
    assert table.to_numpy().tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_segments_are_a_table() -> None:
    segment = {
        "id": 0,
        "start": 0.0,
        "end": 1.5,
        "text": "Hello.",
        "avg_logprob": -0.1,
        "no_speech_prob": 0.0,
    }
    table = make(AudioResponse, text="Hello.", language="en", segments=[segment]).to_pandas()
    assert table.loc[0, ["start", "end", "text"]].tolist() == [0.0, 1.5, "Hello."]


def test_an_answer_that_is_no_table_says_so() -> None:
    with pytest.raises(TypeError, match="DepthResponse is no table"):
        make(DepthResponse, depth=np.zeros((1, 1)), height=1, width=1, min_depth=0, max_depth=0).to_pandas()
    with pytest.raises(TypeError, match="label_names"):
        make(PointCloudResponse, embedding=[1.0]).to_pandas()


# ---- atoms and grids


def computed(atoms: int, **fields: Any) -> MaterialsResponse:
    return make(MaterialsResponse, energy=-3.5, n_atoms=atoms, **fields)


def test_the_atoms_come_back_with_their_results() -> None:
    crystal = bulk("Si")
    forces = np.full((2, 3), 0.25, np.float32)
    answer = computed(2, forces=forces, stress=np.arange(6, dtype=np.float32))
    held = answer.to_ase(crystal)
    assert held.get_potential_energy() == -3.5
    assert np.array_equal(held.get_forces(), forces)
    assert held.get_stress().tolist() == [0, 1, 2, 3, 4, 5]
    assert crystal.calc is None
    assert held == crystal


def test_atoms_come_back_from_the_request_and_from_pymatgen() -> None:
    water = molecule("H2O")
    request = MaterialsRequest.model_validate(
        {"model_name": "m", "atomic_numbers": [8, 1, 1], "positions": water.get_positions()}
    )
    held = computed(3).to_ase(request)
    assert held.get_chemical_formula() == "H2O"
    assert held.get_potential_energy() == -3.5
    oxygen = Molecule(["O", "O"], [[0, 0, 0], [0, 0, 1.2]])
    assert len(computed(2).to_ase(oxygen)) == 2


def test_atoms_that_are_not_those_are_refused() -> None:
    with pytest.raises(ValueError, match="3 atoms, these are 2"):
        computed(3).to_ase(bulk("Si"))
    with pytest.raises(TypeError, match="holds no atoms"):
        computed(3).to_ase(forecast())
    with pytest.raises(TypeError, match="that were sent"):
        computed(3).to_ase()
    with pytest.raises(TypeError, match="neither energy nor structure"):
        forecast().to_ase(bulk("Si"))


def test_a_weather_forecast_is_a_dataset_on_its_grid() -> None:
    def text(array: Any) -> str:
        return base64.b64encode(np.asarray(array, "<f4").tobytes()).decode()

    random = np.random.default_rng(0)
    surface = random.random((2, 2, 4)).astype(np.float32)
    volume = random.random((2, 3, 2, 4)).astype(np.float32)
    answer = make(
        WeatherResponse,
        surface_forecasts=[{"2t": text(step)} for step in surface],
        atmospheric_forecasts=[{"t": text(step)} for step in volume],
        lat=[45, -45],
        lon=[0, 90, 180, 270],
        pressure_levels=[1000, 850, 500],
        forecast_times=["2024-06-01T18:00:00+06:00", "2024-06-01T18:00Z"],
        step_hours=6,
        n_steps=2,
    )
    held = answer.to_xarray()
    assert np.array_equal(held["2t"].sel(lat=-45, lon=90, time="2024-06-01T12:00"), surface[0, 1, 1])
    assert np.array_equal(held["t"].sel(level=850, time="2024-06-01T18:00"), volume[1, 1])
    assert held["t"].dims == ("time", "level", "lat", "lon")
    with pytest.raises(TypeError, match="grid"):
        forecast().to_xarray()


# ---- all of them


def every_response() -> list[type[BaseResponse]]:
    for module in pkgutil.iter_modules(sheaf_client.contracts.__path__):
        importlib.import_module(f"sheaf_client.contracts.{module.name}")
    return sorted(BaseResponse.__subclasses__(), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", every_response(), ids=lambda kind: kind.__name__)
def test_every_response_says_what_it_can_become(kind: type[BaseResponse]) -> None:
    results = kind._results()
    without = {"WeatherResponse"}
    assert issubclass(kind, Results)
    assert bool(results) == (kind.__name__ not in without)
    assert set(results.get("numpy", ())) <= kind.model_fields.keys()


def test_contracts_load_none_of_these_libraries() -> None:
    code = "import sys, sheaf_client.contracts.weather; print(*{m.partition('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & {"pandas", "ase", "xarray", "PIL"} == set()
