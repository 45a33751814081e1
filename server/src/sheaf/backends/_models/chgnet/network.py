"""CHGNet's energies by the library's own layers and weights, for a whole pass of structures at once.

Where the library lays the features of two atoms and a bond side by side for each edge and multiplies the long
rows, here each feature is multiplied once where it lives, on its atom or its bond, and the products are
gathered: the same sums with a fourth of the multiplications and none of the long rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sheaf.backends._models.chgnet.graphs import Graphs

_torch: Any = torch


class Network:
    """A loaded CHGNet.

    Args:
        model: the library's `CHGNet`, in evaluation mode.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.device: torch.device = next(model.parameters()).device
        self.dtype: torch.dtype = next(model.parameters()).dtype
        self._atom_layers = [_Gated(layer.twoBody_atom, 3) for layer in model.atom_conv_layers]
        self._bond_layers = [layer and _Gated(layer.twoBody_bond, 4) for layer in model.bond_conv_layers]
        self._angle_layers = [layer and _Gated(layer.twoBody_bond, 4) for layer in model.angle_layers]

    def properties(self, graphs: Graphs, *, gradient: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Energies in eV, forces in eV/Å and the strain's derivative in eV, each structure's own.

        Returns:
            Tensors of float64 on the CPU of shape (n_structures,), (n_atoms, 3) and (n_structures, 3, 3); the
            last two None without `gradient`.
        """
        g = _Indices(graphs, self.device)
        with torch.set_grad_enabled(gradient):
            # Where atoms are takes no time to compute in float64, and costs all the digits in float32.
            strain = torch.zeros_like(g.cells, requires_grad=gradient)
            positions = torch.as_tensor(graphs.positions, device=self.device).requires_grad_(gradient)
            vectors = self._bond_vectors(g, positions, strain)
            per_atom = self._atom_energies(g, vectors)
            energy = torch.zeros(len(graphs.sizes), dtype=torch.float64, device=self.device)
            energy = energy.index_add(0, g.owner, per_atom)
            forces = strain_gradient = None
            if gradient and len(graphs.first):
                down, strain_gradient = torch.autograd.grad(energy.sum(), [positions, strain])
                forces = -down
            elif gradient:
                forces, strain_gradient = torch.zeros_like(positions), torch.zeros_like(strain)
        energy = energy.detach() + self._reference(g, len(graphs.sizes))
        return (
            energy.cpu(),
            forces if forces is None else forces.detach().cpu(),
            (strain_gradient if strain_gradient is None else strain_gradient.cpu()),
        )

    def _bond_vectors(self, g: _Indices, positions: Tensor, strain: Tensor) -> Tensor:
        """From the neighbour to the atom, as the library draws them, shape (n_bonds, 3)."""
        cells = g.cells + g.cells @ strain
        positions = positions + (positions[:, None] @ _gather(strain, g.owner))[:, 0]
        shifts = (g.shift[:, None] @ _gather(cells, g.bond_owner))[:, 0]
        return _gather(positions, g.first) - _gather(positions, g.second) - shifts

    def _atom_energies(self, g: _Indices, vectors: Tensor) -> Tensor:
        """What the network adds to the energy of each atom's element, float64 of shape (n_atoms,)."""
        model = self.model
        lengths: Tensor = _torch.linalg.vector_norm(vectors, dim=1)
        directions = (vectors / lengths[:, None]).to(self.dtype)
        lengths = lengths.to(self.dtype)
        basis = model.bond_basis_expansion
        basis_ag = basis.rbf_expansion_ag(lengths)
        bonds, weights_ag = model.bond_embedding(basis_ag), model.bond_weights_ag(basis_ag)
        atoms = model.atom_embedding(g.numbers - 1)
        angles: Any = None
        angle_weights: Any = None
        if len(g.angle_from):
            both = torch.cat([directions, -directions])
            angles = model.angle_embedding(
                model.angle_basis_expansion(_gather(both, g.angle_from), _gather(both, g.angle_to))
            )
            weights_bg = model.bond_weights_bg(basis.rbf_expansion_bg(_gather(lengths, g.short)))
            angle_weights = _gather(weights_bg, g.short_from) * _gather(weights_bg, g.short_to)
        # The last angles would reach no atom: the library updates them for nothing.
        for i, (layer, gated) in enumerate(zip(model.atom_conv_layers[:-1], self._atom_layers, strict=False)):
            atoms = _update_atoms(layer, gated, g, atoms, bonds, weights_ag)
            if angles is None or self._bond_layers[i] is None:
                continue
            bond_layer, angle_layer = model.bond_conv_layers[i], model.angle_layers[i]
            messages = self._bond_layers[i](_around_angles(g, atoms, bonds, angles))
            bonds = _settle(bond_layer, bond_layer.bond_norm, bonds, messages * angle_weights, g.bond_from)
            if angle_layer is not None and i + 1 < len(model.bond_conv_layers):
                update = self._angle_layers[i](_around_angles(g, atoms, bonds, angles))
                angles = update + angles if angle_layer.resnet else update
                if angle_layer.angle_norm is not None:
                    angles = angle_layer.angle_norm(angles)
        atoms = _update_atoms(model.atom_conv_layers[-1], self._atom_layers[-1], g, atoms, bonds, weights_ag)
        if model.readout_norm is not None:
            atoms = model.readout_norm(atoms)
        if model.mlp_first:
            per_atom: Tensor = model.mlp(atoms)[:, 0].double()
            return per_atom
        # A readout of the whole structure, shared out among its atoms.
        shared: Tensor = model.mlp(model.pooling(atoms, g.owner))[:, 0].double()[g.owner]
        return shared

    def _reference(self, g: _Indices, n_structures: int) -> Tensor:
        """Energies of the elements alone, which no position changes."""
        composition = self.model.composition_model
        energy = torch.zeros(n_structures, dtype=torch.float64, device=self.device)
        if composition is None:
            return energy
        of_element = composition.fc.weight.detach()[0].double()
        return energy.index_add(0, g.owner, of_element[g.numbers - 1])


class _Indices:
    """A pass's graphs on the device."""

    def __init__(self, graphs: Graphs, device: torch.device) -> None:
        def put(array: np.ndarray[Any, Any]) -> Tensor:
            return torch.as_tensor(array, device=device)

        self.numbers, self.owner, self.cells = put(graphs.numbers), put(graphs.owner), put(graphs.cells)
        self.first, self.second, self.shift = put(graphs.first), put(graphs.second), put(graphs.shift)
        self.bond_owner = put(graphs.bond_owner)
        self.angle_from, self.angle_to = put(graphs.angle_from), put(graphs.angle_to)
        n_bonds = len(graphs.first)
        self.center = torch.cat([self.first, self.second])
        self.neighbor = torch.cat([self.second, self.first])
        #: The bond of each directed bond.
        self.bond = torch.arange(n_bonds, device=device).repeat(2)
        if n_bonds:
            self.bond_from = self.angle_from % n_bonds
            self.apex = self.center[self.angle_from]
            #: The bonds that span angles, and which of them each angle lies between.
            self.short: Tensor
            self.short, self.short_from = _torch.unique(self.bond_from, return_inverse=True)
            self.short_to = _torch.searchsorted(self.short, self.angle_to % n_bonds)


class _Gated:
    """The library's `GatedMLP` on features that are gathered from where they live."""

    def __init__(self, gated: Any, n_parts: int) -> None:
        self._gated = gated
        core, gate = (_after_first_linear(mlp.layers) for mlp in (gated.mlp_core, gated.mlp_gate))
        first = [core[0], gate[0]]
        weight = torch.cat([linear.weight.detach() for linear in first])
        width = weight.shape[1] // n_parts
        #: One matrix for each part, of core and gate together.
        self._weights = [weight[:, i * width : (i + 1) * width].contiguous() for i in range(n_parts)]
        biased = first[0].bias is not None
        self._bias = torch.cat([linear.bias.detach() for linear in first]) if biased else None
        self._split = first[0].out_features
        self._core, self._gate = core[1], gate[1]

    def __call__(self, parts: Sequence[tuple[Tensor, Tensor | None]]) -> Tensor:
        """Of each part its features, and which row of them each row of the result takes."""
        hidden: Any = None
        for i, ((features, index), weight) in enumerate(zip(parts, self._weights, strict=True)):
            product = functional.linear(features, weight, self._bias if i == 0 else None)
            taken = product if index is None else _gather(product, index)
            hidden = taken if hidden is None else hidden + taken
        core, gate = self._core(hidden[:, : self._split]), self._gate(hidden[:, self._split :])
        if self._gated.norm is not None:
            core, gate = self._gated.bn1(core), self._gated.bn2(gate)
        result: Tensor = self._gated.activation(core) * torch.sigmoid(gate)
        return result


class _Gather(torch.autograd.Function):
    """Rows by index. torch's own gradient of it adds element by element, at several times the cost."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.shape = features.shape
        return features.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return grads[0].new_zeros(ctx.shape).index_add_(0, index, grads[0]), None


def _gather(features: Tensor, index: Tensor) -> Tensor:
    gathered: Tensor = cast("Any", _Gather).apply(features, index)
    return gathered


def _after_first_linear(layers: Any) -> tuple[Any, Any]:
    """The first linear layer, and all that come after it."""
    at = next(i for i, layer in enumerate(layers) if isinstance(layer, torch.nn.Linear))
    return layers[at], layers[at + 1 :]


def _around_angles(
    g: _Indices, atoms: Tensor, bonds: Tensor, angles: Tensor
) -> list[tuple[Tensor, Tensor | None]]:
    """What the layers of bonds and angles read, in the library's order."""
    short = _gather(bonds, g.short)
    return [(short, g.short_from), (short, g.short_to), (angles, None), (atoms, g.apex)]


def _update_atoms(
    layer: Any, gated: _Gated, g: _Indices, atoms: Tensor, bonds: Tensor, weights: Tensor
) -> Tensor:
    messages = gated([(atoms, g.center), (bonds, g.bond), (atoms, g.neighbor)])
    return _settle(layer, layer.atom_norm, atoms, messages * _gather(weights, g.bond), g.center)


def _settle(layer: Any, norm: Any, features: Tensor, messages: Tensor, index: Tensor) -> Tensor:
    """Features after the messages that arrive at them."""
    updated = torch.zeros_like(features).index_add(0, index, messages)
    if layer.use_mlp_out:
        updated = layer.mlp_out(updated)
    if layer.resnet:
        updated = updated + features
    return updated if norm is None else norm(updated)
