"""A job's place in the waiting line: with whom it may run, what it costs, how urgent it is and who pays."""

from __future__ import annotations

import math

from sheaf.backends.base import ModelBackend
from sheaf.backends.operations import operation_of
from sheaf.engine.jobs import Job, StepJob, StreamJob
from sheaf.engine.terms import CallTerms
from sheaf.lora import ActiveAdapters
from sheaf.scheduling.batch import BatchPolicy, bucket_value
from sheaf.scheduling.queue import Entry


def make_entry(
    job: Job,
    adapters: ActiveAdapters,
    terms: CallTerms,
    backend: ModelBackend,
    policy: BatchPolicy,
    now: float,
) -> Entry[Job]:
    """The entry of a job that was admitted.

    Raises `ValueError` where the backend names a cost that is none, and `TypeError` for a key that is none.
    """
    request, bucket = job.request, policy.bucket_by
    key = backend.batch_key(request)
    if backend.operations and not isinstance(job, StepJob):  # a step is the same whatever it is of
        key = (key, operation_of(request))
    if bucket:
        key = (key, bucket_value(request, bucket))
    if adapters and not backend.mixes_adapters:
        key = (key, adapters)
    hash(key)
    steps = 0
    if isinstance(job, StreamJob):
        key = job  # its steps run alone
    elif isinstance(job, StepJob):
        key, steps = ("steps", key), backend.steps(request)
    cost = float(backend.cost(request))
    if not 0 <= cost < math.inf:
        raise ValueError(f"a request cannot cost {cost}")
    deadline = None if terms.timeout is None else now + terms.timeout
    return Entry(
        job, key, cost, now, deadline, terms.priority, terms.tenant, steps, terms.call, bill=terms.bill
    )
