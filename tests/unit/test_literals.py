"""Literals in code samples: right in their language, and laid out as a person would."""

from __future__ import annotations

import ast
import json

import pytest

from codegen.literals import JSON_TEXT, PYTHON, TYPESCRIPT, literal

YEAR = [112, 118, 132, 129, 121, 135, 148, 148, 136, 119, 104, 118]


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -1.5,
        'quote " and \\ and é',
        [],
        {},
        [True, False, None, 1, 1.0, "x"],
        {"rows": [YEAR, YEAR], "name": "x", "nested": {"a b": [1], "long": YEAR * 3}},
        [[1, 2], [3, 4]],
    ],
)
def test_reads_back_as_the_same_value(value: object):
    assert ast.literal_eval(literal(value, PYTHON)) == value
    assert json.loads(literal(value, JSON_TEXT)) == value


def test_numbers_fill_rows_of_a_year():
    assert literal(YEAR * 2, PYTHON, 1).splitlines() == [
        "[",
        "        112, 118, 132, 129, 121, 135, 148, 148, 136, 119, 104, 118,",
        "        112, 118, 132, 129, 121, 135, 148, 148, 136, 119, 104, 118,",
        "    ]",
    ]


def test_json_has_no_trailing_comma_and_typescript_bare_keys():
    value = {"a": YEAR * 2, "b-c": 1}
    assert literal(value, JSON_TEXT).splitlines()[-3:] == ["  ],", '  "b-c": 1', "}"]
    assert literal(value, TYPESCRIPT).splitlines()[1:2] == ["  a: ["]
    assert literal({"a": 1}, TYPESCRIPT) == "{ a: 1 }"
