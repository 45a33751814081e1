"""Queues by their URL, so that a command line can name one."""

from __future__ import annotations

from sheaf.extras import needs
from sheaf.worker.queue import JobPolicy, JobQueue
from sheaf.worker.sqlite import SqliteQueue


def open_queue(url: str, *, policy: JobPolicy | None = None) -> JobQueue:
    """The queue at `sqlite:///jobs.db` (`sqlite:////var/jobs.db` for an absolute path) or `redis://host`.

    Raises:
        ModuleNotFoundError: The library for Redis is not installed.
        ValueError: The URL is for neither.
        QueueUnavailableError: The queue cannot be reached.
        QueueBrokenError: The file is no queue, or Redis refuses to be one.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme == "sqlite" and len(rest) > 1 and rest[0] == "/":
        return SqliteQueue(rest[1:], policy=policy)
    if separator and scheme in ("redis", "rediss", "unix"):
        with needs("a queue in Redis", "jobs"):
            from sheaf.worker.redis_streams import RedisQueue

        return RedisQueue(url, policy=policy)
    given = f"{scheme}://…" if separator else repr(url)  # the rest may hold a password
    raise ValueError(f"{given} is no queue: give sqlite:///jobs.db or redis://host:6379/0")
