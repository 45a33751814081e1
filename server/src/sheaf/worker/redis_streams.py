"""The queue for many machines: Redis Streams with one consumer group, so that lost workers' jobs are claimed.

An entry of a stream is a ticket; the job itself is a hash, which changes only by the scripts beside this.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any
from uuid import uuid4

import redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import BusyLoadingError, ConnectionError, ReadOnlyError, ResponseError, TimeoutError  # noqa: A004
from redis.retry import Retry

from sheaf.worker import redis_scripts as scripts
from sheaf.worker.queue import (
    EXPIRED,
    LOST,
    UNREADABLE,
    Ended,
    Job,
    JobNotFoundError,
    JobPolicy,
    JobQueue,
    JobStatus,
    Lease,
    QueueBrokenError,
    QueueUnavailableError,
    key_reused,
    outcome_of,
)
from sheaf_client.errors import MalformedRequestError

#: Annotated for both the synchronous and the asynchronous client at once, so used without types.
_redis: Any = redis

#: Longest wait of one read, in seconds: what comes back from a pause is looked for in between.
_BLOCK = 0.25
#: Seconds between two looks for consumers that were lost.
_LEAVE = 60.0
#: Without the URL, which may hold a password.
_BAD_URL = "the URL of Redis cannot be read: it is like redis://user:password@host:6379/0"
_AWAY = (ConnectionError, TimeoutError, BusyLoadingError, ReadOnlyError, OSError)
_UNREADABLE = outcome_of(MalformedRequestError("The entry names no job."))


class RedisQueue(JobQueue):
    """A queue in Redis 6.2 or newer.

    Args:
        url: `redis://`, `rediss://` or `unix://`, as redis-py takes it.
        policy: Leases, attempts and how long outcomes are kept.
        name: Name of the queue; several may share one Redis.
    """

    def __init__(self, url: str, *, policy: JobPolicy | None = None, name: str = "sheaf") -> None:
        super().__init__(policy)
        self._prefix = name
        self._consumer = f"{platform.node()}-{os.getpid()}-{uuid4().hex[:8]}"
        try:
            self._client = _redis.Redis.from_url(
                url,
                protocol=2,
                socket_timeout=10,
                socket_connect_timeout=5,
                health_check_interval=15,
                # Short, since the callers that can wait longer do so themselves.
                retry=Retry(ExponentialBackoff(cap=0.2, base=0.05), 2),
            )
        except ValueError:  # its text may hold a part of the password
            raise ValueError(_BAD_URL) from None
        self._scripts: dict[str, Any] = {}
        self._grouped: set[str] = set()
        self._looked: dict[str, float] = {}
        self._left: dict[str, float] = {}
        try:
            with _unavailable():
                self._client.ping()
        except ResponseError as error:
            raise QueueBrokenError(f"Redis refuses to be the queue: {error}") from error
        except TypeError as error:  # of a parameter that the URL names
            raise ValueError(_BAD_URL) from error

    def get(self, job: str) -> Job:
        with _unavailable():
            found = self._client.hgetall(self._key("job", job))
        if not found.get(b"status"):
            raise JobNotFoundError(f"no job {job}")
        return _job(job, found)

    def depth(self, model: str | None = None) -> int:
        with _unavailable():
            models = [model] if model else [m.decode() for m in self._client.smembers(self._key("models"))]
            return sum(self._depth(name) for name in models)

    def _depth(self, model: str) -> int:
        """Entries that nobody holds, and jobs in their pause; seen at one moment."""
        pipe = self._client.pipeline(transaction=True)
        pipe.xlen(self._key("jobs", model))
        pipe.xpending(self._key("jobs", model), scripts.GROUP)
        pipe.zcard(self._key("later", model))
        entries, pending, later = pipe.execute(raise_on_error=False)
        held = 0 if isinstance(pending, ResponseError) else pending["pending"]
        return int(entries) - int(held) + int(later)

    def dead_letters(self, limit: int = 100) -> list[Job]:
        found: list[Job] = []
        with _unavailable():
            ids = [job.decode() for job in self._client.zrevrange(self._key("dead"), 0, limit - 1)]
        for job in ids:
            with suppress(JobNotFoundError):
                found.append(self.get(job))
        return found

    def requeue(self, job: str) -> None:
        if not self._run(scripts.REQUEUE, job):
            raise JobNotFoundError(f"no dead job {job}")

    def lease(self, wanted: Mapping[str, int], wait: float, *, holding: bool = False) -> list[Lease]:
        end = time.monotonic() + wait
        while True:
            for model in wanted:
                while (entry := self._lost(model)) is not None:
                    if holding:
                        return []
                    if lease := self._take_lost(model, entry):
                        return [lease]
            leases = [lease for model, count in wanted.items() for lease in self._take(model, count)]
            left = end - time.monotonic()
            if leases or left <= 0:
                return leases
            if found := self._deliver(wanted, 1, int(1000 * min(left, _BLOCK)) or 1):
                return [lease for model, entries in found for lease in self._begin(model, entries)]

    def _take(self, model: str, count: int) -> list[Lease]:
        """Jobs that wait."""
        self._run(scripts.PROMOTE, model)
        found = self._deliver([model], count, None)
        return [lease for _, entries in found for lease in self._begin(model, entries)]

    def _lost(self, model: str) -> Any:
        """The entry of a job whose worker was lost, if there is one; looked for at intervals."""
        self._join(model)
        now = time.monotonic()
        if now < self._looked.get(model, 0.0) + min(1.0, self.policy.lease / 4):
            return None
        self._send_away(model, now)
        stream, idle = self._key("jobs", model), int(1000 * self.policy.lease)
        found = self._grouped_call(
            lambda: self._client.xpending_range(stream, scripts.GROUP, "-", "+", 1, idle=idle)
        )
        if not found:
            self._looked[model] = now
            return None
        return found[0]["message_id"]

    def _take_lost(self, model: str, entry: Any) -> Lease | None:
        """Make that job this consumer's; None where another was faster, or it has no attempt left."""
        stream, idle = self._key("jobs", model), int(1000 * self.policy.lease)
        claimed: list[Any] | None = self._grouped_call(
            lambda: self._client.xclaim(stream, scripts.GROUP, self._consumer, idle, [entry])
        )
        there = [found for found in claimed or [] if found[0] is not None]
        if claimed and not there:  # an entry that somebody deleted, as Redis 6 tells of it
            with _unavailable():
                self._client.xack(stream, scripts.GROUP, entry)
        begun = self._begin(model, there)
        return replace(begun[0], alone=True) if begun else None

    def _send_away(self, model: str, now: float) -> None:
        """Let lost consumers leave the group, at intervals. Who lives comes back by asking for a job."""
        if now >= self._left.get(model, 0.0) + _LEAVE:
            self._left[model] = now
            self._grouped_call(lambda: self._run(scripts.LEAVE, model, 2 * max(self.policy.lease, _LEAVE)))

    def _deliver(self, models: Collection[str], count: int, block: int | None) -> list[tuple[str, Any]]:
        """New entries for this consumer, by model; `block` in milliseconds."""
        names = {self._key("jobs", model): model for model in models}
        streams = dict.fromkeys(names, ">")
        found: list[Any] | None = self._grouped_call(
            lambda: self._client.xreadgroup(scripts.GROUP, self._consumer, streams, count=count, block=block),
        )
        return [(names[stream.decode()], entries) for stream, entries in found or []]

    def _begin(self, model: str, entries: Sequence[Any]) -> list[Lease]:
        """Count an attempt for each delivered entry and make it a lease; bury what names no job."""
        pairs: list[bytes] = []
        for entry, fields in entries:
            if b"id" in (fields or {}):
                pairs += [entry, fields[b"id"]]
            else:
                self._run(scripts.BURY, model, entry, repr(fields), _UNREADABLE)
        if not pairs:
            return []
        token = uuid4().hex
        limits = (self.policy.max_attempts, LOST, EXPIRED, UNREADABLE)
        begun = self._run(scripts.BEGIN, model, self._consumer, token, *limits, *pairs)
        return [
            Lease(
                id=job.decode(),
                model=model,
                body=body,
                attempt=int(attempt),
                token=token,
                remaining=float(left) if left else None,
                entry=entry.decode(),
            )
            for job, entry, attempt, body, left in begun
        ]

    def extend(self, leases: Sequence[Lease]) -> list[bool]:
        if not leases:
            return []
        pairs = [part for lease in leases for part in (lease.id, lease.token)]
        return [bool(alive) for alive in self._run(scripts.EXTEND, self._consumer, *pairs)]

    def finish_all(self, ended: Sequence[Ended]) -> list[bool]:
        pipe = self._client.pipeline(transaction=False)
        for end in ended:
            self._run(scripts.FINISH, end.lease.id, end.lease.token, end.status.value, end.outcome, pipe=pipe)
        with _unavailable():
            return [bool(kept) for kept in pipe.execute()]

    def retry(self, lease: Lease, outcome: bytes) -> bool:
        if lease.attempt >= self.policy.max_attempts:
            return self.finish(lease, JobStatus.DEAD, outcome)
        pause = self.policy.pause(lease.attempt)
        return bool(self._run(scripts.RETRY, lease.id, lease.token, pause, outcome))

    def give_back(self, lease: Lease) -> bool:
        return bool(self._run(scripts.GIVE_BACK, lease.id, lease.token))

    def close(self) -> None:
        """Leave the groups, where nothing is held any more, and the connection."""
        with suppress(QueueUnavailableError, ResponseError), _unavailable():
            for model in self._grouped:
                stream = self._key("jobs", model)
                mine = self._client.xpending_range(stream, scripts.GROUP, "-", "+", 1, self._consumer)
                if not mine:
                    self._client.xgroup_delconsumer(stream, scripts.GROUP, self._consumer)
        self._client.close()

    def _add(
        self, job: str, model: str, body: bytes, key: str | None, digest: bytes, timeout: float | None
    ) -> str:
        limit = "" if timeout is None else timeout
        added, reused = self._run(scripts.ADD, job, model, body, key or "", digest, limit)
        if key is not None and reused:
            raise key_reused(key, added.decode())
        return str(added.decode())

    def _key(self, *parts: str) -> str:
        return ":".join((self._prefix, *parts))

    def _run(self, script: str, *arguments: Any, pipe: Any = None) -> Any:
        """Run a script, or put it into a pipeline; each may be run again where its reply was lost."""
        run = self._scripts.setdefault(script, self._client.register_script(script))
        with _unavailable():
            return run(args=[self._prefix, self.policy.keep, self.policy.keep_dead, *arguments], client=pipe)

    def _join(self, model: str) -> None:
        """See to it that the model's stream has its group."""
        if model in self._grouped:
            return
        with _unavailable():
            try:
                self._client.xgroup_create(self._key("jobs", model), scripts.GROUP, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
        self._grouped.add(model)

    def _grouped_call(self, call: Callable[[], Any]) -> Any:
        """The reply of `call`; None where a Redis that lost its data knows no group, which is made again."""
        try:
            with _unavailable():
                return call()
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            self._grouped.clear()
            return None


@contextmanager
def _unavailable() -> Generator[None]:
    try:
        yield
    except _AWAY as error:
        raise QueueUnavailableError(f"Redis cannot be reached: {error}") from error


def _job(job: str, found: Mapping[bytes, bytes]) -> Job:
    finished = found.get(b"finished")
    return Job(
        id=job,
        model=found.get(b"model", b"").decode(),
        status=JobStatus(found[b"status"].decode()),
        attempts=int(found.get(b"attempts", 0)),
        created=float(found.get(b"created", 0)),
        finished=float(finished) if finished else None,
        outcome=found.get(b"outcome"),
    )
