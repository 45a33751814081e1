"""Answers what several loops ask of one denoiser: questions of the same form share one forward.

The form is the shape behind the batch dimension, the dtype and everything else that a call carries. What has
no batch dimension (positions of tokens, say) must be equal in content to be shared. A question that is alone
goes to the denoiser as the pipeline put it.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch

from sheaf.backends._families.diffusers.seams import AdapterSeam
from sheaf.lora import ActiveAdapters


@dataclass(frozen=True)
class Question:
    """One call of the denoiser, as a pipeline makes it.

    Attributes:
        arguments: by the names in the denoiser's `forward`.
        rows: length of the batch dimension.
        adapters: what all of its rows are computed with.
        form: questions of equal forms can be stacked.
    """

    arguments: dict[str, Any]
    rows: int
    adapters: ActiveAdapters
    form: Hashable


class Asking:
    """Turns the calls of one request's pipeline into questions."""

    def __init__(self, denoiser: Any, shared: frozenset[str], adapters: ActiveAdapters) -> None:
        forward = denoiser.__class__.forward
        self._names = [name for name in inspect.signature(forward).parameters if name != "self"]
        self._shared = shared
        self._adapters = adapters
        # Positions are one tensor for all steps: its content is read once, which may wait for the device.
        self._contents: dict[int, tuple[torch.Tensor, bytes]] = {}

    def question(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Question:
        """The question that a call of the denoiser with these arguments is."""
        arguments = {**dict(zip(self._names, args, strict=False)), **kwargs}
        sample = arguments[self._names[0]]
        rows = len(sample)
        if "timestep" in arguments:
            arguments["timestep"] = _per_row(arguments["timestep"], rows, sample.device)
        form = tuple((name, self._form(name, arguments[name], rows)) for name in sorted(arguments))
        return Question(arguments, rows, self._adapters, form)

    def _form(self, name: str, value: Any, rows: int) -> Hashable:
        if isinstance(value, torch.Tensor):
            if name not in self._shared and value.ndim and value.shape[0] == rows:
                return "rows", tuple(value.shape[1:]), value.dtype
            return "same", tuple(value.shape), value.dtype, self._content(value)
        if isinstance(value, dict):
            items = cast("dict[str, Any]", value)
            return "dict", tuple((key, self._form(key, items[key], rows)) for key in sorted(items))
        if isinstance(value, list | tuple):
            return "list", tuple(self._form(name, item, rows) for item in cast("Sequence[Any]", value))
        return ("value", type(value), value) if isinstance(value, Hashable) else ("object", id(value))

    def _content(self, value: torch.Tensor) -> bytes:
        known = self._contents.get(id(value))
        if known is None:
            data = value.detach().reshape(-1).cpu().contiguous().view(torch.uint8)
            known = value, hashlib.blake2b(data.numpy().tobytes(), digest_size=16).digest()
            self._contents[id(value)] = known  # with the tensor itself: its id stays its own
        return known[1]


def _per_row(timestep: Any, rows: int, device: torch.device) -> torch.Tensor:
    """A timestep for each row: pipelines at different steps meet in one forward.

    Denoisers move a lone number to their device, and trust that several are there.
    """
    found = torch.as_tensor(timestep, device=device)
    return found.reshape(-1).expand(rows) if found.numel() == 1 else found


class StandIn:
    """Stands in the denoiser's place in one pipeline: looks like it, and asks instead of computing."""

    def __init__(self, denoiser: Any, asking: Asking, ask: Callable[[Question], Any]) -> None:
        self._denoiser, self._asking, self._ask = denoiser, asking, ask

    def __getattr__(self, name: str) -> Any:
        return getattr(self._denoiser, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._ask(self._asking.question(args, kwargs))

    def cache_context(self, name: str) -> AbstractContextManager[None]:  # noqa: ARG002
        """The denoiser's own is state on its modules, which other requests would meet between two steps."""
        return nullcontext()


def answer(denoiser: Any, questions: Sequence[Question], adapters: AdapterSeam) -> list[Any]:
    """What the denoiser gives for each question, by one forward for each form among them."""
    groups: dict[Hashable, list[int]] = {}
    for index, question in enumerate(questions):
        groups.setdefault(question.form, []).append(index)
    given: list[Any] = [None] * len(questions)
    for indices in groups.values():
        members = [questions[index] for index in indices]
        rows = [question.adapters for question in members for _ in range(question.rows)]
        # Grad mode is the thread's own, and this is not the thread that the pipeline turned it off in.
        with torch.no_grad(), adapters.rows(rows):
            output = denoiser(**_stack(members))
        for index, part in zip(indices, _split(output, [q.rows for q in members]), strict=True):
            given[index] = part
    return given


def _stack(members: Sequence[Question]) -> dict[str, Any]:
    if len(members) == 1:
        return members[0].arguments
    forms = cast("tuple[tuple[str, Any], ...]", members[0].form)
    return {name: _join(form, [member.arguments[name] for member in members]) for name, form in forms}


def _join(form: Any, values: Sequence[Any]) -> Any:
    kind = form[0]
    if kind == "rows":
        return torch.cat(tuple(values))
    if kind == "dict":
        return {key: _join(inner, [value[key] for value in values]) for key, inner in form[1]}
    if kind == "list":
        items = [_join(inner, [value[i] for value in values]) for i, inner in enumerate(form[1])]
        return type(values[0])(items)
    return values[0]


def _split(output: Any, sizes: Sequence[int]) -> list[Any]:
    if len(sizes) == 1:
        return [output]
    if isinstance(output, torch.Tensor):
        tensor: Any = output
        return list(tensor.split(list(sizes)))
    if isinstance(output, dict):  # the library's outputs with names are dicts too
        outputs: Any = cast("Any", output)
        named = {key: _split(value, sizes) for key, value in outputs.items()}
        return [
            outputs.__class__(**{key: parts[i] for key, parts in named.items()}) for i in range(len(sizes))
        ]
    columns = [_split(item, sizes) for item in cast("Sequence[Any]", output)]
    return [tuple(parts[i] for parts in columns) for i in range(len(sizes))]
