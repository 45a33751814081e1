"""What a queue promises, of SQLite and of Redis alike: leases, attempts, late words, dead letters."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from sheaf.api.time_series import TimeSeriesRequest
from sheaf.worker import (
    Ended,
    IdempotencyKeyReusedError,
    JobNotFoundError,
    JobPolicy,
    JobQueue,
    JobStatus,
    Lease,
    open_queue,
)
from sheaf.worker.queue import outcome_of
from sheaf_client.errors import (
    BackendError,
    DeadlineExceededError,
    InternalServerError,
    MalformedRequestError,
)
from tests.conftest import MakeRequest
from tests.jobs.queues import Queues, RedisServer, until

GOOD = b'{"response":{}}'
BAD = outcome_of(BackendError("It failed."))


def take(queue: JobQueue, count: int = 1, wait: float = 10.0) -> list[Lease]:
    return queue.lease({"echo": count}, wait)


def take_one(queue: JobQueue) -> Lease:
    (lease,) = take(queue)
    return lease


def test_a_job_carries_its_request_and_keeps_its_outcome(queues: Queues, make_request: MakeRequest) -> None:
    queue = queues()
    request = make_request(3.0)
    job = queue.enqueue(request)
    assert queue.get(job).status is JobStatus.QUEUED
    lease = take_one(queue)
    assert TimeSeriesRequest.model_validate_json(lease.body) == request
    assert (lease.id, lease.attempt, queue.get(job).status) == (job, 1, JobStatus.RUNNING)
    assert queue.finish(lease, JobStatus.FAILED, BAD)
    found = queue.get(job)
    assert (found.status, found.attempts) == (JobStatus.FAILED, 1)
    with pytest.raises(BackendError, match="It failed"):
        found.result()
    with pytest.raises(JobNotFoundError):
        queue.get("no such job")


def test_depth_counts_the_jobs_that_wait(queues: Queues, make_request: MakeRequest) -> None:
    queue = queues(backoff=60)
    for _ in range(4):
        queue.enqueue(make_request())
    queue.enqueue(make_request(model_name="other"))
    assert (queue.depth(), queue.depth("echo")) == (5, 4)
    running, finished, failing = take(queue, 3)
    queue.finish(finished, JobStatus.COMPLETED, GOOD)
    assert queue.depth("echo") == 1
    queue.retry(failing, BAD)
    assert queue.depth("echo") == 2, "a job in its pause waits too"
    queue.give_back(running)
    assert queue.depth("echo") == 3


def test_workers_get_jobs_of_their_own_models_alone(queues: Queues, make_request: MakeRequest) -> None:
    queue = queues()
    queue.enqueue(make_request(model_name="other"))
    assert take(queue, wait=0.1) == []
    assert len(queue.lease({"other": 1, "echo": 1}, 10)) == 1


def test_a_key_makes_one_job_of_two_calls(queues: Queues, make_request: MakeRequest) -> None:
    queue = queues()
    one = queue.enqueue(make_request(), idempotency_key="order-1")
    assert queue.enqueue(make_request(), idempotency_key="order-1") == one
    assert queue.enqueue(make_request(), idempotency_key="order-2") != one
    assert queue.depth() == 2
    queue.finish(take_one(queue), JobStatus.COMPLETED, GOOD)
    assert queue.enqueue(make_request(), idempotency_key="order-1") == one, "finished, and still known"


def test_a_key_names_one_request(queues: Queues, make_request: MakeRequest) -> None:
    queue = queues()
    job = queue.enqueue(make_request(1.0), idempotency_key="k")
    same = make_request(1.0).model_dump(mode="json")
    assert queue.enqueue(dict(reversed(same.items())), idempotency_key="k") == job, "in any order"
    for other in (make_request(2.0), make_request(1.0, model_name="other"), {"model_name": "echo"}):
        with pytest.raises(IdempotencyKeyReusedError, match=f"'k' is that of job {job}"):
            queue.enqueue(other, idempotency_key="k")
    assert queue.depth() == 1
    queue.finish(take_one(queue), JobStatus.COMPLETED, GOOD)
    with pytest.raises(ValueError, match="another request"):
        queue.enqueue(make_request(2.0), idempotency_key="k")


def test_several_jobs_are_finished_in_one_step(queues: Queues, make_request: MakeRequest) -> None:
    queue = queues(lease=0.3)
    jobs = [queue.enqueue(make_request()) for _ in range(4)]
    leases = take(queue, 4)
    (taken,) = take(queues(lease=0.3), 4)
    ended = [Ended(lease, JobStatus.COMPLETED, GOOD) for lease in leases]
    assert queue.finish_all(ended) == [lease.id != taken.id for lease in leases]
    assert queue.finish_all(ended) == [lease.id != taken.id for lease in leases], "said again"
    assert [queue.get(job).status for job in jobs if job != taken.id] == [JobStatus.COMPLETED] * 3
    assert queue.get(taken.id).status is JobStatus.RUNNING


def test_a_lost_acknowledgement_changes_nothing_when_it_is_said_again(
    queues: Queues, make_request: MakeRequest
) -> None:
    queue = queues()
    job = queue.enqueue(make_request())
    lease = take_one(queue)
    assert queue.finish(lease, JobStatus.COMPLETED, GOOD)
    assert queue.finish(lease, JobStatus.COMPLETED, GOOD), "said again: it holds"
    assert not queue.finish(lease, JobStatus.FAILED, BAD)
    assert not queue.retry(lease, BAD)
    assert not queue.give_back(lease)
    assert queue.extend([lease]) == [False]
    assert (queue.get(job).status, queue.get(job).outcome) == (JobStatus.COMPLETED, GOOD)
    assert queue.depth() == 0
    assert take(queue, wait=0.1) == []


def test_a_silent_worker_loses_its_job_and_its_word(queues: Queues, make_request: MakeRequest) -> None:
    silent, other = queues(lease=0.2), queues(lease=0.2)
    job = silent.enqueue(make_request())
    old = take_one(silent)
    new = take_one(other)
    assert (new.id, new.attempt) == (job, 2)
    assert not silent.finish(old, JobStatus.FAILED, BAD)
    assert silent.extend([old]) == [False]
    assert not silent.retry(old, BAD)
    assert other.finish(new, JobStatus.COMPLETED, GOOD)
    assert not silent.finish(old, JobStatus.FAILED, BAD)
    assert other.get(job).status is JobStatus.COMPLETED


def test_a_worker_that_was_late_but_not_replaced_may_finish(
    queues: Queues, make_request: MakeRequest
) -> None:
    queue = queues(lease=0.05)
    job = queue.enqueue(make_request())
    lease = take_one(queue)
    time.sleep(0.1)
    assert queue.finish(lease, JobStatus.COMPLETED, GOOD)
    assert queue.get(job).status is JobStatus.COMPLETED


def test_signs_of_life_keep_a_job(queues: Queues, make_request: MakeRequest) -> None:
    queue, other = queues(lease=1.0), queues(lease=1.0)
    queue.enqueue(make_request())
    lease = take_one(queue)
    for _ in range(8):
        assert take(other, wait=0.2) == []
        assert queue.extend([lease]) == [True]


@pytest.mark.parametrize("attempts", [1, 3])
def test_lost_workers_use_up_exactly_the_attempts(
    queues: Queues, make_request: MakeRequest, attempts: int
) -> None:
    queue = queues(lease=0.05, max_attempts=attempts)
    job = queue.enqueue(make_request())
    assert [take_one(queue).attempt for _ in range(attempts)] == list(range(1, attempts + 1))
    assert take(queue, wait=0.6) == []
    found = queue.get(job)
    assert (found.status, found.attempts) == (JobStatus.DEAD, attempts)
    assert isinstance(found.problem, InternalServerError)
    assert [letter.id for letter in queue.dead_letters()] == [job]


def test_a_failed_attempt_comes_back_until_the_last(queues: Queues, make_request: MakeRequest) -> None:
    queue = queues(max_attempts=3, backoff=0.05)
    job = queue.enqueue(make_request())
    for attempt in (1, 2, 3):
        lease = take_one(queue)
        assert lease.attempt == attempt
        assert queue.retry(lease, BAD)
        found = queue.get(job)
        assert found.status is (JobStatus.QUEUED if attempt < 3 else JobStatus.DEAD)
        assert isinstance(found.problem, BackendError), "what went wrong is to be seen"
    assert (found.attempts, queue.depth()) == (3, 0)
    queue.requeue(job)
    assert queue.dead_letters() == []
    assert take_one(queue).attempt == 1
    with pytest.raises(JobNotFoundError):
        queue.requeue(job)


def test_a_pause_is_waited_out(queues: Queues, make_request: MakeRequest) -> None:
    queue = queues(backoff=60)
    queue.enqueue(make_request())
    queue.retry(take_one(queue), BAD)
    assert take(queue, wait=0.2) == []


def test_a_job_given_back_has_lost_no_attempt(queues: Queues, make_request: MakeRequest) -> None:
    queue = queues(max_attempts=1)
    queue.enqueue(make_request())
    first = take_one(queue)
    assert queue.give_back(first)
    second = take_one(queue)
    assert second.attempt == 1
    assert not queue.finish(first, JobStatus.COMPLETED, GOOD), "the same attempt, another lease"
    assert queue.finish(second, JobStatus.COMPLETED, GOOD)


def test_a_job_past_its_deadline_is_not_begun(queues: Queues, make_request: MakeRequest) -> None:
    queue = queues()
    late = queue.enqueue(make_request(), timeout=0.05)
    soon = queue.enqueue(make_request(), timeout=60)
    time.sleep(0.1)
    lease = take_one(queue)
    assert lease.id == soon
    assert lease.remaining is not None
    assert 0 < lease.remaining <= 60
    assert queue.get(late).status is JobStatus.FAILED
    assert isinstance(queue.get(late).problem, DeadlineExceededError)


def test_many_takers_never_share_a_job(queues: Queues, make_request: MakeRequest) -> None:
    queue = queues()
    jobs = [queue.enqueue(make_request()) for _ in range(60)]
    taken: list[str] = []

    def work(mine: JobQueue) -> None:
        while leases := take(mine, 4, wait=0.3):
            taken.extend(lease.id for lease in leases)

    threads = [threading.Thread(target=work, args=(queues(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(taken) == sorted(jobs)


def test_outcomes_are_kept_for_their_time(queues: Queues, make_request: MakeRequest) -> None:
    queue = queues(keep=0.2, keep_dead=60, max_attempts=1)
    done, dead = queue.enqueue(make_request(), idempotency_key="k"), queue.enqueue(make_request())
    for lease in take(queue, 2):
        if lease.id == done:
            queue.finish(lease, JobStatus.COMPLETED, GOOD)
        else:
            queue.retry(lease, BAD)
    time.sleep(0.3)
    take(queue, wait=0)
    fresh = queue.enqueue(make_request(), idempotency_key="k")
    assert fresh != done
    with pytest.raises(JobNotFoundError):
        queue.get(done)
    assert queue.get(dead).status is JobStatus.DEAD


def test_what_cannot_be_a_job_is_refused(queues: Queues, make_request: MakeRequest) -> None:
    queue = queues()
    with pytest.raises(ValueError, match="model_name"):
        queue.enqueue({"history": [1.0]})
    with pytest.raises(ValueError, match="timeout"):
        queue.enqueue(make_request(), timeout=0)
    keys: list[Any] = ["", "k" * 1025, "\ud800", b"k", 7]
    for key in keys:
        with pytest.raises(ValueError, match=r"idempotency_key|surrogates"):
            queue.enqueue(make_request(), idempotency_key=key)
    assert queue.depth() == 0
    kept = [queue.enqueue(make_request(), idempotency_key=key) for key in ("k" * 1024, "a\0b", "a", "\u202e")]
    assert len({*kept}) == 4


def test_redis_holds_nothing_of_finished_jobs_but_their_outcomes(
    redis_server: RedisServer, make_request: MakeRequest
) -> None:
    import redis

    redis_server.clear()
    client: Any = redis.Redis(port=redis_server.port)
    with open_queue(redis_server.url) as queue:
        jobs = [queue.enqueue(make_request()) for _ in range(5)]
        for lease in take(queue, 5):
            queue.finish(lease, JobStatus.COMPLETED, GOOD)
        assert client.xlen("sheaf:jobs:echo") == 0
        assert client.xpending("sheaf:jobs:echo", "workers")["pending"] == 0
        assert all(0 < client.pttl(f"sheaf:job:{job}") <= 86_400_000 for job in jobs)
        assert not any(client.hexists(f"sheaf:job:{job}", "body") for job in jobs)
    assert client.xinfo_consumers("sheaf:jobs:echo", "workers") == [], "a closed queue leaves its group"


def test_a_hash_of_redis_that_nobody_can_read_stops_nobody(
    redis_server: RedisServer, make_request: MakeRequest
) -> None:
    import redis

    redis_server.clear()
    client: Any = redis.Redis(port=redis_server.port)
    with open_queue(redis_server.url) as queue:
        jobs = [queue.enqueue(make_request()) for _ in range(6)]
        keys = [f"sheaf:job:{job}" for job in jobs]
        client.hset(keys[0], "attempts", "many")
        client.hset(keys[1], "expires", "soon")
        client.hdel(keys[2], "attempts")
        client.set(keys[3], "no hash")
        client.zadd("sheaf:later:echo", {jobs[3]: 0})
        leases = take(queue, 6)
        assert [lease.id for lease in leases] == jobs[4:]
        assert all(queue.finish(lease, JobStatus.COMPLETED, GOOD) for lease in leases)
        letters = queue.dead_letters()
        assert {letter.id for letter in letters} == {*jobs[:3]}
        assert {type(letter.problem) for letter in letters} == {MalformedRequestError}
        assert client.xlen("sheaf:jobs:echo") == 0


def test_redis_lets_lost_consumers_go_that_hold_nothing(
    redis_server: RedisServer, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    import redis

    from sheaf.worker import redis_streams

    def consumers() -> int:
        return len(client.xinfo_consumers("sheaf:jobs:echo", "workers"))

    monkeypatch.setattr(redis_streams, "_LEAVE", 0.2)
    redis_server.clear()
    client: Any = redis.Redis(port=redis_server.port)
    queues = Queues(redis_server.url)
    kept = queues()
    jobs = [kept.enqueue(make_request()) for _ in range(2)]
    held = take_one(kept)
    for _ in range(5):  # each is a consumer that nobody hears of again
        take(queues(), wait=0)
    assert consumers() >= 2
    other = queues(lease=0.2)
    until(lambda: take(other, wait=0) is not None and consumers() <= 2)
    assert kept.finish(held, JobStatus.COMPLETED, GOOD), "who holds a job stays"
    assert kept.enqueue(make_request()) not in jobs
    queues.close()


@pytest.mark.parametrize("url", ["jobs.db", "sqlite://", "amqp://here", ""])
def test_a_url_that_is_no_queue_is_told(url: str) -> None:
    with pytest.raises(ValueError, match="is no queue"):
        open_queue(url)


def test_policies_are_checked() -> None:
    with pytest.raises(ValueError, match="max_attempts"):
        JobPolicy(max_attempts=0)
    with pytest.raises(ValueError, match="lease"):
        JobPolicy(lease=0)
