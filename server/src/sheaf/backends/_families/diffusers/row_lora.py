"""Plain LoRA by row: each row of one forward pass gets its own adapters at its own weights.

A layer W with factors A and B becomes W x + scale * B A x, for the rows that have the adapter. The factors
are added by hooks that stay for one forward pass, so the model itself is never changed: a pass without
adapters runs what was loaded, and nothing is left for the next one.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from sheaf.lora import ActiveAdapters


@dataclass(frozen=True, slots=True)
class Factors:
    """What one adapter adds to one layer: `scale * up(down(x))`.

    Attributes:
        down: Linear layer or convolution into the rank's space, without a bias.
        up: Linear layer or convolution back out of it.
        scale: The adapter's own strength, alpha / rank or as its file says.
    """

    down: Any
    up: Any
    scale: float

    @property
    def size(self) -> int:
        """Bytes that the factors take."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors())

    def tensors(self) -> list[torch.nn.Parameter]:
        """The weights of both."""
        return [*self.down.parameters(), *self.up.parameters()]

    def to(self, device: torch.device) -> None:
        """Move the factors to where their layer computes."""
        if self.down.weight.device != device:
            self.down.to(device)
            self.up.to(device)


#: What an adapter adds to the layers of one network.
Layers = Mapping[torch.nn.Module, Factors]

#: One row's factors at one layer, and their strength: the adapter's scale times the row's weight.
Member = tuple[int, Factors, float]


class RowPass:
    """The adapters of every row of a batch, sorted for its forward passes, and what their layers share.

    Args:
        rows: The adapters of each row, shape (batch,). Where `any_size`, one entry that holds for all rows.
        layers: By adapter the layers that it changes.
    """

    def __init__(
        self, rows: Sequence[ActiveAdapters], layers: Mapping[str, Layers], *, any_size: bool = False
    ) -> None:
        self._count = None if any_size else len(rows)
        self._places: dict[tuple[int, ...], slice | torch.Tensor] = {}
        self._strengths: dict[tuple[float, ...], torch.Tensor] = {}
        by_layer: dict[torch.nn.Module, list[Member]] = {}
        for row, active in enumerate(rows):
            for name, weight in active:
                for layer, factors in layers[name].items() if weight else ():
                    by_layer.setdefault(layer, []).append((row, factors, weight * factors.scale))
        self._groups = {layer: list(_alike(members)) for layer, members in by_layer.items()}

    @contextmanager
    def applied(self) -> Generator[None]:
        """Add the factors to what their layers give while it is open."""
        handles: list[Any] = []
        try:
            for layer, groups in self._groups.items():
                handles.append(layer.register_forward_hook(partial(self._add_all, groups)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _add_all(
        self, groups: list[list[Member]], layer: torch.nn.Module, args: tuple[Any, ...], output: torch.Tensor
    ) -> None:
        x: torch.Tensor = args[0]
        if self._count is not None and len(x) != self._count:
            raise RuntimeError(f"{type(layer).__name__} saw {len(x)} rows, and the batch has {self._count}")
        for members in groups:
            for _, factors, _ in members:
                factors.to(x.device)
            self._add(members, x, output)

    def _add(self, members: list[Member], x: torch.Tensor, output: torch.Tensor) -> None:
        every = self._count is None or len(members) == self._count
        rows = None if every else self._rows(tuple(row for row, _, _ in members), x.device)
        strength = self._strength(tuple(strength for _, _, strength in members), x.device)
        first = members[0][1]
        taken = (x if rows is None else x[rows]).to(first.down.weight.dtype)
        if all(factors is first for _, factors, _ in members):
            high = first.up(_scaled(first.down(taken), strength))
        else:
            flat = taken.reshape(len(taken), -1, taken.shape[-1])
            low = torch.bmm(flat, torch.stack([factors.down.weight for _, factors, _ in members]).mT)
            high = torch.bmm(_scaled(low, strength), torch.stack([f.up.weight for _, f, _ in members]).mT)
            high = high.view(*taken.shape[:-1], -1)
        alpha = 1.0 if isinstance(strength, torch.Tensor) else strength
        if isinstance(rows, torch.Tensor):
            output.index_add_(0, rows, high.to(output.dtype), alpha=alpha)
        else:
            (output if rows is None else output[rows]).add_(high, alpha=alpha)

    def _rows(self, numbers: tuple[int, ...], device: torch.device) -> slice | torch.Tensor:
        """Neighbours as a slice, which copies nothing; the rows of most layers are the same."""
        if numbers not in self._places:
            neighbours = numbers == tuple(range(numbers[0], numbers[0] + len(numbers)))
            self._places[numbers] = (
                slice(numbers[0], numbers[-1] + 1) if neighbours else torch.tensor(numbers, device=device)
            )
        return self._places[numbers]

    def _strength(self, each: tuple[float, ...], device: torch.device) -> float | torch.Tensor:
        if len(set(each)) == 1:
            return each[0]
        if each not in self._strengths:
            self._strengths[each] = torch.tensor(each, device=device)
        return self._strengths[each]


def _scaled(low: torch.Tensor, strength: float | torch.Tensor) -> torch.Tensor:
    if not isinstance(strength, torch.Tensor):
        return low  # added once, at the end
    return low * strength.to(low.dtype).view(-1, *[1] * (low.ndim - 1))


def _alike(members: list[Member]) -> Iterator[list[Member]]:
    """Members that one product can do: those of the same factors, or linear ones of the same rank.

    A row that has several adapters is in several groups.
    """
    groups: dict[Any, list[Member]] = {}
    for member in members:
        row, factors, _ = member
        linear = isinstance(factors.down, torch.nn.Linear)
        key: Any = factors.down.weight.shape if linear else id(factors)
        while any(row == other for other, _, _ in groups.get(key, ())):
            key = key, "next"
        groups.setdefault(key, []).append(member)
    yield from groups.values()
