"""Signatures that programs can read: what `inspect`, `help` and the completion of keywords show of a method.

An operation takes `(request=None, /, **fields)` and hands both on, which costs a call nothing. What may be
given is said by its overloads, which only type checkers read; here they become one signature, made when it is
first looked at.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import update_wrapper
from inspect import BoundArguments, Parameter, Signature, signature
from types import FunctionType, ModuleType
from typing import Any, Self, TypeVar, get_overloads

MethodT = TypeVar("MethodT", bound=Callable[..., Any])

_EMPTY = Parameter.empty


class Written(str):
    """An annotation or a default as its source has it, shown without quotes; its types are not imported."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


#: A default that is another each time, or that only the function knows.
_LEFT_OPEN = Written("...")


class CallSignature(Signature):
    """A signature that is made when it is first read; required keywords are not where a request is given."""

    __slots__ = ("_make",)
    _make: Callable[[], Signature]

    @classmethod
    def later(cls, make: Callable[[], Signature]) -> Self:
        """The signature that `make` will return."""
        waiting = cls.__new__(cls)
        waiting._make = make
        return waiting

    def __getattr__(self, name: str) -> Any:
        if name not in {"_parameters", "_return_annotation"}:  # what a `Signature` holds, once it is made
            raise AttributeError(name)
        made = self._make()
        Signature.__init__(self, list(made.parameters.values()), return_annotation=made.return_annotation)
        return getattr(self, name)

    def bind(self, /, *args: Any, **kwargs: Any) -> BoundArguments:
        """As `Signature.bind`, which is how `unittest.mock` and others check calls."""
        found = self.bind_partial(*args, **kwargs)
        return found if found.arguments.get("request") is not None else super().bind(*args, **kwargs)


def signed(method: MethodT) -> MethodT:
    """The method, with the signature that its overloads and its `**options: Unpack[…]` say."""

    def make() -> Signature:
        forms = get_overloads(method) or (_bare(method),)
        return _merged([_expanded(form, sys.modules[method.__module__]) for form in forms])

    return _showing(method, make)


def like(method: Callable[..., Any], other: MethodT, returned: Callable[[str], str]) -> MethodT:
    """The other method, shown with the name, text and parameters of `method`, and with what it returns."""

    def make() -> Signature:
        found = signature(method)
        return found.replace(return_annotation=Written(returned(found.return_annotation)))

    update_wrapper(other, method)
    del vars(other)["__wrapped__"]  # whose source would be shown as this one's
    return _showing(other, make)


def _showing(method: MethodT, make: Callable[[], Signature]) -> MethodT:
    vars(method)["__signature__"] = CallSignature.later(make)
    return method


def _bare(method: Any) -> FunctionType:
    """A function like the method, which shows nothing but its own signature."""
    bare = FunctionType(method.__code__, method.__globals__, argdefs=method.__defaults__)
    bare.__annotations__, bare.__kwdefaults__ = method.__annotations__, method.__kwdefaults__
    return bare


def _expanded(form: Callable[..., Any], module: ModuleType) -> Signature:
    """The signature of a form, with the keywords of a `TypedDict` in the place of the mapping of them."""
    found = signature(form)
    parameters: list[Parameter] = []
    for parameter in found.parameters.values():
        if parameter.kind is Parameter.VAR_KEYWORD and "Unpack[" in str(parameter.annotation):
            kind = parameter.annotation.removeprefix("Unpack[").removesuffix("]")
            parameters += _members(getattr(module, kind))
        else:
            default = _LEFT_OPEN if parameter.default is ... else parameter.default
            parameters.append(parameter.replace(annotation=_written(parameter.annotation), default=default))
    return found.replace(parameters=parameters, return_annotation=_written(found.return_annotation))


def _members(options: Any) -> Iterator[Parameter]:
    """Its keywords; of those that may be left out only their function knows the defaults."""
    for name, annotation in options.__annotations__.items():
        text: str = getattr(annotation, "__forward_arg__", annotation)
        needed = text.startswith("Required[")
        yield Parameter(
            name,
            Parameter.KEYWORD_ONLY,
            default=_EMPTY if needed else _LEFT_OPEN,
            annotation=Written(text.removeprefix("Required[").removesuffix("]") if needed else text),
        )


def _merged(forms: Sequence[Signature]) -> Signature:
    """One signature for all forms of a call."""
    if len(forms) == 1:
        return forms[0]
    # In the order of the form that has most.
    names = dict.fromkeys(name for form in sorted(forms, key=_size, reverse=True) for name in form.parameters)
    found = [[form.parameters[name] for form in forms if name in form.parameters] for name in names]
    merged = [_parameter(same, everywhere=len(same) == len(forms)) for same in found]
    returned = _union([form.return_annotation for form in forms])
    return Signature(sorted(merged, key=lambda p: p.kind), return_annotation=returned)


def _size(form: Signature) -> int:
    return len(form.parameters)


def _parameter(same: Sequence[Parameter], *, everywhere: bool) -> Parameter:
    """A parameter of several forms: by position it may be left out where one of them does not have it."""
    default = next((p.default for p in same if p.default is not _EMPTY), _EMPTY)
    annotations = [p.annotation for p in same]
    if same[0].kind is Parameter.POSITIONAL_ONLY and not everywhere:
        default, annotations = None, [*annotations, Written("None")]
    return same[0].replace(default=default, annotation=_union(annotations))


def _union(annotations: Sequence[Any]) -> Any:
    each = list(dict.fromkeys(annotations))
    return each[0] if len(each) == 1 else Written(" | ".join(each))


def _written(annotation: Any) -> Any:
    return Written(annotation) if isinstance(annotation, str) else annotation
