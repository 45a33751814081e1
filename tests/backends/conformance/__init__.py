"""What every backend promises, as a class that its test derives from: the test says what to load and to ask.

    class TestYagi(BackendConformance):
        backend_class = YagiBackend

        @pytest.fixture(scope="class")
        def settings(self, tmp_path_factory): ...       # what loads it from a tiny true checkpoint
        @pytest.fixture(scope="class")
        def neighbor(self, tmp_path_factory): ...       # what loads another model of the family
        @pytest.fixture(scope="class")
        def requests(self): ...                         # requests that differ, each with one answer
        @pytest.fixture(scope="class")
        def direct(self, settings): ...                 # the library's own call: fields of the answer
        @pytest.fixture(scope="class")
        def refused(self): ...                          # [(request, code, path)] that `check` refuses

A check that makes no sense for a backend is named in `exempt` with the reason, and reported as skipped by it.
A check that has nothing to look at fails, and wants such an exemption.
"""

from __future__ import annotations

from sheaf.extras import install_command
from tests.backends.conformance.answering import AnswerChecks
from tests.backends.conformance.missing import CHECKPOINT_CHECKS, MissingPartChecks
from tests.backends.conformance.model import PAGES
from tests.backends.conformance.process import ProcessChecks
from tests.backends.conformance.refusing import RefusalChecks

__all__ = ["CHECKPOINT_CHECKS", "BackendConformance"]


class BackendConformance(AnswerChecks, ProcessChecks, MissingPartChecks, RefusalChecks):
    """All checks. A derived class gives five fixtures and what differs from the defaults."""

    def test_it_says_what_it_is_and_has_a_page(self) -> None:
        info = self.backend_class.info
        assert info is not None, "give the class an `info`"
        assert info.title
        assert info.libraries
        assert install_command(info.extra)
        assert (PAGES / f"{self.backend_class.__module__.rpartition('.')[2]}.md").is_file()
