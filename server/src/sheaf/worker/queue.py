"""What a job queue does: at least once, each job is leased to a worker, and its outcome is kept for a while.

    queued ──lease──▶ running ──finish──▶ completed (a response) · failed (a refusal)
      ▲                │   ▲ │
      └─────retry──────┘   └─┴──lapse: leased again, alone ──attempts used up──▶ dead

A job whose worker was lost may be what killed it. So it runs alone the next time: it is leased by itself,
to a worker that holds nothing else, and takes no other job along.

Every lease has a token of its own. Whatever a worker says of a job counts only while its token is the
job's: a late word, or one said twice because its reply was lost, changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self
from uuid import uuid4

import pydantic_core

from sheaf.contract.outcomes import outcome_members, read_response
from sheaf_client.contracts.base import BaseRequest, BaseResponse
from sheaf_client.contracts.problem import Problem
from sheaf_client.errors import (
    DeadlineExceededError,
    InternalServerError,
    MalformedRequestError,
    ProblemError,
    SheafError,
)

#: Most characters of an idempotency key, which is kept with its job and looked for with each other key.
_LONGEST_KEY = 1024


class QueueUnavailableError(SheafError):
    """The queue cannot be reached now; the call may be repeated."""


class QueueBrokenError(SheafError):
    """What should be the queue is none or is damaged; to repeat the call does not help."""


class IdempotencyKeyReusedError(SheafError, ValueError):
    """An idempotency key names a job already, and the request is not that job's."""


class JobNotFoundError(SheafError, LookupError):
    """No job has this identifier, or its result has expired."""


