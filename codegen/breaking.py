"""`python -m codegen.breaking`: tell what in the schema breaks callers of the last release, line by line.

What one side sends, the other must accept: requests go from old callers to the new server, responses
from the new server to old callers, so one comparison serves both. Additions pass.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

from codegen.bundle import JSON, SchemaError, is_object
from codegen.forms import Form, alternatives, is_open_union, lower_bound, permitted, shown, upper_bound
from codegen.released import last_release, read_contract, version_key, write_release
from codegen.rules import VOCABULARY, sentence

REPOSITORY = Path(__file__).parent.parent
Way: TypeAlias = Literal["request", "response"]

#: Keywords that allow less wherever they stand, and something else when they change.
_RESTRICTIONS = ("pattern", "format", "multipleOf", "uniqueItems")
#: Keywords that say how a value is encoded: any change is another encoding.
_ENCODINGS = ("contentEncoding", "x-sheaf-tensor", "x-sheaf-media")

#: Rules that hold a field to something where it is not given.
_OF_ABSENT = ("filled_with", "needed_when_true", "value_requires")


def breaking_changes(old: JSON, new: JSON) -> list[str]:
    """What breaks callers of the contract `old` when a server follows `new`: `place: change`, sorted."""
    comparison = _Comparison(old, new)
    found = [*comparison.operations(), *comparison.names(), *comparison.codes()]
    # A result event is made from its response: what changes in both is one change.
    told = {line for line in found if "ResultEvent" not in line}
    return sorted(told | {line for line in found if line.replace("ResultEvent", "Response") not in told})


class _Comparison:
    def __init__(self, old: JSON, new: JSON) -> None:
        self.old, self.new = old, new
        self._known: dict[tuple[str, str, Way], list[str]] = {}

    def operations(self) -> Iterator[str]:
        for place, was in self.old["operations"].items():
            now: JSON | None = self.new["operations"].get(place)
            if now is None:
                yield f"{place}: removed"
            else:
                yield from self._operation(place, was, now)

    def names(self) -> Iterator[str]:
        """Names of schemas are names of classes, and those of enum members their attributes."""
        for name, was in self.old["schemas"].items():
            now: JSON | None = self.new["schemas"].get(name)
            if now is None:
                yield f"{name}: removed"
                continue
            members = dict(zip(now.get("enum", ()), now.get("x-enum-varnames", ()), strict=False))
            for value, member in zip(was.get("enum", ()), was.get("x-enum-varnames", ()), strict=False):
                if members.get(value, member) != member:
                    yield f"{name}: member {member} is now called {members[value]}"

    def codes(self) -> Iterator[str]:
        for code, was in self.old["problems"].items():
            now: JSON | None = self.new["problems"].get(code)
            if now is None:
                yield f"problem {code}: removed"
                continue
            for key in ("status", "class", "base"):
                if was.get(key) != now.get(key):
                    yield f"problem {code}: {key} {was.get(key)} → {now.get(key)}"
        for fault in self.old["faults"]:
            if fault not in self.new["faults"]:
                yield f"fault {fault}: removed"

    def _operation(self, place: str, was: JSON, now: JSON) -> Iterator[str]:
        if was["id"] != now["id"]:
            yield f"{place}: operationId {was['id']} → {now['id']}"
        if was["streams"] and not now["streams"]:
            yield f"{place}: streams no longer"
        elif was["streams"]:
            yield from self._compare(was["streams"], now["streams"], "response", f"{place} progress")
        for name, parameter in now["parameters"].items():
            before: JSON = was["parameters"].get(name, {"required": False})
            if parameter["required"] and not before["required"]:
                yield f"{place} {name}: newly required"
        for name, parameter in was["parameters"].items():
            after: JSON | None = now["parameters"].get(name)
            if after is None:
                yield f"{place} {name}: removed"
            else:
                yield from self._compare(parameter["schema"], after["schema"], "request", f"{place} {name}")
        yield from self._content(f"{place} request", was["accepts"], now["accepts"], "request")
        for status, answer in was["answers"].items():
            if status not in now["answers"]:
                yield f"{place} {status}: removed"
            else:
                yield from self._content(f"{place} {status}", answer, now["answers"][status], "response")
        for status in now["answers"]:
            if status not in was["answers"]:
                yield f"{place} {status}: a new answer"

    def _content(self, place: str, was: JSON, now: JSON, way: Way) -> Iterator[str]:
        for media, schema in was.items():
            if media not in now:
                yield f"{place} {media}: removed"
            else:
                yield from self._compare(schema, now[media], way, place)

    def _named(self, old: str, new: str, way: Way) -> list[str]:
        """The changes of a named schema, told once wherever it is used."""
        key = (old, new, way)
        if key not in self._known:
            self._known[key] = []  # a schema that holds itself ends here
            was, now = self.old["schemas"][old], self.new["schemas"][new]
            self._known[key] = (
                list(self._union(was, now, way, old))
                if is_open_union(was) and is_open_union(now)
                else self._compare(was, now, way, old)
            )
        return self._known[key]

    def _union(self, was: JSON, now: JSON, way: Way, place: str) -> Iterator[str]:
        """A union that may grow: a caller meets new members by asking for them, or lets events pass."""
        old, new = _members(was), _members(now)
        for tag, name in old.items():
            if tag not in new:
                yield f"{place}: {tag} removed"
            else:
                # A type that got another operation: its contract is one of several now.
                several = self.new["schemas"][new[tag]]
                kept = is_open_union(several) and name in _members(several)
                yield from self._named(name, name if kept else new[tag], way)

    def _compare(self, was: JSON, now: JSON, way: Way, place: str) -> list[str]:
        """Each form that may be sent must be among those taken."""
        if "$ref" in was and "$ref" in now:
            return self._named(was["$ref"], now["$ref"], way)
        old = alternatives(was, self.old["schemas"])
        new = alternatives(now, self.new["schemas"])
        sent, taken = (old, new) if way == "request" else (new, old)
        found: list[str] = []
        for form in sent:
            tries = [
                self._pair(*((form, other) if way == "request" else (other, form)), way, place)
                for other in taken
                if other.kind in ("any", form.kind) or {form.kind, other.kind} <= {"integer", "number"}
            ]
            if not tries:
                verb = "no longer accepts" if way == "request" else "may now be"
                found.append(f"{place}: {verb} {form.kind}")
            elif all(tries):
                found += min(tries, key=len)
        return found

    def _pair(self, old: Form, new: Form, way: Way, place: str) -> list[str]:
        if old.name and new.name:
            return self._named(old.name, new.name, way)
        return list(self._form(old, new, way, place))

    def _form(self, old: Form, new: Form, way: Way, place: str) -> Iterator[str]:
        """What one form of a value breaks: the receiver must take all that the sender may send."""
        was, now = old.body, new.body
        sent, taken = (was, now) if way == "request" else (now, was)
        if (sent.get("type"), taken.get("type")) == ("number", "integer"):
            yield f"{place}: {was['type']} → {now['type']}"
        if lower_bound(taken) > lower_bound(sent):
            yield f"{place}: lower bound {shown(lower_bound(was))} → {shown(lower_bound(now))}"
        if upper_bound(taken) < upper_bound(sent):
            yield f"{place}: upper bound {shown(upper_bound(was))} → {shown(upper_bound(now))}"
        for key in _RESTRICTIONS:
            if taken.get(key) and taken[key] != sent.get(key):
                yield f"{place}: {key} {was.get(key)} → {now.get(key)}"
        for key in _ENCODINGS:
            if _encoding(was.get(key)) != _encoding(now.get(key)):
                yield f"{place}: {key} {_encoding(was.get(key))} → {_encoding(now.get(key))}"
        if _may_miss(sent) and not _may_miss(taken):
            verb = "no longer accepts" if way == "request" else "may now have"
            yield f"{place}: {verb} missing values"
        yield from self._values(was, now, way, place)
        if "items" in taken and is_object(taken["items"]):
            yield from self._compare(was.get("items", {}), now.get("items", {}), way, f"{place}[]")
        yield from self._object(was, now, way, place)
        yield from _rules(was, now, way, place)

    def _values(self, was: JSON, now: JSON, way: Way, place: str) -> Iterator[str]:
        sent, taken = (was, now) if way == "request" else (now, was)
        allowed, possible = permitted(taken), permitted(sent)
        if allowed is None:
            return
        if possible is None:
            yield f"{place}: values {permitted(was)} → {permitted(now)}"
            return
        verb = "no longer accepts" if way == "request" else "may now be"
        for value in possible:
            if value not in allowed:
                yield f"{place}: {verb} {value!r}"

    def _object(self, was: JSON, now: JSON, way: Way, place: str) -> Iterator[str]:
        old, new = was.get("properties", {}), now.get("properties", {})
        needed, was_needed = now.get("required", []), was.get("required", [])
        for name, field in old.items():
            here = f"{place}/{name}"
            if name not in new:
                yield f"{here}: removed"
                continue
            yield from self._compare(field, new[name], way, here)
            if way == "request" and name in needed and name not in was_needed:
                yield f"{here}: newly required"
            elif way == "response" and name in was_needed and name not in needed:
                yield f"{here}: no longer always there"
            elif "default" in field and not _same(field["default"], new[name].get("default", _NONE)):
                given = json.dumps(new[name]["default"]) if "default" in new[name] else "none"
                yield f"{here}: default {json.dumps(field['default'])} → {given}"
        if way == "request":
            for name in new:
                if name not in old and name in needed:
                    yield f"{place}/{name}: newly required"
        yield from self._others(was, now, way, place)

    def _others(self, was: JSON, now: JSON, way: Way, place: str) -> Iterator[str]:
        """Members beyond the named ones: any, none, or those of one schema."""
        old, new = was.get("additionalProperties", True), now.get("additionalProperties", True)
        if is_object(old) and is_object(new):
            yield from self._compare(old, new, way, f"{place}/*")
            return
        sent, taken = (old, new) if way == "request" else (new, old)
        if taken is not True and sent is not False and sent != taken:
            kinds = {True: "any", False: "none"}
            told = [kinds[side] if isinstance(side, bool) else "of one schema" for side in (old, new)]
            yield f"{place}: further members {told[0]} → {told[1]}"


def _rules(was: JSON, now: JSON, way: Way, place: str) -> Iterator[str]:
    """A rule that the receiver holds the value to and the sender does not know."""
    old, new = was.get("x-sheaf-rules", []), now.get("x-sheaf-rules", [])
    sent, taken = (old, new) if way == "request" else (new, old)
    for rule in taken:
        if way == "request" and _concerns_new_field(rule, was):
            continue
        if rule not in sent:
            verb = "new rule" if way == "request" else "no longer holds"
            text = sentence(rule) if rule["rule"] in VOCABULARY else json.dumps(rule)
            yield f"{place}: {verb}: {text}"


def _concerns_new_field(rule: JSON, was: JSON) -> bool:
    """Whether a rule is about a value that callers of the old contract never give."""
    return rule["rule"] not in _OF_ABSENT and rule.get("field", "").removesuffix(".*") not in {
        "",
        *was.get("properties", {}),
    }


def _encoding(value: Any) -> str:
    """How a value is encoded, for people: `float32 (n_atoms, 3)`."""
    return f"{value['dtype']} ({', '.join(map(str, value['shape']))})" if is_object(value) else str(value)


def _may_miss(node: JSON) -> bool:
    """Whether NaN stands for missing values of a tensor."""
    return bool(node.get("x-sheaf-tensor", {}).get("missing"))


_NONE = object()


def _same(one: Any, other: Any) -> bool:
    """Equality of JSON values: 1 is 1.0, and neither is true."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _members(union: JSON) -> dict[str, str]:
    """Tag → name of each member of a union; the name is its own tag where there is no discriminator."""
    if "discriminator" in union:
        mapping: dict[str, str] = union["discriminator"]["mapping"]
        return mapping
    return {branch["$ref"]: branch["$ref"] for branch in union["anyOf"]}


