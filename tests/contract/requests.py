"""Requests that a contract accepts, drawn by hypothesis from the published document and the contract's rules.

Members are drawn one by one and then brought into accord with each rule, since hardly any would agree by
chance; what is left to disagree is filtered.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from pydantic import ValidationError

from sheaf_client._base import Model
from sheaf_client._msgpack import holders
from sheaf_client._operation import Operation
from sheaf_client.contracts.base import BaseRequest
from tests.contract.values import JSON, SPARE, WANTED, Builder, T, resolved, schemas, sizes


class _Drawn:
    """Choices drawn by hypothesis."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def integer(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))

    def number(self, low: float, high: float) -> float:
        return self._draw(st.floats(low, high))

    def text(self, shortest: int, longest: int, pattern: str | None) -> str:
        if pattern is None:
            return self._draw(st.text(min_size=shortest, max_size=longest))
        whole = pattern.startswith("^") and pattern.endswith("$")
        texts = st.from_regex(pattern, fullmatch=whole)
        return self._draw(texts.filter(lambda text: shortest <= len(text) <= longest))

    def pick(self, options: Sequence[T]) -> T:
        return self._draw(st.sampled_from(options))


def bodies(operation: Operation[Any, Any], model_name: str) -> st.SearchStrategy[JSON]:
    """Bodies of requests for `model_name`, nearly all of them valid."""
    repair = repair_of(operation.request)

    @st.composite
    def drawn(draw: st.DrawFn) -> JSON:
        builder = Builder(_Drawn(draw))
        return builder.body(operation.request.__name__, {"model_name": model_name}, repair)

    return drawn()


def repair_of(contract: type[Model]) -> Callable[[Builder, JSON, JSON], None]:
    """What brings a body of the contract into accord with its rules."""
    rules = rules_of(contract)
    parts = {name: (part.__name__, repair_of(part)) for name, part in holders(contract).items()}

    def repair(builder: Builder, schema: JSON, body: JSON) -> None:
        for name, (part, repair_part) in parts.items():
            for item in body.get(name) or ():
                repair_part(builder, schemas()[part], item)
        accord = _Accord(builder, schema, body)
        for _ in range(2):  # a later rule may undo an earlier one
            for rule in rules:
                getattr(accord, rule["rule"])(rule)

    return repair


def requests(operation: Operation[Any, Any], model_name: str) -> st.SearchStrategy[BaseRequest]:
    """Valid requests of an operation's contract."""
    read = bodies(operation, model_name).map(lambda body: _attempt(operation.request, body))
    return read.filter(lambda request: request is not None)


def rules_of(contract: type[Model]) -> list[JSON]:
    """The cross-field rules of a contract, as the schema has them."""
    extra: Any = contract.model_config.get("json_schema_extra", {})
    return list(extra.get("x-sheaf-rules", ()))


def _attempt(contract: type[BaseRequest], body: JSON) -> BaseRequest | None:
    try:
        return contract.model_validate_json(json.dumps(body), strict=True, by_name=False)
    except ValidationError:
        return None


