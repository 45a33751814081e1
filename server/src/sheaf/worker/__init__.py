"""Background jobs: a queue of requests, and workers that hold the models which answer them."""

from sheaf.worker.queue import (
    Ended,
    IdempotencyKeyReusedError,
    Job,
    JobNotFoundError,
    JobPolicy,
    JobQueue,
    JobStatus,
    Lease,
    QueueBrokenError,
    QueueUnavailableError,
)
from sheaf.worker.sqlite import SqliteQueue
from sheaf.worker.urls import open_queue
from sheaf.worker.worker import SheafWorker

__all__ = [
    "Ended",
    "IdempotencyKeyReusedError",
    "Job",
    "JobNotFoundError",
    "JobPolicy",
    "JobQueue",
    "JobStatus",
    "Lease",
    "QueueBrokenError",
    "QueueUnavailableError",
    "SheafWorker",
    "SqliteQueue",
    "open_queue",
]
