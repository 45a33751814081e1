"""The table of model types and what each has, from files, generated names and the tests that ran.

A number counts tests that passed and `3 of 4` says that one was not selected; `-` is for what the schema does
not ask for. `none`, `missing` and `failed` are gaps.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from sheaf_client._operation import Operation
from sheaf_client.contracts.base import BaseRequest
from tests.contract.exchanges import BY_TYPE, STREAMING, TYPES, cases
from tests.contract.record import COLLECTED, Ran, record_of
from tests.contract.requests import rules_of

ROOT = Path(__file__).parents[2]
SUITE, TYPESCRIPT, CASES = "test_every_contract", "test_typescript_calls", "test_cases"
GAP = re.compile("none|missing|failed")


def contract(operation: Operation[object, object]) -> str:
    """The names under which people import the contract."""
    module = importlib.import_module(
        operation.request.__module__.replace("sheaf_client.contracts", "sheaf.api")
    )
    union = importlib.import_module("sheaf.api.union")
    for kind in (operation.request, operation.response):
        if getattr(module, kind.__name__, None) is not kind or not hasattr(union, kind.__name__):
            return f"{kind.__name__} missing"
    return "yes"


def rules(model_type: str, request: type[BaseRequest]) -> str:
    """Rules of the contract, each compiled in Python, there in TypeScript, and broken by a case."""
    own = rules_of(request)
    typescript = (ROOT / "clients/typescript/src/generated/rules.gen.ts").read_text(encoding="utf-8")
    table = re.search(rf"^  {request.__name__}: \[(.*?)^  \],$", typescript, re.DOTALL | re.MULTILINE)
    there = table[1].count('"rule"') if table else 0
    if not len(own) == len(request.__rules__) == there:
        return f"{len(own)}, {len(request.__rules__)} in Python, {there} in TypeScript: missing"
    tested = record_of(CASES, "every_rule", model_type)
    return f"{tested}" if tested.gap else str(len(own))


def row(model_type: str) -> dict[str, str]:
    """The cells of one model type."""
    operation = BY_TYPE[model_type]

    def suite(names: str, *parameters: str) -> Ran:
        return record_of(SUITE, names, model_type, *parameters)

    numbers = [len(cases(model_type, kind)) for kind in ("valid", "invalid")]
    checked = record_of(CASES, "", model_type)
    page = ROOT / "docs/models" / f"{operation.model_type}.md"
    return {
        "contract": contract(operation),
        "rules": rules(model_type, operation.request),
        "cases": f"{numbers[0]}+{numbers[1]}" if all(numbers) and not checked.gap else f"{checked}, missing",
        "Python sync": str(suite("_call_gets|keywords|python_client|many")),
        "async": str(suite("awaited|many|python_client")),
        "local": str(suite("", "local")),
        "HTTP": str(suite("", "http")),
        "Ray": str(suite("", "ray")),
        "stream": str(suite("_stream_")) if model_type in STREAMING else "-",
        "binary": str(suite("raw_bytes") + suite("", "msgpack")),
        "TypeScript": str(record_of(TYPESCRIPT, "", model_type)),
        "docs page": "yes" if page.is_file() else "missing",
    }


def test_no_model_type_lacks_anything(
    capsys: pytest.CaptureFixture[str], pytestconfig: pytest.Config
) -> None:
    if not any(f"/{SUITE}.py::" in node for node in COLLECTED):
        pytest.skip("the table is made of the tests that ran: run all of tests/contract")
    table = {model_type: row(model_type) for model_type in TYPES}
    columns = list(table[TYPES[0]])
    widths = [max(len(name), *(len(cells[name]) for cells in table.values())) for name in columns]
    lines = [("model type", columns), *((t, list(cells.values())) for t, cells in table.items())]
    with capsys.disabled():
        print()
        for name, cells in lines:
            print(f"{name:28}", "  ".join(cell.ljust(w) for cell, w in zip(cells, widths, strict=True)))
    # Where nothing was deselected, a test that did not run is a gap too.
    selected = pytestconfig.option.markexpr or pytestconfig.option.keyword
    gap = GAP if selected else re.compile(f"{GAP.pattern}| of ")
    gaps = [(t, name, cell) for t, cells in table.items() for name, cell in cells.items() if gap.search(cell)]
    assert gaps == []
