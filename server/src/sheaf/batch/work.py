"""What one process of a batch job does: hold a model, and turn parts of the input into files of answers."""

from __future__ import annotations

import io
import logging
import posixpath
import time
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid4, uuid5

from sheaf.batch.attempts import PART_ATTEMPTS, Attempts
from sheaf.batch.files import CHUNK, UNFINISHED, Part, check, read, resolve
from sheaf.batch.spec import BatchSpec
from sheaf.carried import unpack
from sheaf.contract.decoding import decode_line
from sheaf.contract.outcomes import outcome_members
from sheaf.local import LocalModels
from sheaf.observability import Telemetry, configure_logging, start_tracing
from sheaf.observability.ray_export import export_to_ray
from sheaf_client.contracts.base import BaseRequest, BaseResponse
from sheaf_client.errors import InternalServerError, ProblemError, RequestTooLargeError, UnavailableError

log = logging.getLogger("sheaf.batch")

#: Seconds that a model may take to be loaded anew.
PATIENCE = 300.0


@dataclass(frozen=True)
class _Row:
    """A row whose answer is on its way, or whose refusal is known."""

    index: int
    request_id: UUID
    answer: Future[Any] | Exception


class PartWorker:
    """A loaded model that answers parts, one after another; Ray Data keeps a pool of them."""

    def __init__(self, job: BatchSpec) -> None:
        import ray

        configure_logging()
        start_tracing()
        self._job = job
        self._telemetry = Telemetry()
        cluster: Any = ray  # annotated only in part
        loading: AbstractContextManager[None] = nullcontext()
        if cluster.is_initialized():
            # Ray keeps the name of a process that it starts again.
            loading = self._loading(cluster.get_runtime_context().get_actor_id())
        with loading:
            self._models = LocalModels.start(job.spec, self._telemetry)
        self._runtime = self._models.get(job.spec.name)
        if cluster.is_initialized():
            export_to_ray(self._telemetry)

    @contextmanager
    def _loading(self, name: str) -> Generator[None]:
        """Count how often this process was lost while it loaded its model; raises where it was too often."""
        attempts = Attempts(*resolve(self._job.sink.path), f"load-{name}")
        if attempts.lost:
            raise RuntimeError(f"the process was lost {PART_ATTEMPTS} times while it loaded the model")
        try:
            yield
        except Exception:
            attempts.take_back()
            raise
        attempts.forget()

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Answer the parts that a batch of rows describes; give back one row of counts for each."""
        columns = {name: column.tolist() for name, column in batch.items()}
        described = (
            dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
        )
        counts = [self.answer(Part(**part)) for part in described]
        return {name: [count[name] for count in counts] for name in ("rows", "refused", "failure")}

    def answer(self, part: Part) -> dict[str, Any]:
        """Write a part's file, which is not to be seen before it is whole.

        Returns the `rows` that were written and how many were `refused`; with `on_error="fail"` the line of
        the first that was is the `failure`, and there is no file. Raises `SourceChangedError`.
        """
        filesystem, folder = resolve(self._job.sink.path)
        attempts = Attempts(filesystem, folder, part.name)
        if attempts.lost:
            log.warning("%s was lost %d times: its rows are run alone", part.name, attempts.begun - 1)
        try:
            counts = self._write(part, attempts, filesystem, folder)
        except Exception:
            attempts.take_back()
            raise
        attempts.forget()
        return counts

    def _write(self, part: Part, attempts: Attempts, filesystem: Any, folder: str) -> dict[str, Any]:
        unfinished = posixpath.join(folder, f"{UNFINISHED}{part.name}-{uuid4().hex}")
        rows, refused, failure = 0, 0, b""
        with filesystem.open_output_stream(unfinished, compression=None) as file:
            out = io.BufferedWriter(file, CHUNK)
            for row in self._answered_alone(part, attempts) if attempts.lost else self._answered(part):
                answered, members = _members(row)
                line = _line(row, members)
                rows += 1
                if not answered:
                    refused += 1
                    if self._job.on_error == "fail":
                        failure = line
                        break
                out.write(line)
            out.flush()
            out.detach()
        if failure:
            filesystem.delete_file(unfinished)
            check(part, self._job.source.max_row_bytes)  # or it may not be the row that was meant
        else:
            filesystem.move(unfinished, posixpath.join(folder, part.name))
        return {"rows": rows, "refused": refused, "failure": failure.decode()}

    def _answered(self, part: Part) -> Iterator[_Row]:
        """The part's rows in order; while one is awaited, those after it are in the engine already."""
        begun: deque[_Row] = deque()
        try:
            for index, content in read(part, self._job.source.max_row_bytes):
                begun.append(self._begin(index, content))
                if len(begun) >= self._job.window:
                    yield begun.popleft()
            while begun:
                yield begun.popleft()
        finally:
            for row in begun:
                if isinstance(row.answer, Future):
                    row.answer.cancel()

    def _answered_alone(self, part: Part, attempts: Attempts) -> Iterator[_Row]:
        """The part's rows in order, each begun when the one before it has ended."""
        for index, content in read(part, self._job.source.max_row_bytes):
            if attempts.lost_row(index):
                yield self._begin(index, content, lost=True)
            else:
                attempts.begin_row(index)
                yield self._begin(index, content)

    def _begin(self, index: int, content: bytes | None, *, lost: bool = False) -> _Row:
        """Put a row in line, unless it cannot be read or was `lost` too often."""
        # The same row gets the same identifier in every run, so that a run again writes the same lines.
        made_up = uuid5(NAMESPACE_OID, f"{index}:{(content or b'').decode('utf-8', 'replace')}")
        if content is None:
            limit = self._job.source.max_row_bytes
            too_large = RequestTooLargeError(f"The row is longer than {limit} bytes.")
            return self._refused(index, made_up, too_large)
        try:
            request = decode_line(content, self._job.spec.model_type, self._job.spec.name, made_up)
        except ProblemError as error:
            return self._refused(index, UUID(error.request_id) if error.request_id else made_up, error)
        if lost:
            killer = InternalServerError("Each process that ran this row was lost.")
            return self._refused(index, request.request_id, killer)
        return _Row(index, request.request_id, self._submit(request))

    def _refused(self, index: int, request_id: UUID, error: ProblemError) -> _Row:
        self._telemetry.refused(self._job.spec.name, error.code)
        return _Row(index, request_id, error)

    def _submit(self, request: BaseRequest) -> Future[Any] | Exception:
        """Put a request in line; waits for a model that is being loaded anew, which is no fault of a row.

        Raises `UnavailableError` where that takes too long: the job ends, and may go on later.
        """
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return self._runtime.submit(request)
            except UnavailableError as error:
                if time.monotonic() >= end:
                    raise
                time.sleep(min(1.0, error.retry_after or 0.1))
            except ProblemError as error:
                return error
            except Exception as error:
                log.exception("request %s could not be put in line", request.request_id)
                return error


class PackedWorker(PartWorker):
    """The same of a job that was packed: its backend may be one that only the job's program knows."""

    def __init__(self, job: bytes) -> None:
        super().__init__(unpack(job))


def _members(row: _Row) -> tuple[bool, bytes]:
    """Whether a row has an answer, and that or its problem as members of its line."""
    error = row.answer
    if isinstance(error, Future):
        try:
            response: BaseResponse = error.result()
            return True, outcome_members(response)  # or it cannot be written
        except Exception as raised:  # noqa: BLE001 - whatever befell this row, the others go on
            error = raised
    if isinstance(error, ProblemError):
        error.request_id = str(row.request_id)
    return False, outcome_members(error)


def _line(row: _Row, members: bytes) -> bytes:
    head = f'{{"index":{row.index},"request_id":"{row.request_id}",'
    return b"".join((head.encode(), members, b"}\n"))
