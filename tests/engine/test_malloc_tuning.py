"""The allocator's thresholds for the arrays of models."""

from __future__ import annotations

import platform
import sys

import pytest

from sheaf.engine.malloc_tuning import keep_freed_memory

NAMES = ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"]


@pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc",
    reason="needs glibc, which has the setting",
)
def test_the_thresholds_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    assert keep_freed_memory()


@pytest.mark.parametrize("name", NAMES)
def test_a_setting_of_the_users_own_stays(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "131072")
    assert not keep_freed_memory()