class _Accord:
    """Changes a body so that it keeps a rule: one method for each rule, by its name."""

    def __init__(self, builder: Builder, schema: JSON, body: JSON) -> None:
        self._builder, self._schema, self._body = builder, schema, body
        self._pick = builder.source.pick
        self._banned: set[str] = set()

    def exactly_one_of(self, rule: JSON) -> None:
        if "unless" in rule and self._body.get(rule["unless"]):
            return
        kept = self._pick([f for f in rule["fields"] if f not in self._banned])
        self._ban(set(rule["fields"]) - {kept})
        self._need(kept)

    def at_most_one_of(self, rule: JSON) -> None:
        given = [f for f in rule["fields"] if self._given(f)]
        self._ban(set(given[1:]))

    def at_least_one_of(self, rule: JSON) -> None:
        if not any(map(self._given, rule["fields"])):
            self._need(self._pick(rule["fields"]))

    def requires(self, rule: JSON) -> None:
        if self._given(rule["field"]):
            for need in rule["needs"]:
                if not self._need(need):
                    self._body.pop(rule["field"])

    def not_true_beside(self, rule: JSON) -> None:
        if self._given(rule["other"]):
            self._body.pop(rule["field"], None)

    def needed_when_true(self, rule: JSON) -> None:
        if "unless" in rule and self._given(rule["unless"]):
            return
        flag = self._body.get(rule["flag"], False)
        needed = any(flag) if isinstance(flag, list) else flag
        if needed and not self._need(rule["field"]):
            self._body.pop(rule["flag"])

    def value_requires(self, rule: JSON) -> None:
        if self._body.get(rule["field"]) == rule["value"]:
            self._body[rule["needs"]] = rule["equals"]

    def numbers_when(self, rule: JSON) -> None:
        if self._body.get(rule["when"]) == rule["equals"]:
            self._change(
                rule["field"], lambda items, _: [i if isinstance(i, int | float) else 1.5 for i in items]
            )

    def some_filled(self, rule: JSON) -> None:
        """Mappings are never drawn empty."""

    def filled_with(self, rule: JSON) -> None:
        if self._body[rule["of"]]:
            items = self._body[rule["field"]]
            self._body[rule["field"]] = self._builder.items(
                self._schema["properties"][rule["field"]], max(1, len(items)), items
            )

    def some_true(self, rule: JSON) -> None:
        self._body[self._pick(rule["fields"])] = True

    def rectangular(self, rule: JSON) -> None:
        def even(rows: Any, item: JSON) -> Any:
            if not any(isinstance(row, list) for row in rows):
                return rows
            rows = [row for row in rows if isinstance(row, list)]
            return [self._builder.items(self._row(rule["field"]), len(rows[0]), row) for row in rows]

        self._change(rule["field"], even)

    def same_width(self, rule: JSON) -> None:
        if self._given(rule["as"]):
            width, row = len(self._body[rule["as"]][0]), self._row(rule["field"])
            self._change(
                rule["field"], lambda rows, _: [self._builder.items(row, width, kept) for kept in rows]
            )

    def length_is_width(self, rule: JSON) -> None:
        if self._given(rule["of"]):
            self._resize(rule["field"], _width(self._body[rule["of"]]))

    def index_within(self, rule: JSON) -> None:
        if self._given(rule["of"]) and self._given(rule["field"]):
            self._body[rule["field"]] %= _width(self._body[rule["of"]])

    def items_within(self, rule: JSON) -> None:
        if self._given(rule["of"]):
            width = _width(self._body[rule["of"]])
            self._change(rule["field"], lambda items, _: sorted({item % width for item in items}))

    def some_present(self, rule: JSON) -> None:
        def fill(items: Any, _: JSON) -> Any:
            first = [1.0, *items[0][1:]] if isinstance(items[0], list) else 1.0
            return [first, *items[1:]]

        self._change(rule["field"], fill)

    def unique(self, rule: JSON) -> None:
        self._change(rule["field"], lambda items, _: [x for i, x in enumerate(items) if x not in items[:i]])

    def unique_by(self, rule: JSON) -> None:
        self._change(
            rule["field"], lambda items, _: list({item[rule["member"]]: item for item in items}.values())
        )

    def increasing(self, rule: JSON) -> None:
        def spread(items: Any, _: JSON) -> Any:
            first = datetime.fromisoformat(items[0])
            return [(first + timedelta(hours=i)).isoformat() for i in range(len(items))]

        self._change(rule["field"], spread)

    def same_length(self, rule: JSON) -> None:
        if self._given(rule["as"]):
            self._resize(rule["field"], len(self._body[rule["as"]]))
        elif rule["as"] not in self._body and (default := self._default(rule["as"])) is not None:
            self._resize(rule["field"], len(default))

    def length_equals(self, rule: JSON) -> None:
        count = self._body.get(rule["value"], self._default(rule["value"]))
        if count > 2 * SPARE:
            count = self._body[rule["value"]] = count % SPARE + 1
        self._resize(rule["field"], count)

    def keys_within(self, rule: JSON) -> None:
        if not self._given(rule["field"]):
            return
        if not self._given(rule["of"]):
            self._body.pop(rule["field"])
            return
        pairs = zip(self._body[rule["of"]], self._body[rule["field"]].values(), strict=False)
        self._body[rule["field"]] = dict(pairs)

    def same_keys(self, rule: JSON) -> None:
        values = list(self._body[rule["field"]].values())
        self._body[rule["field"]] = {
            key: values[i % len(values)] for i, key in enumerate(self._body[rule["as"]])
        }

    def boxes(self, rule: JSON) -> None:
        def upright(box: list[float]) -> list[float]:
            x, y = sorted(box[::2]), sorted(box[1::2])
            return [x[0], y[0], x[1] if x[1] > x[0] else x[0] + 1, y[1] if y[1] > y[0] else y[0] + 1]

        self._change(
            rule["field"],
            lambda value, _: [upright(b) for b in value] if isinstance(value[0], list) else upright(value),
        )

    def _given(self, field: str) -> bool:
        return self._body.get(field) is not None

    def _default(self, field: str) -> Any:
        return self._schema["properties"][field].get("default")

    def _ban(self, fields: set[str]) -> None:
        self._banned |= fields
        for field in fields:
            self._body.pop(field, None)

    def _need(self, field: str) -> bool:
        """Give the field a value where it has none; False where another rule forbids it."""
        if field in self._banned:
            return False
        if not self._given(field) and field in sizes(self._schema):
            self._body[field] = self._builder.member(self._schema, field)
        elif not self._given(field):
            member = resolved(self._schema["properties"][field])
            kinds = member.get("type")
            kind = next(k for k in kinds if k != "null") if isinstance(kinds, list) else kinds
            tensor = "x-sheaf-tensor" in member
            self._body[field] = WANTED if tensor else self._builder.value({**member, "type": kind})
        return True

    def _row(self, field: str) -> JSON:
        """The schema of the rows of a table."""
        return next(row for row in self._branches(field) if "items" in row)

    def _branches(self, field: str) -> list[JSON]:
        found: list[JSON] = []
        for branch in branches(self._schema["properties"][field]):
            if "items" in branch:
                found += branches(branch["items"])
        return found

    def _change(self, path: str, change: Callable[[Any, JSON], Any]) -> None:
        """Put `change` of its value in the place of a field, or of each member of a mapping (`field.*`)."""
        field, star, _ = path.partition(".*")
        if not self._given(field):
            return
        schema = self._schema["properties"][field]
        if not star:
            self._body[field] = change(self._body[field], schema)
        else:
            inner = next(b for b in branches(schema) if "additionalProperties" in b)["additionalProperties"]
            self._body[field] = {k: change(v, inner) for k, v in self._body[field].items()}

    def _resize(self, path: str, count: int) -> None:
        def resize(items: Any, schema: JSON) -> Any:
            fitting = [b for b in branches(schema) if "items" in b]
            kind = self._pick(fitting) if len(fitting) > 1 else fitting[0]
            keep = items if len(fitting) == 1 or len(items) >= count else []
            return self._builder.items(kind, count, keep)

        self._change(path, resize)


def branches(schema: JSON) -> list[JSON]:
    """The schema's own form, or each of its branches."""
    if "anyOf" in schema:
        return [leaf for branch in schema["anyOf"] for leaf in branches(branch)]
    if "$ref" in schema:
        return branches(resolved_ref(schema))
    return [schema]


def resolved_ref(schema: JSON) -> JSON:
    """What a reference stands for."""
    return schemas()[schema["$ref"].rpartition("/")[2]]


def _width(rows: Any) -> int:
    return len(rows[0]) if isinstance(rows[0], list) else 1
