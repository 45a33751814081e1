"""Checks `x-sheaf-results`: which fields of a response make its array and its table.

x-sheaf-results:
  numpy: [mean]                      the first of these that is there
  pandas:
    index: timestamps                a list with one label a row
    columns: [mean, quantiles]       lists, mappings of lists, lists of rows; `samples.T` has paths as rows
    names: {probabilities: classes}  what the places of a row are called: a field, or a list of names
  ase: {file: structure, format: structure_format}   a file with atoms: its text, and `pdb` or `mmcif`
"""

from __future__ import annotations

from collections.abc import Iterator

from codegen.binary import SUFFIX
from codegen.bundle import JSON, Bundle, SchemaError


def check_results(bundle: Bundle) -> None:
    """Raise `SchemaError` where a response names a field that it does not have."""
    for schema in bundle.schemas.values():
        if "x-sheaf-results" not in schema.body:
            continue
        known = {name.removesuffix(SUFFIX) for name in schema.body["properties"]}
        results: JSON = schema.body["x-sheaf-results"]
        if unknown := sorted(results.keys() - {"numpy", "pandas", "ase"}):
            raise SchemaError(f"{schema.name}: x-sheaf-results cannot say {unknown}")
        if missing := sorted(set(_named(results)) - known):
            raise SchemaError(f"{schema.name}: x-sheaf-results names {missing}, which are no fields of it")


def _named(results: JSON) -> Iterator[str]:
    yield from results.get("numpy", ())
    table: JSON = results.get("pandas", {})
    yield from (column.removesuffix(".T") for column in table.get("columns", ()))
    if "index" in table:
        yield table["index"]
    for field, names in table.get("names", {}).items():
        yield field
        if isinstance(names, str):
            yield names
    yield from results.get("ase", {}).values()
