"""The two layers of MACE that take nearly all of its time, with the same sums in a cheaper order.

The library's products along the edges write the message of each edge out before they are summed at the atoms,
and its symmetric contraction multiplies its tensors by the weights of the element anew for each atom. Here edges
are summed by matrix products, and the weights of an element are multiplied once for all its atoms of a pass,
which is what makes a batch cheaper than its structures one by one.
"""

from __future__ import annotations

from itertools import combinations_with_replacement, product
from typing import Any

import torch

from sheaf.backends._mace.library import mace

_o3: Any = mace("e3nn.o3")
_contraction: Any = mace("mace.modules.symmetric_contraction")

#: Edges of one atom that are summed by one matrix product; the last of an atom's is filled up with zeros.
_BLOCK = 16


def lighten(model: Any) -> Any:
    """Replace the layers of the library's module in place, where they are of the common kind."""
    for interaction in model.interactions:
        if not hasattr(interaction, "conv_fusion") and Convolution.fits(interaction.conv_tp):
            interaction.conv_tp = Convolution(interaction.conv_tp)
            interaction.conv_fusion = True  # the library's word for one that sums over the edges itself
    for block in model.products:
        if SymmetricContraction.fits(block.symmetric_contractions):
            block.symmetric_contractions = SymmetricContraction(block.symmetric_contractions)
    return model


class Convolution(torch.nn.Module):
    """Tensor products of the senders' features with the edges' harmonics, summed at the receivers.

    Args:
        product: the library's tensor product, whose path from `l1` and `l2` to `l3` is for each edge and channel
            `weight * sum_ij w3j[i, j, k] * sender[i] * harmonic[j]`.
    """

    def __init__(self, product: Any) -> None:
        super().__init__()
        self._in1, self._in2 = list(product.irreps_in1), list(product.irreps_in2)
        self._at1, self._at2 = product.irreps_in1.slices(), product.irreps_in2.slices()
        self._paths = list(product.instructions)
        parameter = product.output_mask
        for i, path in enumerate(self._paths):
            out = product.irreps_out[path.i_out].ir.l
            couple = _o3.wigner_3j(self._in1[path.i_in1].ir.l, self._in2[path.i_in2].ir.l, out)
            self.register_buffer(
                f"couple_{i}", (couple * path.path_weight).to(parameter.device), persistent=False
            )

    @staticmethod
    def fits(product: Any) -> bool:
        """Whether each path has weights of its own, one harmonic, and a place of its own in the message."""
        if not isinstance(product, _o3.TensorProduct) or product.internal_weights or product.shared_weights:
            return False
        paths = product.instructions
        return all(
            path.connection_mode == "uvu" and path.has_weight and product.irreps_in2[path.i_in2].mul == 1
            for path in paths
        ) and [path.i_out for path in paths] == list(range(len(product.irreps_out)))

    def forward(
        self, features: torch.Tensor, harmonics: torch.Tensor, weights: torch.Tensor, edges: torch.Tensor
    ) -> torch.Tensor:
        """Messages, shape (n_atoms, sum of channels and components of all paths).

        Args:
            features: of atoms, shape (n_atoms, dimension of the first irreps).
            harmonics: of edges, shape (n_edges, dimension of the second).
            weights: of edges, shape (n_edges, sum of channels of all paths).
            edges: senders and receivers, shape (2, n_edges).
        """
        n_atoms = len(features)
        edge, filled, owner = _blocks(edges[1], n_atoms)
        weights, senders = weights[edge], edges[0][edge]
        # Zeros in the harmonics are zeros in all that the filling would add.
        harmonics = harmonics[edge] * filled[:, None]
        sent = [
            features[:, at].reshape(n_atoms, irrep.mul, irrep.ir.dim).transpose(1, 2)[senders]
            for irrep, at in zip(self._in1, self._at1, strict=True)
        ]
        messages: list[torch.Tensor] = []
        start = 0
        for i, path in enumerate(self._paths):
            channels = self._in1[path.i_in1].mul
            weight = weights[:, None, start : start + channels]
            start += channels
            couple = getattr(self, f"couple_{i}")
            turned = torch.einsum("ej,ijk->eik", harmonics[:, self._at2[path.i_in2]], couple)
            left = turned.reshape(len(owner), -1, turned.shape[2]).transpose(1, 2)
            right = (weight * sent[path.i_in1]).reshape(len(owner), -1, channels)
            blocks = torch.bmm(left, right)
            summed = blocks.new_zeros(n_atoms, *blocks.shape[1:]).index_add(0, owner, blocks)
            messages.append(summed.transpose(1, 2).reshape(n_atoms, -1))
        return torch.cat(messages, dim=1)


