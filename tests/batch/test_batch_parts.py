"""Batch jobs without a cluster: how files are cut, what a worker makes of rows, what a job file says."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from sheaf import ModelSpec
from sheaf.batch import BatchRunner, BatchSpec, JsonlSink, JsonlSource
from sheaf.batch import work as work_module
from sheaf.batch.attempts import Attempts
from sheaf.batch.files import SourceChangedError, find, is_whole, plan, read, resolve
from sheaf.batch.work import PartWorker
from sheaf.contract.decoding import decode_line
from sheaf_client.errors import UnavailableError
from tests.echoes import Echo, Fragile, Unwritable
from tests.observability.readings import Readings

LIMIT = 2**20


def parts_of(*files: Path, rows: int = 2, limit: int = LIMIT) -> list[Any]:
    return list(plan([str(f) for f in files], rows, limit, hashlib.blake2b()))


def rows_of(*files: Path, rows: int = 2, limit: int = LIMIT) -> list[tuple[int, bytes | None]]:
    return [row for part in parts_of(*files, rows=rows, limit=limit) for row in read(part, limit)]


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def request(value: float, **more: Any) -> dict[str, Any]:
    return {"history": [0.0, value], "horizon": 1, "frequency": "1h", **more}


def answers(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for part in sorted(folder.glob("part-*")) for line in part.open()]


def worker_of(tmp_path: Path, source: Path, **job: Any) -> PartWorker:
    (tmp_path / "out").mkdir()
    spec = BatchSpec(
        spec=job.pop("spec", ModelSpec(name="m", backend_cls=Fragile)),
        source=JsonlSource(path=str(source)),
        sink=JsonlSink(path=str(tmp_path / "out")),
        **job,
    )
    return PartWorker(spec)


def work(tmp_path: Path, source: Path, **job: Any) -> list[dict[str, Any]]:
    """What one worker makes of a file, part after part."""
    worker = worker_of(tmp_path, source, **job)
    for part in parts_of(source, rows=4):
        worker.answer(part)
    return answers(tmp_path / "out")


def test_parts_hold_every_row_once_and_count_over_all_files(tmp_path: Path) -> None:
    one = write(tmp_path / "a.jsonl", "1", "", "2", "3", "  ")
    two = tmp_path / "b.jsonl"
    two.write_bytes(b"\n4\r\n5")  # other line ends, and none at the end
    assert [(p.first_row, p.rows) for p in parts_of(one, two)] == [(0, 2), (2, 1), (3, 2)]
    rows = [(i, (row or b"").strip()) for i, row in rows_of(one, two)]
    assert rows == [(0, b"1"), (1, b"2"), (2, b"3"), (3, b"4"), (4, b"5")]


def test_separators_inside_json_text_end_no_row(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", '"one\u2028row\x85still"', '"two"')
    assert [index for index, _ in rows_of(source)] == [0, 1]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_rows_of_any_editor_are_read(tmp_path: Path, end: str) -> None:
    """A mark at the beginning, also of a file that was joined to another; blank lines; spaces behind."""
    lines = ["\ufeff" + json.dumps(request(1)), "", "  ", json.dumps(request(2)) + "  \t"]
    lines += ["\ufeff" + json.dumps(request(3)), "\ufeff", json.dumps(request(4))]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(end.join(lines).encode())
    found = work(tmp_path, path)
    assert [(row["index"], row["response"]["mean"]) for row in found] == [
        (index, [value]) for index, value in enumerate([1.0, 2.0, 3.0, 4.0])
    ]


def test_a_row_over_the_limit_is_known_by_its_place_alone(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", "x" * 10, "y" * 11, "z" * 3_000_000, "w")
    assert rows_of(source, limit=10) == [(0, b"x" * 10 + b"\n"), (1, None), (2, None), (3, b"w\n")]


def test_a_large_file_is_never_held_whole(tmp_path: Path) -> None:
    source = tmp_path / "large.jsonl"
    with source.open("wb") as file:
        for _ in range(400):
            file.write(b"[" + b"1.0," * 25_000 + b"1.0]\n")
    assert source.stat().st_size > 40e6
    tracemalloc.start()
    try:
        parts = parts_of(source, rows=300)
        counted = sum(1 for part in parts for _ in read(part, LIMIT))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert counted == 400
    assert peak < 8e6


def test_sources_are_files_patterns_or_several(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "c.txt"):
        write(tmp_path / name, "1")
    found = find(JsonlSource(path=f"{tmp_path}/*.jsonl"))
    assert found == [f"{tmp_path}/a.jsonl", f"{tmp_path}/b.jsonl"]
    assert find(JsonlSource(path=(f"{tmp_path}/c.txt", f"{tmp_path}/a.jsonl")))[0].endswith("c.txt")
    with pytest.raises(FileNotFoundError, match="nothing"):
        find(JsonlSource(path=f"{tmp_path}/nothing*.jsonl"))
    write(tmp_path / "d.jsonl.gz", "1")
    with pytest.raises(ValueError, match="unpack"):
        find(JsonlSource(path=f"{tmp_path}/d.jsonl.gz"))


def test_a_bad_row_has_its_problem_and_its_neighbours_their_answers(tmp_path: Path) -> None:
    source = write(
        tmp_path / "in.jsonl",
        request(1.0),
        "{broken",
        request(2.0, item_id="two"),
        request(3.0, horizn=4),
        request(13.0),
        request(666.0),
        request(4.0, model_name="another"),
        "[]",
        request(5.0),
    )
    made = work(tmp_path, source)
    assert [row["index"] for row in made] == list(range(9))
    assert {row["index"]: row["response"]["mean"] for row in made if "response" in row} == {
        0: [1.0],
        2: [2.0],
        6: [4.0],
        8: [5.0],
    }
    # Which model answers is the job's to say; what a row calls it is a label.
    assert made[6]["response"]["model_name"] == made[0]["response"]["model_name"]
    problems = {row["index"]: row["problem"] for row in made if "problem" in row}
    assert {i: p["code"] for i, p in problems.items()} == {
        1: "malformed",
        3: "invalid",
        4: "invalid",
        5: "backend_failed",
        7: "invalid",
    }
    assert problems[3]["errors"][0]["path"] == "/horizn"
    assert "secret" not in json.dumps(made)
    assert all(p["request_id"] == made[i]["request_id"] for i, p in problems.items())


def test_optional_fields_of_one_row_are_not_those_of_another(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", request(1.0, item_id="one"), request(2.0))
    made = work(tmp_path, source)
    assert [row["response"]["item_id"] for row in made] == ["one", None]


def test_identifiers_are_kept_or_the_same_in_every_run(tmp_path: Path) -> None:
    own = "6f1e7d2e-9f5f-4d1c-8f5e-2a3b4c5d6e7f"
    lines = [request(1.0, request_id=own), request(2.0), request(2.0), "{broken"]
    runs = []
    for run in ("one", "two"):
        (tmp_path / run).mkdir()
        source = write(tmp_path / run / "in.jsonl", *lines)
        runs.append([row["request_id"] for row in work(tmp_path / run, source)])
    assert runs[0] == runs[1]
    assert runs[0][0] == own
    assert len(set(runs[0])) == 4


def test_a_worker_keeps_its_engine_full_and_its_queue_below_the_limit(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", *(request(float(i)) for i in range(64)))
    spec = ModelSpec(name="m", backend_cls=Echo, batch_policy={"max_batch_size": 8, "max_queue": 4})
    made = work(tmp_path, source, spec=spec, batch_size=1000)
    assert [row["response"]["mean"] for row in made] == [[float(i)] for i in range(64)]


def test_a_model_that_went_away_is_no_fault_of_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_module, "PATIENCE", 0.0)
    source = write(tmp_path / "in.jsonl", request(1.0))
    sink = JsonlSink(path=str(tmp_path))
    spec = ModelSpec(name="m", backend_cls=Echo)
    worker = PartWorker(BatchSpec(spec=spec, source=JsonlSource(path=str(source)), sink=sink))
    worker._runtime.stop()
    with pytest.raises(UnavailableError):
        worker.answer(parts_of(source)[0])
    assert answers(tmp_path) == []


def test_a_job_file_reads_back_as_the_same_job(tmp_path: Path) -> None:
    job = BatchSpec(
        spec=ModelSpec(name="m", backend="statsforecast", backend_kwargs={"model": "AutoETS"}),
        source=JsonlSource(path=("a.jsonl", "b.jsonl")),
        sink=JsonlSink(path="out"),
        num_workers=2,
        on_error="fail",
    )
    (tmp_path / "job.yaml").write_text(job.to_yaml())
    assert BatchSpec.from_yaml(tmp_path / "job.yaml") == job
    (tmp_path / "job.json").write_text(job.model_dump_json(exclude_none=True))
    assert BatchSpec.from_yaml(tmp_path / "job.json") == job
    text = (tmp_path / "job.yaml").read_text(encoding="utf-8")
    for encoding in ("utf-8-sig", "utf-16"):
        edited = "# a job  \r\n\r\n" + text.replace("\n", "  \r\n")
        (tmp_path / "edited.yaml").write_bytes(edited.encode(encoding))
        assert BatchSpec.from_yaml(tmp_path / "edited.yaml") == job


def test_a_job_without_a_named_backend_has_no_yaml() -> None:
    spec = ModelSpec(name="m", backend_cls=Echo)
    job = BatchSpec(spec=spec, source=JsonlSource(path="in"), sink=JsonlSink(path="out"))
    with pytest.raises(ValueError, match="registered name"):
        job.to_yaml()


def test_the_answers_of_another_job_are_not_continued(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/part-000000.jsonl").write_text("precious\n")
    job = BatchSpec(
        spec="statsforecast",
        source=JsonlSource(path=str(write(tmp_path / "in.jsonl", request(1.0)))),
        sink=JsonlSink(path=str(tmp_path / "out")),
    )
    with pytest.raises(ValueError, match="another job"):
        BatchRunner(job).run()
    assert (tmp_path / "out/part-000000.jsonl").read_text() == "precious\n"


def test_a_job_file_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/part-000000.jsonl").write_text("precious\n")
    (tmp_path / "out/_job.json").write_text("[1, 2]")
    source = JsonlSource(path=str(write(tmp_path / "in.jsonl", request(1.0))))
    job = BatchSpec(spec="statsforecast", source=source, sink=JsonlSink(path=str(tmp_path / "out")))
    with pytest.raises(ValueError, match="another job"):
        BatchRunner(job).run()


def test_a_part_of_another_content_is_noticed(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", request(1.0), request(2.0), "", "")
    worker = worker_of(tmp_path, source)
    (part,) = parts_of(source)
    source.write_text(source.read_text().replace("2.0", "3.0"))
    with pytest.raises(SourceChangedError, match="has changed"):
        worker.answer(part)
    assert not list((tmp_path / "out").glob("part-*"))
    (part,) = parts_of(source)
    assert worker.answer(part) == {"rows": 2, "refused": 0, "failure": ""}
    source.write_text("")
    with pytest.raises(SourceChangedError, match="has changed"):
        worker.answer(part)
    worker._runtime.stop()


def test_a_row_of_a_changed_source_is_not_told_as_the_jobs(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", request(1.0), request(2.0), request(3.0))
    worker = worker_of(tmp_path, source, on_error="fail", batch_size=1)
    parts = parts_of(source, rows=3)
    source.write_text(source.read_text().replace("1.0", "{"))
    with pytest.raises(SourceChangedError, match="has changed"):
        worker.answer(parts[0])
    worker._runtime.stop()


def test_a_part_that_was_lost_thrice_is_run_row_by_row(tmp_path: Path) -> None:
    """What a process leaves that is lost, and what the next one makes of it."""
    source = write(tmp_path / "in.jsonl", *(request(float(i)) for i in range(4)), "{broken")
    worker = worker_of(tmp_path, source)
    (part,) = parts_of(source, rows=5)
    filesystem, folder = resolve(str(tmp_path / "out"))
    for begun in (1, 2, 3):
        assert (lost := Attempts(filesystem, folder, part.name)).begun == begun
        assert not lost.lost
    for _ in range(2):
        lost = Attempts(filesystem, folder, part.name)
        assert lost.lost
        assert not lost.lost_row(2)
        lost.begin_row(2)
    assert worker.answer(part) == {"rows": 5, "refused": 2, "failure": ""}
    made = answers(tmp_path / "out")
    assert [row["problem"]["code"] if "problem" in row else row["response"]["mean"][0] for row in made] == [
        *(0.0, 1.0, "internal", 3.0, "malformed")
    ]
    assert [len(batch) for batch in worker._runtime.backend.batches] == [1, 1, 1]
    assert [path.name for path in (tmp_path / "out").iterdir()] == [part.name], "nothing is left of it"
    worker._runtime.stop()


def test_an_error_is_no_lost_process(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", request(1.0))
    worker = worker_of(tmp_path, source)
    (part,) = parts_of(source)
    source.write_text("")
    for _ in range(5):
        with pytest.raises(SourceChangedError):
            worker.answer(part)
    assert Attempts(*resolve(str(tmp_path / "out")), part.name).begun == 1
    worker._runtime.stop()


def test_a_part_is_whole_where_its_last_row_is_there(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", *(request(float(i)) for i in range(4)))
    made = work(tmp_path, source)
    (part,) = parts_of(source, rows=4)
    file = tmp_path / "out" / part.name
    lines = file.read_bytes().splitlines(keepends=True)
    assert len(made) == len(lines) == 4
    assert is_whole(part, str(tmp_path / "out"))
    for cut in (b"", b"".join(lines[:3]), b"".join(lines)[:-1], lines[3][:20], b"\n"):
        file.write_bytes(cut)
        assert not is_whole(part, str(tmp_path / "out"))
    file.write_bytes(lines[3])
    assert is_whole(part, str(tmp_path / "out"))


def test_a_name_deeper_in_a_row_is_not_the_rows_own() -> None:
    members = {"model_name": "other", "request_id": "mine"}
    line = json.dumps(request(1.0, static_covariates=members)).encode()
    made_up = uuid4()
    read_back = decode_line(line, Echo.model_type, "echo", made_up)
    assert (read_back.model_name, read_back.request_id) == ("echo", made_up)


def test_rows_are_counted_like_requests(tmp_path: Path) -> None:
    source = write(
        tmp_path / "a.jsonl", request(1.0), request(2.0, horizon=0), request(666.0), "{", "x" * 400
    )
    (tmp_path / "out").mkdir()
    job = BatchSpec(
        spec=ModelSpec(name="m", backend_cls=Fragile),
        source=JsonlSource(path=str(source), max_row_bytes=300),
        sink=JsonlSink(path=str(tmp_path / "out")),
    )
    worker = PartWorker(job)
    for part in parts_of(source, limit=300):
        worker.answer(part)
    told = Readings(worker._telemetry.exposition().decode())
    for outcome in ("ok", "backend_failed"):
        assert told.of("sheaf_predictions_total", model="m", mode="predict", outcome=outcome) == 1
    for code in ("invalid", "malformed", "too_large"):
        assert told.of("sheaf_refused_total", model="m", code=code) == 1
    assert told.of("sheaf_model_ready", model="m") == 1
    assert told.total("sheaf_batch_size_count", model="m") >= 1
    worker._runtime.stop()


def test_an_answer_that_cannot_be_written_is_a_problem_of_its_row_alone(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", *map(request, (1.0, 13.0, 12.0, 2.0)))
    spec = ModelSpec(name="m", backend_cls=Unwritable)
    lines = work(tmp_path, source, spec=spec)
    assert [line.get("response", {}).get("mean") for line in lines] == [[1.0], None, None, [2.0]]
    assert [line["problem"]["code"] for line in lines[1:3]] == ["backend_failed", "invalid"]
