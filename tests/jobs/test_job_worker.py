"""Workers on real queues: they batch, they are killed, the queue goes away, and each job ends once."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sheaf import ModelSpec
from sheaf.observability import METRICS
from sheaf.worker import JobQueue, JobStatus, SheafWorker, open_queue
from sheaf_client.errors import BackendError, InvalidRequestError, MalformedRequestError
from tests.conftest import MakeRequest
from tests.echoes import Echo, Fragile, Gated, Unwritable
from tests.jobs.queues import Queues, RedisServer, until
from tests.observability.readings import scrape

SECONDS = 60.0


def echo(backend: type[Echo] = Echo, *, batch: int = 32, **kwargs: Any) -> ModelSpec:
    return ModelSpec(
        name="echo", backend_cls=backend, backend_kwargs=kwargs, batch_policy={"max_batch_size": batch}
    )


def model_of(worker: SheafWorker) -> Any:
    return worker._models.runtimes["echo"].backend


@contextmanager
def working(queue: JobQueue, spec: ModelSpec | None = None) -> Iterator[SheafWorker]:
    worker = SheafWorker(spec or echo(), queue)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(SECONDS)
        assert not thread.is_alive(), "the worker does not stop"


def test_jobs_are_answered_together(queues: Queues, make_request: MakeRequest) -> None:
    queue = queues()
    with working(queue, echo(Gated, batch=8)) as worker:
        jobs = [queue.enqueue(make_request(float(value))) for value in range(9)]
        assert model_of(worker).entered.wait(SECONDS)
        until(lambda: worker.held == 8)
        model_of(worker).gate.set()
        answers = [queue.wait(job, SECONDS).result() for job in jobs]
    assert [answer.mean for answer in answers] == [[float(value)] * 2 for value in range(9)]
    assert sum(model_of(worker).sizes) == 9
    assert max(model_of(worker).sizes) > 1


def test_each_job_gets_its_own_end(queues: Queues, make_request: MakeRequest) -> None:
    queue = queues(max_attempts=2, backoff=0.05)
    with working(queue, echo(Fragile)):
        queues.write_malformed()
        refused, crashing = queue.enqueue(make_request(13.0)), queue.enqueue(make_request(666.0))
        invalid = queue.enqueue({"model_name": "echo", "horizn": 2})
        good = queue.enqueue(make_request(5.0))
        assert queue.wait(good, SECONDS).result().mean == [5.0, 5.0]
        ends = {job: queue.wait(job, SECONDS) for job in (refused, crashing, invalid)}
        until(lambda: len(queue.dead_letters()) == 2)
        letters = {letter.id: letter for letter in queue.dead_letters()}
    assert (ends[refused].status, ends[refused].attempts) == (JobStatus.FAILED, 1)
    assert (ends[crashing].status, ends[crashing].attempts) == (JobStatus.DEAD, 2)
    assert isinstance(ends[refused].problem, InvalidRequestError)
    assert isinstance(ends[crashing].problem, BackendError)
    assert b"secret" not in (ends[crashing].outcome or b"")
    assert isinstance(ends[invalid].problem, InvalidRequestError)
    assert {fault.path for fault in ends[invalid].problem.errors} >= {"/horizn", "/horizon"}
    del letters[crashing]
    (strange,) = letters.values()
    assert isinstance(strange.problem, MalformedRequestError)


def test_an_answer_that_cannot_be_written_is_its_jobs_alone(
    queues: Queues, make_request: MakeRequest
) -> None:
    queue = queues(max_attempts=2, backoff=0.05)
    with working(queue, echo(Unwritable)):
        refused, lost, good = [queue.enqueue(make_request(value)) for value in (12.0, 13.0, 5.0)]
        assert queue.wait(good, SECONDS).result().mean == [5.0, 5.0]
        end = queue.wait(lost, SECONDS)
        assert (end.status, end.attempts) == (JobStatus.DEAD, 2)
        assert isinstance(end.problem, BackendError)
        assert isinstance(queue.wait(refused, SECONDS).problem, InvalidRequestError)
        later = queue.enqueue(make_request(6.0))
        assert queue.wait(later, SECONDS).result().mean == [6.0, 6.0]


def test_what_is_too_large_for_a_queue_is_refused_and_stops_nobody(
    queues: Queues, make_request: MakeRequest
) -> None:
    queue = queues()
    queue.most_bytes = 1000
    with pytest.raises(ValueError, match="takes 1000 at most"):
        queue.enqueue({"model_name": "echo", "history": [1.0] * 1000})
    with working(queue):
        large = queue.enqueue(make_request(5.0, horizon=1000))
        end = queue.wait(large, SECONDS)
        assert (end.status, end.attempts) == (JobStatus.DEAD, 1)
        assert isinstance(end.problem, BackendError)
        assert "keeps 1000 at most" in end.problem.detail
        good = queue.enqueue(make_request(6.0))
        assert queue.wait(good, SECONDS).result().mean == [6.0, 6.0]


#: A worker whose model never comes to an end; it says so when it has begun.
DOOMED = """
import sys, threading
from sheaf.worker import JobPolicy, SheafWorker, open_queue
from tests.echoes import Gated
from tests.jobs.test_job_worker import echo