def _blocks(receivers: torch.Tensor, n_atoms: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Edges sorted by the atom that receives, each atom's filled up to whole blocks.

    Returns:
        Index of the edge in each place, any where nothing is; whether there is one, both of shape
        (n_blocks * _BLOCK,); and the atom of each block, shape (n_blocks,).
    """
    order = torch.argsort(receivers, stable=True)
    counts = torch.bincount(receivers, minlength=n_atoms)
    blocks = (counts + _BLOCK - 1) // _BLOCK
    atoms = torch.arange(n_atoms, device=receivers.device)
    owner = torch.repeat_interleave(atoms, blocks)
    first_block, first_edge = blocks.cumsum(0) - blocks, counts.cumsum(0) - counts
    places = torch.arange(len(owner) * _BLOCK, device=receivers.device)
    within = places - (first_block[owner] * _BLOCK).repeat_interleave(_BLOCK)
    filled = within < counts[owner].repeat_interleave(_BLOCK)
    edge = first_edge[owner].repeat_interleave(_BLOCK) + within.where(filled, within.new_zeros(()))
    return order[edge], filled, owner


class SymmetricContraction(torch.nn.Module):
    """Polynomials in the features of each atom, with coefficients by element and channel.

    Args:
        contractions: the library's.
    """

    def __init__(self, contractions: Any) -> None:
        super().__init__()
        self._degrees = contractions.contractions[0].correlation
        n_features = contractions.contractions[0].coupling_irreps.dim
        self._monomials = [
            list(combinations_with_replacement(range(n_features), degree))
            for degree in range(self._degrees)
        ]
        self._outputs = len(contractions.contractions)
        for out, contraction in enumerate(contractions.contractions):
            weights = [*reversed(list(contraction.weights)), contraction.weights_max]
            for degree, weight in enumerate(weights):
                tensor = contraction.U_tensors(degree + 1)
                # One output component has no axis of its own.
                tensor = tensor.reshape(-1, *[n_features] * (degree + 1), tensor.shape[-1])
                self.register_buffer(f"tensor_{out}_{degree}", self._fold(tensor, degree), persistent=False)
                self.register_buffer(f"weight_{out}_{degree}", weight.detach(), persistent=False)
        for degree in range(2, self._degrees):
            shorter = {monomial: i for i, monomial in enumerate(self._monomials[degree - 1])}
            pairs = [[shorter[monomial[:-1]], monomial[-1]] for monomial in self._monomials[degree]]
            index = torch.tensor(pairs, device=contractions.contractions[0].weights_max.device).T
            self.register_buffer(f"factors_{degree}", index, persistent=False)

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
        element, order = torch.sort(elements.argmax(dim=1), stable=True)
        present, counts = torch.unique_consecutive(element, return_counts=True)
        sorted_features = features[order].permute(1, 2, 0)
        parts = sorted_features.split(counts.tolist(), dim=2)
        found = [self._multiply(x, which) for x, which in zip(parts, present.tolist(), strict=True)]
        return torch.cat(found)[torch.argsort(order)]

    def _multiply(self, features: torch.Tensor, element: int) -> torch.Tensor:
        """Products for atoms of one element, whose features have the shape (n_channels, n_features, n)."""
        monomials = [torch.ones_like(features[:, :1]), features][: self._degrees]
        for degree in range(2, self._degrees):
            shorter, last = getattr(self, f"factors_{degree}")
            monomials.append(monomials[-1][:, shorter] * features[:, last])
        powers = torch.cat(monomials, dim=1)
        found: list[torch.Tensor] = []
        for out in range(self._outputs):
            slopes = torch.bmm(self._coefficients(out, element), powers)
            n_channels, n_features, n_atoms = features.shape
            slopes = slopes.view(n_channels, -1, n_features, n_atoms)
            products = (slopes * features[:, None]).sum(dim=2)
            found.append(products.permute(2, 0, 1).reshape(n_atoms, -1))
        return torch.cat(found, dim=1)

    def _coefficients(self, out: int, element: int) -> torch.Tensor:
        """Shape (n_channels, components of the output * n_features, n_monomials)."""
        parts: list[torch.Tensor] = []
        for degree, monomials in enumerate(self._monomials):
            weight = getattr(self, f"weight_{out}_{degree}")[element]
            tensor = getattr(self, f"tensor_{out}_{degree}")
            parts.append((weight.T @ tensor).view(weight.shape[1], -1, len(monomials)))
        return torch.cat(parts, dim=2)

    def _fold(self, tensor: torch.Tensor, degree: int) -> torch.Tensor:
        """Sum the entries that multiply one monomial: shape (n_weights, components * n_features * n_monomials)."""
        n_out, n_features, n_weights = len(tensor), tensor.shape[1], tensor.shape[-1]
        place = {monomial: i for i, monomial in enumerate(self._monomials[degree])}
        index = [place[tuple(sorted(factors))] for factors in product(range(n_features), repeat=degree)]
        flat = tensor.reshape(n_out, n_features, -1, n_weights)
        folded = flat.new_zeros(n_out, n_features, len(place), n_weights)
        folded.index_add_(2, torch.tensor(index, device=tensor.device), flat)
        return folded.reshape(-1, n_weights).T.contiguous()
