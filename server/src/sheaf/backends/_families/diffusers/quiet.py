"""Keeps out of the log what the libraries say of themselves while they serve one request."""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def quiet(*names: str) -> Generator[None]:
    """Drop what this thread's code logs by the loggers of these names; other threads log as before."""
    here = threading.get_ident()
    loggers = [logging.getLogger(name) for name in names]

    def of_others(record: logging.LogRecord) -> bool:
        return record.thread != here

    for logger in loggers:
        logger.addFilter(of_others)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(of_others)