class Endless(Gated):
    def batch_predict(self, requests):
        print("begun", flush=True)
        threading.Event().wait()

SheafWorker(echo(Endless), open_queue(sys.argv[1], policy=JobPolicy(lease=1.0))).run()
"""


def test_the_jobs_of_a_killed_worker_are_finished_by_another(
    queues: Queues, make_request: MakeRequest
) -> None:
    queue = queues(lease=1.0)
    job = queue.enqueue(make_request(4.0))
    doomed = subprocess.Popen([sys.executable, "-c", DOOMED, queues.url], stdout=subprocess.PIPE)
    try:
        assert doomed.stdout is not None
        assert doomed.stdout.readline() == b"begun\n"
    finally:
        doomed.kill()
        doomed.communicate()
    assert queue.get(job).status is JobStatus.RUNNING
    with working(queue):
        found = queue.wait(job, SECONDS)
    assert found.result().mean == [4.0, 4.0]
    assert found.attempts == 2


def test_a_job_longer_than_its_lease_stays_with_its_worker(queues: Queues, make_request: MakeRequest) -> None:
    queue, other = queues(lease=0.6), queues(lease=0.6)
    with working(queue, echo(seconds=1.5)) as worker:
        job = queue.enqueue(make_request())
        until(lambda: queue.get(job).status is JobStatus.RUNNING)
        with working(other) as idle:
            found = queue.wait(job, SECONDS)
    assert (found.status, found.attempts) == (JobStatus.COMPLETED, 1)
    assert (model_of(worker).sizes, model_of(idle).sizes) == ([1], [])


def test_two_workers_answer_each_job_once(queues: Queues, make_request: MakeRequest) -> None:
    queue = queues()
    jobs = [queue.enqueue(make_request(float(value))) for value in range(200)]
    with working(queues(), echo(batch=4)) as one, working(queues(), echo(batch=4)) as two:
        found = [queue.wait(job, SECONDS) for job in jobs]
    assert [job.result().mean[0] for job in found] == [float(value) for value in range(200)]
    assert {job.attempts for job in found} == {1}
    assert sum(model_of(one).sizes) + sum(model_of(two).sizes) == 200
    assert queue.depth() == 0


def test_a_worker_that_stops_finishes_what_runs_and_gives_back_the_rest(
    queues: Queues, make_request: MakeRequest
) -> None:
    queue = queues()
    with working(queue, echo(Gated, batch=3)) as worker:
        running = queue.enqueue(make_request(1.0))
        assert model_of(worker).entered.wait(SECONDS)
        waiting = [queue.enqueue(make_request(2.0)) for _ in range(4)]
        until(lambda: worker.held == 3)
        worker.stop()
        until(lambda: queue.depth() == 4)
        model_of(worker).gate.set()
    assert queue.get(running).status is JobStatus.COMPLETED
    assert [(queue.get(job).status, queue.get(job).attempts) for job in waiting] == [
        (JobStatus.QUEUED, 0)
    ] * 4


def test_a_worker_outlives_its_redis(
    redis_server: RedisServer, tmp_path: Path, make_request: MakeRequest
) -> None:
    redis_server.clear()
    queues = Queues(redis_server.url)
    queue = queues(lease=2.0)
    jobs = [queue.enqueue(make_request(float(value))) for value in range(40)]
    with working(queues(lease=2.0), echo(batch=4, seconds=0.1)):
        queue.wait(jobs[0], SECONDS)
        redis_server.kill()
        redis_server.start()
        found = [queue.wait(job, SECONDS) for job in jobs]
    assert [job.result().mean[0] for job in found] == [float(value) for value in range(40)]
    assert queue.depth() == 0
    queues.close()


def test_a_redis_that_lost_everything_gets_its_group_again(
    redis_server: RedisServer, make_request: MakeRequest
) -> None:
    queues = Queues(redis_server.url)
    queue = queues()
    with working(queues()):
        queue.wait(queue.enqueue(make_request()), SECONDS)
        redis_server.clear()
        assert queue.wait(queue.enqueue(make_request(2.0)), SECONDS).result().mean == [2.0, 2.0]
    queues.close()


def test_a_model_that_does_not_load_ends_the_worker_with_its_reason(queues: Queues) -> None:
    from tests.echoes import Broken

    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        SheafWorker(echo(Broken), queues()).run()


@pytest.mark.parametrize("queues", ["sqlite"], indirect=True)
def test_the_command_works_tells_its_metrics_and_ends_when_it_is_told_to(queues: Queues) -> None:
    queue = queues()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "sheaf", "worker", "statsforecast", "--queue", queues.url]
    command += ["--metrics-port", port]
    running = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        request = {"model_name": "statsforecast", "history": [1.0, 2.0] * 12, "horizon": 3, "frequency": "1h"}
        found = queue.wait(queue.enqueue(request), SECONDS)
        assert len(found.result().mean) == 3
        queue.wait(queue.enqueue({**request, "horizon": 0}), SECONDS)
        told = scrape(f"http://127.0.0.1:{port}")
        assert {metric.name.removesuffix("_total") for metric in METRICS} <= told.kinds.keys()
        ended = {"model": "statsforecast", "mode": "predict", "outcome": "ok"}
        assert told.of("sheaf_predictions_total", **ended) == 1
        assert told.of("sheaf_refused_total", model="statsforecast", code="invalid") == 1
        assert told.of("sheaf_model_ready", model="statsforecast") == 1
        running.send_signal(signal.SIGTERM)
        assert running.wait(SECONDS) == 0
    finally:
        running.kill()
        running.communicate()


HANGING = """
import sys, threading
from sheaf import registry
from sheaf.cli import app
from tests.echoes import Echo

