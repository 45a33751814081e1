"""Backends against their libraries; what checks them says what it found, as the tests do."""

import pytest

pytest.register_assert_rewrite("tests.backends.answers", "tests.backends.conformance")