class JobStatus(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    DEAD = "dead"

    @property
    def final(self) -> bool:
        """Whether nothing more will happen to the job."""
        return self not in (JobStatus.QUEUED, JobStatus.RUNNING)


@dataclass(frozen=True)
class JobPolicy:
    """How a queue treats its jobs; times in seconds.

    Attributes:
        lease: how long a worker keeps a job without a sign of life; workers send one three times as often.
        max_attempts: how often a job is begun before it is a dead letter.
        backoff: pause after a first failed attempt; it doubles with each, with jitter.
        max_backoff: longest such pause.
        keep: how long outcomes are kept.
        keep_dead: how long dead letters are kept.
    """

    lease: float = 30.0
    max_attempts: int = 3
    backoff: float = 1.0
    max_backoff: float = 60.0
    keep: float = 86400.0
    keep_dead: float = 7 * 86400.0

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError("max_attempts must be 1 or more")
        if self.lease <= 0:
            raise ValueError("lease must be more than 0 seconds")

    def pause(self, attempt: int) -> float:
        """Seconds to wait after a failed attempt, the first being 1."""
        longest = min(self.max_backoff, self.backoff * 2.0 ** min(attempt - 1, 30))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, guards nothing


@dataclass(frozen=True)
class Lease:
    """A job in a worker's hands.

    Attributes:
        id: the job.
        model: name of the model that shall answer.
        body: the request as JSON.
        attempt: which attempt this is, from 1.
        token: what proves that the job is still this worker's.
        remaining: seconds until the job's deadline, or None.
        alone: whether its last worker was lost, so that it shall run with no other job beside it.
        entry: where the queue itself holds the job.
    """

    id: str
    model: str
    body: bytes
    attempt: int
    token: str
    remaining: float | None = None
    alone: bool = False
    entry: str = ""


@dataclass(frozen=True)
class Ended:
    """What became of a leased job; `status` is a final one."""

    lease: Lease
    status: JobStatus
    outcome: bytes


@dataclass(frozen=True)
class Job:
    """A job as its owner sees it; `created` and `finished` in seconds since the epoch."""

    id: str
    model: str
    status: JobStatus
    attempts: int
    created: float
    finished: float | None = None
    outcome: bytes | None = None

    @property
    def response(self) -> Any:
        """The typed response of a completed job, else None."""
        value = self._members().get("response")
        return None if value is None else read_response(value)

    @property
    def problem(self) -> ProblemError | None:
        """Why the job failed or is dead; of a job that is tried again, what went wrong the last time."""
        value = self._members().get("problem")
        return None if value is None else ProblemError.from_problem(Problem.model_validate(value))

    def result(self) -> Any:
        """The response; raises the problem of a job that has none, `ValueError` while it is unfinished."""
        if not self.status.final:
            raise ValueError(f"job {self.id} is {self.status}")
        if self.status is JobStatus.COMPLETED:
            return self.response
        raise self.problem or InternalServerError("The job has no outcome.")

    def _members(self) -> dict[str, Any]:
        return pydantic_core.from_json(self.outcome) if self.outcome else {}


class JobQueue(ABC):
    """A queue of requests. All methods may be called from any thread, and raise `QueueUnavailableError`."""

    #: Most bytes of a request and of an outcome: beyond what Redis takes, it hangs up like one that is away.
    most_bytes = 512 * 2**20

    def __init__(self, policy: JobPolicy | None) -> None:
        self.policy = policy or JobPolicy()

    def enqueue(
        self,
        request: BaseRequest | Mapping[str, Any],
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> str:
        """Put a request in line for the model it names; the identifier of the job.

        Args:
            request: A contract, or its members as JSON has them; the worker checks those.
            idempotency_key: Text of 1 to 1024 characters. A second call with the same key, while the first
                job is known, gives that job. The key belongs to this queue. Requests are compared without
                their `request_id`.
            timeout: Seconds within which the answer must be there; after them the job has failed.

        Raises:
            IdempotencyKeyReusedError: The key's job, which is still known, has another request.
            ValueError: The request names no model or is too large, or the key is none.
        """
        if idempotency_key is not None:
            _check_key(idempotency_key)
        job = str(uuid4())
        if isinstance(request, BaseRequest):
            model, body = request.model_name, request.model_dump_json().encode()
        else:
            named = request.get("model_name")
            if not isinstance(named, str) or not named:
                raise ValueError("the request names no model: give `model_name`")
            model, body = named, pydantic_core.to_json({"request_id": job, **request}, bytes_mode="base64")
        if len(body) > self.most_bytes:
            raise ValueError(f"the request has {len(body)} bytes; a queue takes {self.most_bytes} at most")
        if timeout is not None and not timeout > 0:
            raise ValueError("timeout must be more than 0 seconds")
        if idempotency_key is None:
            return self._add(job, model, body, None, b"", timeout)
        digest = _digest(model, body)
        return self._add(job, model, body, idempotency_key, digest, timeout)

    def wait(self, job: str, timeout: float | None = None) -> Job:
        """The job once it is finished; raises `TimeoutError` when that takes longer than `timeout`."""
        end = None if timeout is None else time.monotonic() + timeout
        pause = 0.01
        while not (found := self.get(job)).status.final:
            if end is not None and time.monotonic() >= end:
                raise TimeoutError(f"job {job} is {found.status} after {timeout} s")
            time.sleep(pause)
            pause = min(0.5, 1.5 * pause)
        return found

    @abstractmethod
    def get(self, job: str) -> Job:
        """The job as it stands; raises `JobNotFoundError`."""

    @abstractmethod
    def depth(self, model: str | None = None) -> int:
        """Jobs that wait, for one model or for all; those that run or are finished do not count."""

    @abstractmethod
    def dead_letters(self, limit: int = 100) -> Sequence[Job]:
        """Jobs whose attempts are used up or that cannot be read, newest first."""

    @abstractmethod
    def requeue(self, job: str) -> None:
        """Put a dead job in line again with all its attempts; raises `JobNotFoundError` if it is not dead."""

    @abstractmethod
    def lease(self, wanted: Mapping[str, int], wait: float, *, holding: bool = False) -> list[Lease]:
        """Take jobs, at most so many per model, waiting up to `wait` seconds for the first.

        A job whose worker has been silent for longer than a lease goes first, and comes by itself, until its
        attempts are used up. While one is there, a worker that is `holding` other jobs gets none at all, and
        at once: it shall end those, then ask again.
        """

    @abstractmethod
    def extend(self, leases: Sequence[Lease]) -> list[bool]:
        """Give a sign of life; for each lease whether it still holds."""

    def finish(self, lease: Lease, status: JobStatus, outcome: bytes) -> bool:
        """Keep the outcome of a job; False, and nothing changes, where the lease holds no more.

        Said again after a lost reply it is True again.
        """
        return self.finish_all([Ended(lease, status, outcome)])[0]

    @abstractmethod
    def finish_all(self, ended: Sequence[Ended]) -> list[bool]:
        """`finish` for several jobs in one step."""

    @abstractmethod
    def retry(self, lease: Lease, outcome: bytes) -> bool:
        """Put a job back after a failed attempt and a pause, or among the dead after the last one."""

    @abstractmethod
    def give_back(self, lease: Lease) -> bool:
        """Put a job back that was not begun: it counts as no attempt."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the connection."""

    @abstractmethod
    def _add(
        self, job: str, model: str, body: bytes, key: str | None, digest: bytes, timeout: float | None
    ) -> str: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check_key(key: Any) -> None:
    if not isinstance(key, str) or not 1 <= len(key) <= _LONGEST_KEY:
        raise ValueError(f"idempotency_key must be text of 1 to {_LONGEST_KEY} characters")
    key.encode()  # raises a `ValueError` too


def _digest(model: str, body: bytes) -> bytes:
    """What tells two requests apart; two of the same content may have different identifiers."""
    members = pydantic_core.from_json(body)
    del members["request_id"]
    content = json.dumps([model, members], sort_keys=True).encode()
    return hashlib.blake2b(content, digest_size=16).hexdigest().encode()


def key_reused(key: str, job: str) -> IdempotencyKeyReusedError:
    """The error of a key that comes with another request."""
    return IdempotencyKeyReusedError(
        f"the idempotency key {key!r} is that of job {job}, which has another request: take another key"
    )


def outcome_of(end: BaseResponse | BaseException) -> bytes:
    """A response or an error as the outcome of a job."""
    return b"{" + outcome_members(end) + b"}"


#: Outcomes that the queue itself decides.
EXPIRED = outcome_of(DeadlineExceededError("The deadline passed before a worker could begin."))
UNREADABLE = outcome_of(MalformedRequestError("The queue's entry cannot be read as a job."))
LOST = outcome_of(InternalServerError("Each worker that began this job was lost."))
