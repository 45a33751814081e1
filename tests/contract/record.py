"""What pytest collected and what came of it: the facts that the table of the contract suite is made of."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: Every test that was collected, those deselected included, and the outcome of each that ran.
COLLECTED: list[str] = []
OUTCOMES: dict[str, str] = {}


@dataclass(frozen=True)
class Ran:
    """The tests of one cell: how many there are, ran and passed."""

    there: int
    ran: int
    passed: int

    def __add__(self, other: Ran) -> Ran:
        return Ran(self.there + other.there, self.ran + other.ran, self.passed + other.passed)

    def __str__(self) -> str:
        if self.there == 0:
            return "none"
        if self.passed < self.ran:
            return f"{self.ran - self.passed} failed"
        return str(self.passed) if self.ran == self.there else f"{self.passed} of {self.there}"

    @property
    def gap(self) -> bool:
        """Whether there is no such test, or one that failed."""
        return self.there == 0 or self.passed < self.ran


def record_of(module: str, names: str, *parameters: str) -> Ran:
    """The tests of a module whose name matches `names` and whose parameters include those given."""
    found = [node for node in COLLECTED if _matches(node, module, names, set(parameters))]
    outcomes = [OUTCOMES[node] for node in found if node in OUTCOMES]
    return Ran(len(found), len(outcomes), outcomes.count("passed"))


def _matches(node: str, module: str, names: str, parameters: set[str]) -> bool:
    path, _, rest = node.partition("::")
    name, _, given = rest.removesuffix("]").partition("[")
    # The cases' identifiers begin with the model type and go on with the case.
    return (
        path.endswith(f"/{module}.py")
        and bool(re.search(names, name))
        and parameters <= set(given.split("-"))
    )
