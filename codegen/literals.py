"""Writes JSON values as a person would in Python, TypeScript or JSON: numbers in rows, a line per member."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from codegen.bundle import is_array, is_object

#: Longest row of values, its indent not counted: twelve three-digit numbers, a year of months.
ROW = 60


@dataclass(frozen=True)
class Style:
    """How one language writes a literal."""

    indent: int
    true: str = "true"
    false: str = "false"
    null: str = "null"
    bare_keys: bool = False
    spaced_braces: bool = False
    trailing_comma: bool = True


PYTHON = Style(indent=4, true="True", false="False", null="None")
TYPESCRIPT = Style(indent=2, bare_keys=True, spaced_braces=True)
JSON_TEXT = Style(indent=2, trailing_comma=False)


def literal(value: object, style: Style, depth: int = 0) -> str:
    """The value as source text; rows after the first are indented for nesting level `depth`."""
    if is_object(value):
        members = [f"{_key(k, style)}: {literal(v, style, depth + 1)}" for k, v in value.items()]
        return _bracket("{}", members, style, depth, rows=members)
    if is_array(value):
        texts = [literal(item, style, depth + 1) for item in value]
        nested = any(isinstance(item, dict | list) for item in value)
        return _bracket("[]", texts, style, depth, rows=texts if nested else list(_fill(texts)))
    words = {True: style.true, False: style.false, None: style.null}
    if value is None or isinstance(value, bool):
        return words[value]
    return json.dumps(value, ensure_ascii=False)


def _key(name: str, style: Style) -> str:
    return (
        name
        if style.bare_keys and re.fullmatch(r"[A-Za-z_$][\w$]*", name)
        else json.dumps(name, ensure_ascii=False)
    )


def _bracket(pair: str, parts: list[str], style: Style, depth: int, rows: list[str]) -> str:
    flat = ", ".join(parts)
    if len(flat) <= ROW and "\n" not in flat:
        pad = " " if pair == "{}" and style.spaced_braces and flat else ""
        return f"{pair[0]}{pad}{flat}{pad}{pair[1]}"
    ending = "," if style.trailing_comma else ""
    margin = " " * style.indent
    body = f",\n{margin * (depth + 1)}".join(rows)
    return f"{pair[0]}\n{margin * (depth + 1)}{body}{ending}\n{margin * depth}{pair[1]}"


def _fill(texts: list[str]) -> Iterator[str]:
    """Join values into rows no longer than `ROW`."""
    row = ""
    for text in texts:
        if row and len(row) + 2 + len(text) > ROW:
            yield row
            row = ""
        row = f"{row}, {text}" if row else text
    if row:
        yield row
