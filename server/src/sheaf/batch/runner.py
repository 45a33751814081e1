"""Runs a batch job on Ray Data: a pool of loaded models takes parts of the input and writes part files.

The driver knows where parts begin and how many rows were refused; rows are in the workers alone.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import posixpath
import re
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, cast

from sheaf.batch.attempts import BEGUN
from sheaf.batch.files import UNFINISHED, Part, find, fs, is_whole, plan, resolve
from sheaf.batch.spec import BatchSpec
from sheaf.batch.work import PackedWorker
from sheaf.carried import pack, with_class
from sheaf.extras import needs
from sheaf.ray_errors import cause_of

log = logging.getLogger("sheaf.batch")

#: Says what the part files beside it belong to.
JOB_FILE = "_job.json"
_PART = re.compile(r"part-\d{6,}\.jsonl")


class BatchFailedError(RuntimeError):
    """The job ended before its time: a row was refused and `on_error` is `fail`, or a worker was lost."""


@dataclass(frozen=True)
class BatchReport:
    """What became of a job.

    Attributes:
        rows: rows of the input.
        answered: rows that this run answered.
        refused: rows whose problem this run wrote down.
        resumed: rows that an earlier run had finished.
        seconds: time the run took.
        files: the part files, in order of their rows.
    """

    rows: int
    answered: int
    refused: int
    resumed: int
    seconds: float
    files: list[str]


class BatchRunner:
    """Runs one batch job; on the cluster of `ray.init` or `RAY_ADDRESS`, else on this machine.

    report = BatchRunner(BatchSpec.from_yaml("job.yaml")).run()
    """

    def __init__(self, spec: BatchSpec) -> None:
        self.spec = spec

    def run(self) -> BatchReport:
        """Answer every row.

        Raises:
            BatchFailedError: A row was refused under `on_error="fail"`, the model does not load, or a source
                file has changed since this call began.
            FileNotFoundError: The source names no file.
            ModuleNotFoundError: Ray Data is not installed.
            ValueError: The sink holds the answers of another job, or the model's settings do not fit it.
        """
        with needs("a batch job", "batch"):
            importlib.import_module("ray.data")  # before anything is read
        started = time.perf_counter()
        job = self.spec
        job.spec.make_backend()
        digest = hashlib.blake2b(digest_size=16)
        parts = list(plan(find(job.source), job.rows_per_file, job.source.max_row_bytes, digest))
        finished = self._open_sink({"input": digest.hexdigest(), **_identity(job)}, parts)
        left = [part for part in parts if part.name not in finished]
        # What counts attempts outlives a job that was killed, as its model's process may take all with it.
        self._delete_hidden(UNFINISHED, *(() if job.resume else (BEGUN,)))
        try:
            written, refused = self._work(left) if left else (0, 0)
        finally:
            self._delete_hidden(UNFINISHED, BEGUN)
        resumed = sum(part.rows for part in parts if part.name in finished)
        return BatchReport(
            rows=written + resumed,
            answered=written - refused,
            refused=refused,
            resumed=resumed,
            seconds=time.perf_counter() - started,
            files=[posixpath.join(job.sink.path, part.name) for part in parts],
        )

    def _open_sink(self, identity: Mapping[str, Any], parts: Iterable[Part]) -> set[str]:
        """Make the directory ready; the names of the part files that need not be written again."""
        filesystem, folder = resolve(self.spec.sink.path)
        filesystem.create_dir(folder, recursive=True)
        names: set[str] = {info.base_name for info in filesystem.get_file_info(fs.FileSelector(folder))}
        finished = {name for name in names if _PART.fullmatch(name)}
        label = posixpath.join(folder, JOB_FILE)
        if not self.spec.resume:
            self._delete(finished)
            finished = set[str]()
        elif finished:
            _check(filesystem, label, identity, self.spec.sink.path)
            path = self.spec.sink.path
            finished = {part.name for part in parts if part.name in finished and is_whole(part, path)}
        with filesystem.open_output_stream(label) as file:
            file.write(json.dumps(identity, indent=1).encode())
        return finished

    def _delete(self, names: Iterable[str]) -> None:
        filesystem, folder = resolve(self.spec.sink.path)
        for name in names:
            filesystem.delete_file(posixpath.join(folder, name))

    def _delete_hidden(self, *beginnings: str) -> None:
        """Files of workers that were lost; those that wrote them are gone before and after a run."""
        filesystem, folder = resolve(self.spec.sink.path)
        names = (info.base_name for info in filesystem.get_file_info(fs.FileSelector(folder)))
        self._delete(name for name in names if name.startswith(beginnings))

    def _work(self, parts: list[Part]) -> tuple[int, int]:
        """Hand the parts to the workers; how many rows were written, and how many of them refused."""
        import ray.data
        from ray.exceptions import RayError

        data: Any = ray.data  # annotated only in part
        model = with_class(self.spec.spec)
        packed = pack(self.spec.model_copy(update={"spec": model}), model)
        resources = model.resources
        options: dict[str, Any] = {"num_cpus": resources.num_cpus, "num_gpus": resources.num_gpus}
        if resources.memory_gb is not None:
            options["memory"] = int(resources.memory_gb * 2**30)
        workers = min(self.spec.workers, len(parts))
        written = refused = 0
        with _cluster():
            # A block for each part, so that a worker takes one when it is free, and a lost one costs no more.
            described = data.from_items([asdict(part) for part in parts], override_num_blocks=len(parts))
            counts = described.map_batches(
                PackedWorker,
                fn_constructor_args=(packed,),
                batch_size=1,
                batch_format="numpy",
                compute=data.ActorPoolStrategy(size=workers),
                **options,
            )
            try:
                for count in counts.iter_rows():
                    if count["failure"]:
                        raise BatchFailedError(
                            f"a row was refused, and `on_error` is `fail`: {count['failure']}"
                        )
                    written += count["rows"]
                    refused += count["refused"]
            except RayError as error:
                raise BatchFailedError(f"a worker could not go on: {cause_of(str(error))}") from error
        return written, refused


def _identity(job: BatchSpec) -> dict[str, Any]:
    """What decides a job's answers and the cut of its files."""
    other = {"backend_cls", "batch_policy", "cache", "context_bytes", "resources"}
    model = job.spec.model_dump(mode="json", exclude=other)
    return {
        "model": {**model, "backend": job.spec.backend_name},
        "rows_per_file": job.rows_per_file,
        "max_row_bytes": job.source.max_row_bytes,
    }


def _check(filesystem: Any, label: str, identity: Mapping[str, Any], path: str) -> None:
    earlier: Any = None
    try:
        with filesystem.open_input_stream(label) as file:
            earlier = json.loads(file.read())
    except (FileNotFoundError, ValueError):
        log.warning("%s has part files, and does not say of which job", path)
    known = cast("dict[str, Any]", earlier) if isinstance(earlier, dict) else {}
    differing = sorted(name for name in identity if known.get(name) != identity[name])
    if differing:
        raise ValueError(
            f"{path} holds the answers of another job ({', '.join(differing)} differ): give another sink, or "
            "`resume: false` to replace them"
        )


@contextmanager
def _cluster() -> Generator[None]:
    """The cluster that this process is connected to, or one for the time of the job."""
    import ray

    cluster: Any = ray
    if cluster.is_initialized():
        yield
        return
    cluster.init()
    try:
        yield
    finally:
        cluster.shutdown()