class Hanging(Echo):
    def batch_predict(self, requests):
        print("begun", flush=True)
        threading.Event().wait()

registry._registered["hanging"] = Hanging
app(["worker", "hanging", *sys.argv[1:]])
"""


@pytest.mark.parametrize(
    ("drain", "signals", "status"),
    [("0.1", [signal.SIGTERM], 1), ("600", [signal.SIGINT, signal.SIGTERM], -signal.SIGTERM)],
    ids=["by its time", "by a second signal"],
)
def test_the_command_ends_when_it_is_told_to_whatever_hangs(
    tmp_path: Path, drain: str, signals: list[signal.Signals], status: int
) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    command = [sys.executable, "-c", HANGING, "--queue", url, "--drain-timeout", drain]
    with open_queue(url) as queue, subprocess.Popen(command, stdout=subprocess.PIPE) as running:
        try:
            queue.enqueue({"model_name": "hanging", "history": [1.0, 2.0], "horizon": 1, "frequency": "1h"})
            assert running.stdout is not None
            assert running.stdout.readline() == b"begun\n"
            for number in signals:
                running.send_signal(number)
            assert running.wait(SECONDS) == status
        finally:
            running.kill()


def test_the_page_about_jobs_says_what_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs/jobs.md").read_text(encoding="utf-8")
    (sample,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    queue = open_queue("sqlite:///jobs.db")
    worker = SheafWorker("statsforecast", queue)
    thread = threading.Thread(target=worker.run)
    thread.start()
    names: dict[str, Any] = {}
    try:
        exec(compile(sample, "jobs.md", "exec"), names)  # noqa: S102 - our own page
    finally:
        worker.stop()
        thread.join(SECONDS)
    assert names["queue"].get(names["job"]).status is JobStatus.COMPLETED
    names["queue"].close()
    queue.close()