def may_break(old: str, new: str) -> bool:
    """Whether the version says so: another major, or before 1.0 another minor."""
    was, now = version_key(old), version_key(new)
    return now[: 1 if was[0] else 2] > was[: 1 if was[0] else 2]


def main(arguments: list[str] | None = None) -> int:
    """Exit status 1 where callers of the last release would break and the version does not say so."""
    parser = argparse.ArgumentParser(prog="codegen.breaking", description=__doc__)
    parser.add_argument(
        "--release", action="store_true", help="keep the contract as it is, as that of its version"
    )
    parser.add_argument("--replace", action="store_true", help="with --release: even if it is kept already")
    parser.add_argument("--schema", type=Path, default=REPOSITORY / "schema", help="the schema folder")
    given = parser.parse_args(arguments)
    try:
        contract = read_contract(given.schema)
        if given.release:
            print(f"kept {write_release(contract, given.schema / 'released', replace=given.replace)}")
            return 0
        old = last_release(given.schema / "released")
    except SchemaError as error:
        print(f"breaking: {error}", file=sys.stderr)
        return 2
    if old is None:
        print("Nothing is released yet.")
        return 0
    found = breaking_changes(old, contract)
    print("\n".join(found) if found else f"Nothing breaks callers of {old['version']}.")
    if found and may_break(old["version"], contract["version"]):
        print(f"{contract['version']} may break {old['version']}.")
        return 0
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
