"""Batch jobs on a real Ray cluster: every row once, in order, whatever befalls a row or a worker."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sheaf import ModelSpec, registry
from sheaf.api.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf.batch import BatchFailedError, BatchReport, BatchRunner, BatchSpec, JsonlSink, JsonlSource
from sheaf.cli import app
from sheaf.spec import ResourceConfig
from tests.contract.targets import ray_cluster
from tests.echoes import Broken, Echo, Fragile, Mortal

pytestmark = pytest.mark.ray

SMALL = ResourceConfig(num_cpus=0.5)


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    with ray_cluster():
        yield


def write(path: Path, *values: float) -> str:
    rows = ({"history": [0.0, value], "horizon": 1, "frequency": "1h"} for value in values)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def run(tmp_path: Path, backend: type[Echo], source: str, kwargs: Any = None, **job: Any) -> BatchReport:
    spec = ModelSpec(name="m", backend_cls=backend, backend_kwargs=kwargs or {}, resources=SMALL)
    sink = JsonlSink(path=str(tmp_path / "out"))
    return BatchRunner(BatchSpec(spec=spec, source=JsonlSource(path=source), sink=sink, **job)).run()


def outcomes(report: BatchReport) -> list[Any]:
    """Of each row its forecast or its problem's code; every row is where it belongs."""
    rows = [json.loads(line) for file in report.files for line in Path(file).read_text().splitlines()]
    assert [row["index"] for row in rows] == list(range(report.rows))
    return [row["response"]["mean"][0] if "response" in row else row["problem"]["code"] for row in rows]


def test_two_workers_answer_every_row_in_order(tmp_path: Path) -> None:
    values = [float(i) for i in range(100)]
    expected: list[Any] = list(values)
    expected[13] = "invalid"
    report = run(tmp_path, Fragile, write(tmp_path / "in.jsonl", *values), num_workers=2, rows_per_file=8)
    assert outcomes(report) == expected
    assert (report.rows, report.answered, report.refused, report.resumed) == (100, 99, 1, 0)
    assert len(report.files) == 13


def test_a_killed_worker_costs_no_row_and_doubles_none(tmp_path: Path) -> None:
    values = [float(i) for i in range(90, 110)]
    source = write(tmp_path / "in.jsonl", *values)
    report = run(tmp_path, Mortal, source, {"grave": str(tmp_path / "grave")}, rows_per_file=4)
    assert (tmp_path / "grave").exists()
    assert outcomes(report) == values
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == ["_job.json", *(f"part-{number:06d}.jsonl" for number in range(5))]


def test_a_job_that_failed_goes_on_where_it_ended(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", 1.0, 2.0, 3.0, 666.0, 5.0, 6.0)
    with pytest.raises(BatchFailedError, match=r'"index":3.*backend_failed') as failure:
        run(tmp_path, Fragile, source, on_error="fail", rows_per_file=2)
    assert "secret" not in str(failure.value)
    first = tmp_path / "out/part-000000.jsonl"
    written = first.stat().st_mtime_ns
    report = run(tmp_path, Fragile, source, on_error="record", rows_per_file=2)
    assert outcomes(report) == [1.0, 2.0, 3.0, "backend_failed", 5.0, 6.0]
    assert first.stat().st_mtime_ns == written
    assert report.resumed >= 2
    assert report.answered + report.refused + report.resumed == 6
    assert run(tmp_path, Fragile, source, rows_per_file=2).resumed == 6
    with pytest.raises(ValueError, match="input differ"):
        run(tmp_path, Fragile, write(tmp_path / "in.jsonl", 7.0), rows_per_file=2)


class Deadly(Echo):
    """Ends its process at the value 99, whenever it comes."""

    def batch_predict(self, requests: Sequence[TimeSeriesRequest]) -> list[TimeSeriesResponse | Exception]:
        if any(99 in (request.history or ()) for request in requests):
            os._exit(7)
        return super().batch_predict(requests)


class Unloadable(Echo):
    """Ends its process when it is loaded."""

    def load(self) -> None:
        os._exit(7)


class Meddling(Echo):
    """Replaces a file by another of its size, as others may while a job runs."""

    def __init__(self, *, path: str) -> None:
        super().__init__()
        self.path = Path(path)

    def batch_predict(self, requests: Sequence[TimeSeriesRequest]) -> list[TimeSeriesResponse | Exception]:
        self.path.write_text(self.path.read_text().replace("7.0", "8.0"))
        return super().batch_predict(requests)


class Obstructing(Echo):
    """Makes a directory where a file of answers is to be."""

    def __init__(self, *, path: str) -> None:
        super().__init__()
        self.path = Path(path)

    def batch_predict(self, requests: Sequence[TimeSeriesRequest]) -> list[TimeSeriesResponse | Exception]:
        (self.path / "full").mkdir(parents=True)
        return super().batch_predict(requests)


def test_a_row_that_kills_its_process_has_its_problem_and_the_others_their_answers(tmp_path: Path) -> None:
    values = [float(i) for i in range(94, 106)]
    report = run(tmp_path, Deadly, write(tmp_path / "in.jsonl", *values), rows_per_file=8)
    assert outcomes(report) == ["internal" if value == 99 else value for value in values]
    assert (report.answered, report.refused) == (11, 1)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "_job.json",
        "part-000000.jsonl",
        "part-000001.jsonl",
    ]


