"""The pages for those who read and write the code name files, classes and methods that are there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Where the pages' paths begin.
STARTS = [ROOT, *(ROOT / start for start in ("tests", "server/src/sheaf", "server/src/sheaf/backends"))]
PAGES = ["CONTRIBUTING.md", "docs/engine.md"]
#: What the examples of the pages add.
OF_EXAMPLES = re.compile(r"yagi|antenna|VERSION")
ENGINE = ROOT / "server/src/sheaf/engine"
READING = (ROOT / "docs/engine.md").read_text().partition("## Reading the code")[2]


def quoted(page: str) -> list[str]:
    """What stands in backticks, without blocks of code."""
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", text)


def alternatives(path: str) -> Iterator[str]:
    """`a/{b,c}.py` is two paths."""
    found = re.search(r"{([^}]*)}", path)
    if found is None:
        yield path
        return
    for each in found[1].split(","):
        yield from alternatives(path[: found.start()] + each + path[found.end() :])


def paths(page: str) -> list[str]:
    named = [text for text in quoted(page) if re.fullmatch(r"[\w.*{},-]+(/[\w.*{},-]+)*/?", text)]
    found = [text for text in named if "/" in text or re.search(r"\.(py|md|toml|yaml|ts)$", text)]
    return [each for text in found if not OF_EXAMPLES.search(text) for each in alternatives(text)]


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_are_there(page: str) -> None:
    named = paths(page)
    assert len(named) > 10
    missing = [path for path in named if not any(list(start.glob(path)) for start in STARTS)]
    assert not missing


@cache
def classes() -> dict[str, set[str]]:
    """The classes of the packages, with the names in their bodies and in those of their bases."""
    nodes = {
        node.name: node
        for source in (ROOT / "server/src", ROOT / "sdk/src")
        for file in source.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef)
    }

    def names(node: ast.ClassDef) -> set[str]:
        found = {
            getattr(part, "name", None) or getattr(getattr(part, "target", None), "id", "")
            for part in node.body
        }
        bases = [getattr(getattr(base, "value", base), "id", "") for base in node.bases]
        return found.union(*(names(nodes[base]) for base in bases if base in nodes and base != node.name))

    return {name: names(node) for name, node in nodes.items()}


@pytest.mark.parametrize("page", PAGES)
def test_classes_and_methods_that_a_page_names_are_there(page: str) -> None:
    named = [text for text in quoted(page) if re.fullmatch(r"[A-Z]\w*[a-z]\w*(\.\w+)?", text)]
    named = [text for text in named if not OF_EXAMPLES.search(text.lower())]
    assert named
    known = classes()
    builtins = {"SystemExit", "CancelledError", "KeyboardInterrupt"}
    for text in named:
        name, _, member = text.partition(".")
        assert name in known or name in builtins, text
        assert not member or member in known[name], text


def test_the_diagram_s_columns_and_words_are_of_the_code() -> None:
    diagram = READING.partition("```text")[2].partition("```")[0]
    columns = re.split(r"\s{2,}", diagram.strip().splitlines()[0])
    for column in columns[:-1]:
        package, _, files = column.partition("/")
        for name in files.split(", "):
            assert (ROOT / "server/src/sheaf" / package / f"{name}.py").is_file(), column
    engine = "\n".join(file.read_text() for file in (ROOT / "server/src/sheaf").rglob("*.py"))
    words = set(re.findall(r"\b(?:[A-Z][a-z]+){2,}\b|\b_?[a-z]+_[a-z]+\b|\b_\w+\b", diagram))
    assert len(words) > 5
    for word in words:
        assert re.search(rf"\b{word}\b", engine), word


def test_the_page_of_the_engine_names_each_of_its_files() -> None:
    """A reader finds what a file is for without opening it."""
    for file in sorted(ENGINE.glob("[a-z]*.py")):
        assert re.search(rf"engine/{file.stem}\.py|`{file.stem}`|engine/{file.stem}\b", READING), file.name
