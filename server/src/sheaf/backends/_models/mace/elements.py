"""MACE's layers with weights by element: atoms of one element share a product with its weights.

The library multiplies for each atom the weights of every element by nothing or one, and its tensors by what
is left.
"""

from __future__ import annotations

from itertools import combinations_with_replacement, permutations, product
from math import prod
from typing import Any, cast

import torch
from torch.autograd import function as _function

from sheaf.backends._models.mace.library import mace

_torch: Any = torch
_autograd: Any = _function
_o3: Any = mace("e3nn.o3")
_contraction: Any = mace("mace.modules.symmetric_contraction")


class ElementLinear(torch.nn.Module):
    """A linear layer for each element.

    Args:
        product: the library's tensor product of features with one-hot elements.
    """

    def __init__(self, product: Any) -> None:
        super().__init__()
        self._in, self._at = list(product.irreps_in1), product.irreps_in1.slices()
        self._out = list(product.irreps_out)
        self._paths = list(product.instructions)
        weights = _torch.split(product.weight.detach(), [prod(path.path_shape) for path in self._paths])
        for i, (path, weight) in enumerate(zip(self._paths, weights, strict=True)):
            # The coupling of l with 0 is the identity over the root of the components.
            scale = path.path_weight / self._in[path.i_in1].ir.dim ** 0.5
            by_element = weight.view(path.path_shape).transpose(0, 1).contiguous() * scale
            self.register_buffer(f"weight_{i}", by_element, persistent=False)

    @staticmethod
    def fits(product: Any) -> bool:
        """Whether it is the library's, of features with elements."""
        if not isinstance(product, _o3.FullyConnectedTensorProduct) or not product.internal_weights:
            return False
        elements = product.irreps_in2
        return (
            len(elements) == 1
            and elements[0].ir == _o3.Irrep("0e")
            and all(path.connection_mode == "uvw" and path.has_weight for path in product.instructions)
        )

    def forward(self, features: torch.Tensor, elements: torch.Tensor) -> torch.Tensor:
        """Shape (n_atoms, dimension of the output irreps), from features and one-hot elements."""
        order, back, present, counts = _by_element(elements)
        parts = _torch.split(features.index_select(0, order), counts)
        found = [self._multiply(x, element) for x, element in zip(parts, present, strict=True)]
        return torch.cat(found).index_select(0, back)

    def _multiply(self, features: torch.Tensor, element: int) -> torch.Tensor:
        sums = [features.new_zeros(len(features), irrep.mul, irrep.ir.dim) for irrep in self._out]
        for i, path in enumerate(self._paths):
            irrep, at = self._in[path.i_in1], self._at[path.i_in1]
            x = features[:, at].reshape(len(features), irrep.mul, irrep.ir.dim)
            weight = getattr(self, f"weight_{i}")[element]
            sums[path.i_out] = sums[path.i_out] + (x.transpose(1, 2) @ weight).transpose(1, 2)
        return torch.cat([part.flatten(1) for part in sums], dim=1)


def _by_element(elements: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, list[int], list[int]]:
    """The order that sorts atoms by element, the order back, and which elements there are, each how often."""
    element, order = torch.sort(elements.argmax(dim=1), stable=True)
    present, counts = _torch.unique_consecutive(element, return_counts=True)
    return order, torch.argsort(order), present.tolist(), counts.tolist()


