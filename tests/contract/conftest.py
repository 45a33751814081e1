"""Keeps a record of the contract suite for its table, which comes last."""

from __future__ import annotations

import pytest

from tests.contract.record import COLLECTED, OUTCOMES


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    COLLECTED.extend(item.nodeid for item in items)
    items.sort(key=lambda item: item.path.stem == "test_table")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        OUTCOMES[report.nodeid] = report.outcome
