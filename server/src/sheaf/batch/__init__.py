"""Batch jobs: files of requests in, files of answers out, on Ray Data. Needs the extra `batch`."""

from sheaf.batch.runner import BatchFailedError, BatchReport, BatchRunner
from sheaf.batch.spec import BatchSpec, JsonlSink, JsonlSource

__all__ = ["BatchFailedError", "BatchReport", "BatchRunner", "BatchSpec", "JsonlSink", "JsonlSource"]
