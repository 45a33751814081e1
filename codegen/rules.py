"""The vocabulary of cross-field rules: what each needs, how it reads, what of it JSON Schema can say.

Python (`sheaf_client._rules`) and TypeScript (`rules.ts`) execute the same entries; this module only
checks them and lowers them into the public document.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from codegen.bundle import JSON, Bundle, SchemaError, is_array

_GIVEN: JSON = {"not": {"type": "null"}}


def _exactly_one_of(schema: JSON, rule: JSON) -> None:
    one: JSON = {"oneOf": [{"required": [f], "properties": {f: _GIVEN}} for f in rule["fields"]]}
    if "unless" in rule:
        one = {"if": _has(rule["unless"], value=True), "else": one}
    schema.setdefault("allOf", []).append(one)


def _at_most_one_of(schema: JSON, rule: JSON) -> None:
    fields: list[str] = rule["fields"]
    pairs = [[a, b] for i, a in enumerate(fields) for b in fields[i + 1 :]]
    for pair in pairs:
        schema.setdefault("allOf", []).append(
            {"not": {"required": pair, "properties": dict.fromkeys(pair, _GIVEN)}}
        )


def _unique(schema: JSON, rule: JSON) -> None:
    schema["properties"][rule["field"]]["uniqueItems"] = True


def _requires(schema: JSON, rule: JSON) -> None:
    schema.setdefault("allOf", []).append(
        {
            "if": {"required": [rule["field"]], "properties": {rule["field"]: _GIVEN}},
            "then": {"required": rule["needs"], "properties": dict.fromkeys(rule["needs"], _GIVEN)},
        }
    )


def _at_least_one_of(schema: JSON, rule: JSON) -> None:
    schema.setdefault("allOf", []).append(
        {"anyOf": [{"required": [f], "properties": {f: _GIVEN}} for f in rule["fields"]]}
    )


def _value_requires(schema: JSON, rule: JSON) -> None:
    needed = schema["properties"][rule["needs"]]
    then: JSON = {"properties": {rule["needs"]: {"const": rule["equals"]}}}
    if needed.get("default") != rule["equals"]:
        then["required"] = [rule["needs"]]
    schema.setdefault("allOf", []).append({"if": _has(rule["field"], value=rule["value"]), "then": then})


def _numbers_when(schema: JSON, rule: JSON) -> None:
    numbers: JSON = {"properties": {rule["field"]: {"items": {"type": "number"}}}}
    schema.setdefault("allOf", []).append({"if": _has(rule["when"], value=rule["equals"]), "then": numbers})


def _some_filled(schema: JSON, rule: JSON) -> None:
    filled: list[JSON] = [{"properties": {f: {"minProperties": 1}}} for f in rule["fields"]]
    schema.setdefault("allOf", []).append({"anyOf": filled})


def _filled_with(schema: JSON, rule: JSON) -> None:
    other: JSON = {"properties": {rule["of"]: {"minProperties": 1}}}
    filled: JSON = {"properties": {rule["field"]: {"minItems": 1}}}
    schema.setdefault("allOf", []).append({"if": other, "then": filled})


def _has(field: str, *, value: object) -> JSON:
    return {"required": [field], "properties": {field: {"const": value}}}


#: rule name → (members it needs, sentence for people, lowering into JSON Schema or None)
VOCABULARY: dict[str, tuple[frozenset[str], str, Callable[[JSON, JSON], None] | None]] = {
    "exactly_one_of": (frozenset({"fields"}), "exactly one of {fields} is given", _exactly_one_of),
    "unique_by": (frozenset({"field", "member"}), "the items of {field} differ in {member}", None),
    "some_true": (frozenset({"fields"}), "at least one of {fields} is true", None),
    "at_most_one_of": (frozenset({"fields"}), "at most one of {fields} is given", _at_most_one_of),
    "requires": (frozenset({"field", "needs"}), "{field} needs {needs}", _requires),
    "rectangular": (frozenset({"field"}), "all rows of {field} have equal length", None),
    "some_present": (frozenset({"field"}), "{field} has at least one value that is not null", None),
    "index_within": (frozenset({"field", "of"}), "{field} is a column of {of}", None),
    "unique": (frozenset({"field"}), "the items of {field} differ", _unique),
    "increasing": (frozenset({"field"}), "the items of {field} increase", None),
    "same_length": (frozenset({"field", "as"}), "{field} is as long as {as}", None),
    "length_equals": (frozenset({"field", "value"}), "{field} has {value} items", None),
    "keys_within": (frozenset({"field", "of"}), "every name in {field} is also in {of}", None),
    "at_least_one_of": (frozenset({"fields"}), "at least one of {fields} is given", _at_least_one_of),
    "items_within": (frozenset({"field", "of"}), "each item of {field} is a column of {of}", None),
    "same_width": (frozenset({"field", "as"}), "{field} has as many columns as {as}", None),
    "length_is_width": (frozenset({"field", "of"}), "{field} has one item per column of {of}", None),
    "same_keys": (frozenset({"field", "as"}), "{field} has the same names as {as}", None),
    "value_requires": (
        frozenset({"field", "value", "needs", "equals"}),
        "{field} {value} is for {needs} {equals} alone",
        _value_requires,
    ),
    "numbers_when": (
        frozenset({"field", "when", "equals"}),
        "{field} holds numbers alone where {when} is {equals}",
        _numbers_when,
    ),
    "some_filled": (frozenset({"fields"}), "at least one of {fields} is not empty", _some_filled),
    "filled_with": (frozenset({"field", "of"}), "{field} is not empty where {of} is not", _filled_with),
    "needed_when_true": (frozenset({"field", "flag"}), "{field} is needed when {flag} is true", None),
    "not_true_beside": (frozenset({"field", "other"}), "{field} is not true beside {other}", None),
    "boxes": (frozenset({"field"}), "{field} has x_min below x_max and y_min below y_max", None),
}
#: Members that are values, not names of fields.
_LITERALS = {
    "value_requires": {"value", "equals"},
    "numbers_when": {"equals"},
    "unique_by": {"member"},
}
#: rule name → members it may have, and what each adds to its sentence.
_OPTIONAL = {
    "exactly_one_of": {"unless": ", unless {unless} is true"},
    "needed_when_true": {"unless": ", unless {unless} is given"},
}


def check_rules(bundle: Bundle) -> None:
    """Raise `SchemaError` for an unknown rule, a missing member, or a field that the class has not."""
    for schema in bundle.schemas.values():
        for rule in schema.body.get("x-sheaf-rules", []):
            _check_rule(schema.name, schema.body.get("properties", {}), rule)


def _check_rule(owner: str, properties: JSON, rule: JSON) -> None:
    name = rule.get("rule")
    if name not in VOCABULARY:
        raise SchemaError(f"{owner}: unknown rule {name!r}; known: {', '.join(sorted(VOCABULARY))}")
    needs = VOCABULARY[name][0]
    if not needs <= rule.keys() - {"rule"} <= needs | _OPTIONAL.get(name, {}).keys():
        raise SchemaError(f"{owner}: rule {name} takes {sorted(needs)}, got {sorted(set(rule) - {'rule'})}")
    literals = {"rule"} | _LITERALS.get(name, set())
    for value in (v for key, v in rule.items() if key not in literals):
        paths: list[str] = value if is_array(value) else [value]
        for path in paths:
            if path.removesuffix(".*") not in properties:
                raise SchemaError(f"{owner}: rule {name} names {path!r}, which is no field of it")


def lower_rules(schema: JSON) -> JSON:
    """Return the public form: what JSON Schema can say as keywords, the rest as sentences."""
    rules: list[JSON] = schema.pop("x-sheaf-rules", [])
    sentences: list[str] = []
    for rule in rules:
        lower = VOCABULARY[rule["rule"]][2]
        if lower:
            lower(schema, rule)
        sentences.append(sentence(rule))
    if sentences:
        listed = "\n".join(f"- {s}" for s in sentences)
        schema["description"] = f"{schema.get('description', '')}\n\nRules:\n\n{listed}".strip()
    return schema


def sentence(rule: JSON) -> str:
    """A rule in words."""
    added = _OPTIONAL.get(rule["rule"], {}).items()
    text = VOCABULARY[rule["rule"]][1] + "".join(words for member, words in added if member in rule)
    return text.format(**{key: _quote(value) for key, value in rule.items()})


def _quote(value: Any) -> str:
    return ", ".join(f"`{v}`" for v in value) if is_array(value) else f"`{value}`"
