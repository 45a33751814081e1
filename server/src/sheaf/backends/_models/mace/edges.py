"""MACE's products along the edges, summed at the atoms by matrix products.

The library writes the message of each edge out, some kilobytes, before it sums them, and keeps it for the
forces.
"""

from __future__ import annotations

from typing import Any

import torch

from sheaf.backends._models.mace.library import mace

_torch: Any = torch
_o3: Any = mace("e3nn.o3")

#: Edges of one atom that are summed by one matrix product; the last of an atom's is filled up with zeros.
_BLOCK = 16


class Convolution(torch.nn.Module):
    """Tensor products of the senders' features with the edges' harmonics, summed at the receivers.

    Args:
        product: the library's tensor product, whose paths are for each edge and channel
            `weight * sum_ij w3j[i, j, k] * sender[i] * harmonic[j]`.
        like: a tensor on the device and of the dtype that the layer works with.
    """

    def __init__(self, product: Any, like: torch.Tensor) -> None:
        super().__init__()
        self._in1, self._in2 = list(product.irreps_in1), list(product.irreps_in2)
        self._at1, self._at2 = product.irreps_in1.slices(), product.irreps_in2.slices()
        self._paths = list(product.instructions)
        for i, path in enumerate(self._paths):
            orders = (self._in1[path.i_in1], self._in2[path.i_in2], product.irreps_out[path.i_out])
            couple = _o3.wigner_3j(*(irrep.ir.l for irrep in orders), dtype=torch.float64)
            self.register_buffer(f"couple_{i}", (couple * path.path_weight).to(like), persistent=False)

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
        senders = edges[0][edge]
        channels = [self._in1[path.i_in1].mul for path in self._paths]
        by_path: tuple[torch.Tensor, ...] = _torch.split(
            weights.index_select(0, edge)[:, None], channels, dim=2
        )
        # Zeros in the harmonics are zeros in all that the filling would add.
        harmonics = harmonics.index_select(0, edge) * filled[:, None]
        sent: list[torch.Tensor] = [
            features[:, at].reshape(n_atoms, irrep.mul, irrep.ir.dim).transpose(1, 2).index_select(0, senders)
            for irrep, at in zip(self._in1, self._at1, strict=True)
        ]
        messages: list[torch.Tensor] = []
        for i, path in enumerate(self._paths):
            weight = by_path[i]
            couple: torch.Tensor = getattr(self, f"couple_{i}")
            at: int = path.i_in1
            size = _BLOCK * len(couple)
            turned = torch.einsum("ej,ijk->eik", harmonics[:, self._at2[path.i_in2]], couple)
            left = turned.reshape(len(owner), size, turned.shape[2]).transpose(1, 2)
            right = torch.mul(weight, sent[at]).view(len(owner), size, weight.shape[2])
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
