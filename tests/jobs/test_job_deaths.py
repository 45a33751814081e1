"""A job that kills its worker takes no other along: what a lost worker held is run alone the next time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from sheaf.api.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf.worker import JobQueue, JobStatus
from sheaf_client.errors import InternalServerError
from tests.conftest import MakeRequest
from tests.echoes import Echo
from tests.jobs.queues import Queues, until
from tests.jobs.test_job_queues import BAD, GOOD, take, take_one
from tests.jobs.test_job_worker import echo, working

DEADLY = 99.0


class Deadly(Echo):
    """Ends its process where a batch has the deadly value in it."""

    def batch_predict(self, requests: Sequence[TimeSeriesRequest]) -> list[TimeSeriesResponse | Exception]:
        if any(DEADLY in (request.history or ()) for request in requests):
            os._exit(7)
        return super().batch_predict(requests)


WORKER = """
import sys
from sheaf.worker import JobPolicy, SheafWorker, open_queue
from tests.jobs.test_job_deaths import Deadly
from tests.jobs.test_job_worker import echo

SheafWorker(echo(Deadly, batch=16), open_queue(sys.argv[1], policy=JobPolicy(lease=1.0))).run()
"""


def supervise(url: str, queue: JobQueue, jobs: Sequence[str]) -> int:
    """Start a worker again whenever it dies, until all jobs have ended; how often it died."""
    waiting, deaths = list(jobs), 0

    def over() -> bool:
        waiting[:] = [job for job in waiting if not queue.get(job).status.final]
        return not waiting

    while not over():
        worker = subprocess.Popen([sys.executable, "-c", WORKER, url])
        try:
            until(lambda: worker.poll() is not None or over(), 120)  # noqa: B023 - called in this round alone
            deaths += worker.poll() == 7
        finally:
            worker.kill()
            worker.wait()
    return deaths


def test_a_job_that_kills_its_worker_dies_alone(queues: Queues, make_request: MakeRequest) -> None:
    queue = queues()
    jobs = [queue.enqueue(make_request(float(value))) for value in range(20)]
    killer = queue.enqueue(make_request(DEADLY))
    jobs += [queue.enqueue(make_request(float(value))) for value in range(20, 40)]
    assert supervise(queues.url, queue, [*jobs, killer]) == 3
    assert [queue.get(job).result().mean[0] for job in jobs] == [float(value) for value in range(40)]
    dead = queue.get(killer)
    assert (dead.status, dead.attempts) == (JobStatus.DEAD, 3)
    assert isinstance(dead.problem, InternalServerError)
    assert [letter.id for letter in queue.dead_letters()] == [killer]


def test_what_a_lost_worker_held_comes_by_itself_and_first(queues: Queues, make_request: MakeRequest) -> None:
    queue = queues(lease=2.0)
    held = {queue.enqueue(make_request()) for _ in range(3)}
    assert len(take(queue, 3)) == 3
    (first,) = take(queue, 8)
    fresh = queue.enqueue(make_request())
    assert queue.lease({"echo": 8}, 10, holding=True) == [], "it shall end what it holds"
    alone = [first, *take(queue, 8), *take(queue, 8)]
    assert {lease.id for lease in alone} == held
    assert all(lease.alone and lease.attempt == 2 for lease in alone)
    (last,) = queue.lease({"echo": 8}, 10, holding=True)
    assert (last.id, last.alone, last.attempt) == (fresh, False, 1)
    assert all(queue.finish(lease, JobStatus.COMPLETED, GOOD) for lease in alone)


def test_a_lost_job_that_fails_alone_is_one_of_the_others_again(
    queues: Queues, make_request: MakeRequest
) -> None:
    queue = queues(lease=0.1, backoff=0.01, max_backoff=0.01)
    queue.enqueue(make_request())
    take_one(queue)
    second = take_one(queue)
    assert second.alone
    assert queue.retry(second, BAD)
    third = take_one(queue)
    assert (third.attempt, third.alone) == (3, False)


def test_a_lost_job_is_run_by_a_busy_worker_once_it_holds_no_other(
    queues: Queues, make_request: MakeRequest
) -> None:
    gone = queues(lease=0.3)
    job = gone.enqueue(make_request(DEADLY))
    take_one(gone)
    with working(queues(lease=0.3), echo(batch=4, seconds=0.05)) as worker:
        others = [gone.enqueue(make_request(float(value))) for value in range(60)]
        assert gone.wait(job, 60).attempts == 2
        for other in others:
            gone.wait(other, 60)
        batches = worker._models.runtimes["echo"].backend.batches
    (shared,) = (batch for batch in batches if any(DEADLY in (request.history or ()) for request in batch))
    assert len(shared) == 1
    assert sum(map(len, batches)) == 61
