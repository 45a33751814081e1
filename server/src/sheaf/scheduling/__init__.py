"""Policies of batching: pure functions and data, with the clock handed in."""

from sheaf.scheduling.batch import BatchPolicy

__all__ = ["BatchPolicy"]
