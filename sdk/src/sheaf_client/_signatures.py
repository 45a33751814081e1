"""Signatures that programs can read: what `inspect`, `help` and the completion of keywords show of a method.

An operation takes `(request=None, /, **fields)` and hands both on, which costs a call nothing. What may be
given is said by its overloads, which only type checkers read; here they become one signature, when the class
is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import update_wrapper
from inspect import BoundArguments, Parameter, Signature, signature
from typing import Any, TypeVar, get_overloads

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
    """That of an operation: its required keywords are not required where a request is given."""

    def bind(self, /, *args: Any, **kwargs: Any) -> BoundArguments:
        """As `Signature.bind`, which is how `unittest.mock` and others check calls."""
        found = self.bind_partial(*args, **kwargs)
        return found if found.arguments.get("request") is not None else super().bind(*args, **kwargs)


def signed(method: MethodT) -> MethodT:
    """The method, with the signature that its overloads and its `**options: Unpack[…]` say."""
    forms = [_expanded(method, form) for form in get_overloads(method) or (method,)]
    return _with_signature(method, _merged(forms))


def like(method: Callable[..., Any], other: MethodT, returned: Callable[[str], str]) -> MethodT:
    """The other method, shown with the name, text and parameters of `method`, and with what it returns."""
    update_wrapper(other, method)
    del vars(other)["__wrapped__"]  # which would be shown in its place
    of_method = signature(method)
    answer = Written(returned(of_method.return_annotation))
    return _with_signature(other, of_method.replace(return_annotation=answer))


def _with_signature(method: MethodT, shown: Signature) -> MethodT:
    vars(method)["__signature__"] = shown
    return method


def _expanded(method: Callable[..., Any], form: Callable[..., Any]) -> Signature:
    """The signature of a form, with the keywords of a `TypedDict` in the place of the mapping of them."""
    found = signature(form)
    parameters: list[Parameter] = []
    for parameter in found.parameters.values():
        if parameter.kind is Parameter.VAR_KEYWORD and "Unpack[" in str(parameter.annotation):
            parameters += _members(_named_in(method, parameter.annotation))
        else:
            default = _LEFT_OPEN if parameter.default is ... else parameter.default
            parameters.append(parameter.replace(annotation=_written(parameter.annotation), default=default))
    return found.replace(parameters=parameters, return_annotation=_written(found.return_annotation))


def _named_in(method: Callable[..., Any], annotation: str) -> Any:
    """The `TypedDict` that `Unpack[…]` names, in the module of the method."""
    return method.__globals__[annotation.removeprefix("Unpack[").removesuffix("]")]


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
    return CallSignature(sorted(merged, key=lambda p: p.kind), return_annotation=returned)


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
