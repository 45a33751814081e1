"""Reads the contracts' fields out of the generated modules, so that no signature can differ from them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from codegen.binary import MEDIA_TYPES
from codegen.bundle import Bundle, SchemaError
from codegen.inputs import Inputs

#: What people hold, in the words of `sheaf_client._inputs`.
INPUTS = (
    *("ArrayLike", "AudioFileLike", "ImageFileLike"),
    *("GridLike", "MoleculesLike", "SequencesLike", "StructureLike"),
)
#: Modules of the names that come from no schema.
_ELSEWHERE = {
    **dict.fromkeys(INPUTS, "sheaf_client._inputs"),
    "UUID": "uuid",
    **dict.fromkeys(MEDIA_TYPES.values(), "sheaf_client._media"),
}


@dataclass(frozen=True)
class Field:
    """One keyword: its type and default as source; no default where it is required."""

    name: str
    type: str
    default: str | None
    doc: str


def _docstring(statement: ast.stmt | None) -> str:
    """The text of a field's docstring, which is the statement after the field."""
    match statement:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return " ".join(text.split())
        case _:
            return ""


class Contracts:
    """The generated contract modules as source, with the types of their fields widened by `inputs`."""

    def __init__(self, bundle: Bundle, folder: Path, inputs: Inputs) -> None:
        self.bundle = bundle
        self.inputs = inputs
        self.classes: dict[str, ast.ClassDef] = {}
        for path in folder.glob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            self.classes |= {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}

    def fields(self, name: str) -> list[Field]:
        """The fields of a contract, those of its base first."""
        node = self.classes[name]
        found = [
            f
            for base in node.bases
            if isinstance(base, ast.Name) and base.id in self.classes
            for f in self.fields(base.id)
        ]
        for statement, after in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                name = statement.target.id
                kind = self.inputs.accepted(ast.unparse(statement.annotation))
                found = [f for f in found if f.name != name]
                found.append(Field(name, kind, self._default(statement.value), _docstring(after)))
        return found

    def imports(self, expressions: Iterable[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Module → names that these type expressions mention."""
        words = {word for text in expressions for word in re.findall(r"\b[A-Z]\w+\b", text)}
        found: dict[str, set[str]] = {}
        for word in words:
            found.setdefault(self._module(word), set()).add(word)
        found.pop("", None)
        return tuple((module, tuple(sorted(found[module]))) for module in sorted(found))

    def _module(self, word: str) -> str:
        if word in _ELSEWHERE:
            return _ELSEWHERE[word]
        if word in self.bundle.schemas:
            schema = self.bundle.schemas[word]
            return f"sheaf_client.contracts.{schema.module if word in self.classes else 'types'}"
        if word.endswith("Like") and word.removesuffix("Like") in self.bundle.schemas:
            body = self.bundle.schemas[word.removesuffix("Like")].body
            if "x-sheaf-type" in body:
                return "sheaf_client._wire"
            return f"sheaf_client.params.{'_enums' if 'enum' in body else '_types'}"
        if word.endswith("Params"):
            return f"sheaf_client.params.{self.bundle.schemas[word.removesuffix('Params')].module}"
        return ""

    def _default(self, value: ast.expr | None) -> str | None:
        """The default as source, None where the field is required."""
        match value:
            case None:
                return None
            case ast.Call(func=ast.Name(id="Field"), keywords=keywords):
                given = {keyword.arg: keyword.value for keyword in keywords}
                match given.get("default_factory"):
                    case None:
                        pass
                    case ast.Lambda(body=made):
                        return ast.unparse(made)
                    case _:  # something else each time
                        return "..."
                return ast.unparse(given["default"]) if "default" in given else None
            case ast.Attribute(value=ast.Name(id=enum), attr=member):
                return self._enum_value(enum, member)
            case _:
                return ast.unparse(value)

    def _enum_value(self, enum: str, member: str) -> str:
        for statement in self.classes[enum].body:
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == member:
                return ast.unparse(statement.value)
        raise SchemaError(f"{enum} has no member {member}")