def test_a_model_whose_loading_kills_its_process_ends_the_job(tmp_path: Path) -> None:
    with pytest.raises(BatchFailedError, match=r"RuntimeError: the process was lost 3 times while it loaded"):
        run(tmp_path, Unloadable, write(tmp_path / "in.jsonl", 1.0))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["_job.json"]


def test_a_source_that_changes_meanwhile_ends_the_job(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", 1.0, 2.0, 3.0, 4.0, 7.0, 6.0)
    with pytest.raises(BatchFailedError, match=r"SourceChangedError: \S+in.jsonl has changed since"):
        run(tmp_path, Meddling, source, {"path": source}, rows_per_file=2)
    assert not (tmp_path / "out/part-000002.jsonl").exists()


def test_a_part_that_somebody_cut_short_is_made_again(tmp_path: Path) -> None:
    values = [float(i) for i in range(6)]
    source = write(tmp_path / "in.jsonl", *values)
    whole, cut, _ = map(Path, run(tmp_path, Echo, source, rows_per_file=2).files)
    cut.write_bytes(cut.read_bytes().splitlines(keepends=True)[0])
    written = whole.stat().st_mtime_ns
    report = run(tmp_path, Echo, source, rows_per_file=2)
    assert outcomes(report) == values
    assert (report.answered, report.resumed, whole.stat().st_mtime_ns) == (2, 4, written)


def test_what_stops_a_worker_is_told_by_its_own_words(tmp_path: Path) -> None:
    obstacle = tmp_path / "out/part-000000.jsonl"
    source = write(tmp_path / "in.jsonl", 1.0)
    with pytest.raises(BatchFailedError, match=r"^a worker could not go on: IsADirectoryError: .*directory$"):
        run(tmp_path, Obstructing, source, {"path": str(obstacle)})


class Known(Echo):
    """Known to this program alone, by the name that the test gives it."""


def test_workers_have_a_backend_that_this_program_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    registry.register_backend("known_here")(Known)
    spec = ModelSpec(name="m", backend="known_here", backend_kwargs={"add": 1}, resources=SMALL)
    source = JsonlSource(path=write(tmp_path / "in.jsonl", 1.0, 2.0))
    job = BatchSpec(spec=spec, source=source, sink=JsonlSink(path=str(tmp_path / "out")))
    assert outcomes(BatchRunner(job).run()) == [2.0, 3.0]


def test_settings_that_do_not_fit_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"do not fit .*'ad'"):
        run(tmp_path, Echo, write(tmp_path / "in.jsonl", 1.0), {"ad": 1})
    assert not (tmp_path / "out").exists()


def test_a_model_that_does_not_load_ends_the_job_with_its_reason(tmp_path: Path) -> None:
    reason = "^a worker could not go on: FileNotFoundError: no checkpoint at /models/none$"
    with pytest.raises(BatchFailedError, match=reason):
        run(tmp_path, Broken, write(tmp_path / "in.jsonl", 1.0))


def test_the_command_runs_a_job_file_with_a_real_model(tmp_path: Path) -> None:
    season = [112.0, 118.0, 132.0, 129.0, 121.0, 135.0, 148.0, 148.0, 136.0, 119.0, 104.0, 118.0]
    row = {"history": season * 3, "horizon": 3, "frequency": "1M"}
    (tmp_path / "in.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "job.yaml").write_text(
        f"spec: statsforecast\nsource: {{path: {tmp_path}/*.jsonl}}\nsink: {{path: {tmp_path}/out}}\n"
    )
    done = CliRunner().invoke(app, ["batch", str(tmp_path / "job.yaml")])
    assert done.exit_code == 0, done.output
    assert "1 rows: 1 answered, 0 refused" in done.output
    (made,) = (json.loads(line) for line in (tmp_path / "out/part-000000.jsonl").read_text().splitlines())
    assert len(made["response"]["mean"]) == 3