class SymmetricContraction(torch.nn.Module):
    """Polynomials in the features of each atom, with coefficients by element and channel.

    A form of degree d whose tensor T is the same under every exchange of its factors has the value
    `T(x, …, x)` and the gradient `d T(·, x, …, x)`: the one product gives both.

    Args:
        contractions: the library's.
    """

    def __init__(self, contractions: Any) -> None:
        super().__init__()
        first = contractions.contractions[0]
        self._degree = first.correlation
        n_features = first.coupling_irreps.dim
        self._monomials = [
            list(combinations_with_replacement(range(n_features), degree)) for degree in range(self._degree)
        ]
        self._outputs = len(contractions.contractions)
        self._components = [
            contraction.U_tensors(1).numel() // n_features // contraction.U_tensors(1).shape[-1]
            for contraction in contractions.contractions
        ]
        for out, contraction in enumerate(contractions.contractions):
            weights = [*reversed(list(contraction.weights)), contraction.weights_max]
            for i, weight in enumerate(weights):
                tensor = contraction.U_tensors(i + 1)
                # An output of one component has no axis for it.
                tensor = tensor.reshape(-1, *[n_features] * (i + 1), tensor.shape[-1])
                self.register_buffer(f"tensor_{out}_{i}", _fold(tensor, self._monomials[i]), persistent=False)
                self.register_buffer(f"weight_{out}_{i}", weight.detach(), persistent=False)
        for i in range(2, self._degree):
            shorter = {monomial: at for at, monomial in enumerate(self._monomials[i - 1])}
            pairs = [[shorter[monomial[:-1]], monomial[-1]] for monomial in self._monomials[i]]
            index = torch.tensor(pairs, device=first.weights_max.device).T.contiguous()
            self.register_buffer(f"factors_{i}", index, persistent=False)

    @staticmethod
    def fits(contractions: Any) -> bool:
        """Whether these are the library's own, of one degree for all outputs."""
        if not isinstance(contractions, _contraction.SymmetricContraction):
            return False
        return len({contraction.correlation for contraction in contractions.contractions}) == 1

    def forward(self, features: torch.Tensor, elements: torch.Tensor) -> torch.Tensor:
        """Products, shape (n_atoms, sum of channels and components of all outputs).

        Args:
            features: shape (n_atoms, n_channels, n_features).
            elements: one-hot, shape (n_atoms, n_elements).
        """
        order, back, present, counts = _by_element(elements)
        parts = _torch.split(features.index_select(0, order).permute(1, 2, 0), counts, dim=2)
        multiply = cast("Any", _Polynomials).apply
        found = [multiply(x.contiguous(), self, element) for x, element in zip(parts, present, strict=True)]
        joined = torch.cat(found, dim=2).permute(2, 0, 1).index_select(0, back)
        return torch.cat([part.flatten(1) for part in _torch.split(joined, self._components, dim=2)], dim=1)

    def slopes(self, features: torch.Tensor, element: int) -> list[torch.Tensor]:
        """Of each degree from 1, what multiplies each feature of atoms of one element.

        Takes features of shape (n_channels, n_features, n_atoms), and gives the shape (n_channels, components
        of all outputs, n_features, n_atoms), the last 1 for degree 1.
        """
        n_channels, n_features, _ = features.shape
        powers = torch.ones_like(features[:, :1, :1])
        found: list[torch.Tensor] = []
        for i in range(self._degree):
            if i == 1:
                powers = features
            elif i > 1:
                shorter, last = getattr(self, f"factors_{i}")
                powers = powers.index_select(1, shorter) * features.index_select(1, last)
            rows = torch.cat([self._coefficients(out, i, element) for out in range(self._outputs)], dim=1)
            found.append(torch.bmm(rows, powers).view(n_channels, -1, n_features, powers.shape[2]))
        return found

    def _coefficients(self, out: int, i: int, element: int) -> torch.Tensor:
        """Shape (n_channels, components of the output * n_features, n_monomials)."""
        weight: torch.Tensor = getattr(self, f"weight_{out}_{i}")[element]
        tensor: torch.Tensor = getattr(self, f"tensor_{out}_{i}")
        return (weight.T @ tensor).view(weight.shape[1], -1, len(self._monomials[i]))


class _Polynomials(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: torch.Tensor, layer: SymmetricContraction, element: int) -> torch.Tensor:
        slopes = layer.slopes(features, element)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(_sum([degree * slope for degree, slope in enumerate(slopes, 1)]))
        return (_sum(slopes) * features[:, None]).sum(dim=2)

    @staticmethod
    @_autograd.once_differentiable  # type: ignore[untyped-decorator]  # it has no types
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return (slope * gradients[0][:, :, None]).sum(dim=1), None, None


def _sum(terms: list[torch.Tensor]) -> torch.Tensor:
    # The first is of degree 1, one for all atoms.
    total = terms[-1]
    for term in reversed(terms[:-1]):
        total = total + term
    return total


def _fold(tensor: torch.Tensor, monomials: list[tuple[int, ...]]) -> torch.Tensor:
    """The mean under every exchange of factors, and of all but the first the entries of one monomial summed.

    Takes the shape (n_components, n_features, …, n_features, n_weights) and gives (n_weights, n_components *
    n_features * n_monomials).
    """
    n_features, n_weights = tensor.shape[1], tensor.shape[-1]
    exchanges = list(permutations(range(1, tensor.ndim - 1)))
    mean = _sum([tensor.permute(0, *exchange, -1) for exchange in exchanges]) / len(exchanges)
    place = {monomial: i for i, monomial in enumerate(monomials)}
    each = product(range(n_features), repeat=tensor.ndim - 3)
    index = torch.tensor([place[tuple(sorted(factors))] for factors in each], device=tensor.device)
    folded = mean.new_zeros(len(tensor), n_features, len(monomials), n_weights)
    folded.index_add_(2, index, mean.reshape(len(tensor), n_features, -1, n_weights))
    return folded.reshape(-1, n_weights).T.contiguous()
