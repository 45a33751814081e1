"""The page for those who come from the earlier API: its code runs, and the names it promises are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs/migrating.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_page_has_code() -> None:
    assert len(BLOCKS) == 4


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_its_code_runs_as_printed(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {"__name__": "page"}
    exec(compile(BLOCKS[number], f"migrating.md:{number}", "exec"), names)  # noqa: S102
    printed = capsys.readouterr().out
    assert ("[True]" in printed) == ("print" in BLOCKS[number])


def test_the_backend_it_shows_answers() -> None:
    from sheaf_client import Sheaf

    (block,) = (block for block in BLOCKS if "class LastValue" in block)
    names: dict[str, object] = {"__name__": "page"}
    exec(compile(block, "migrating.md", "exec"), names)  # noqa: S102
    with Sheaf.local([names["spec"]]) as client:  # type: ignore[list-item]
        answer = client.time_series.forecast(model="last", history=[1.0, 5.0], horizon=2, frequency="1h")
    assert answer.mean == [5.0, 5.0]


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("sheaf_client", ["Sheaf", "AsyncSheaf", "ProgressEvent", "ResultEvent"]),
        ("sheaf_client.errors", ["InvalidRequestError", "BackendError"]),
        ("sheaf_client", ["ProblemError"]),
        ("sheaf.worker", ["open_queue"]),
        ("sheaf.batch", ["BatchSpec"]),
    ],
)
def test_the_new_names_are_there(module: str, names: list[str]) -> None:
    held = __import__(module, fromlist=names)
    for name in names:
        assert hasattr(held, name)
        assert f"`{name}" in PAGE
