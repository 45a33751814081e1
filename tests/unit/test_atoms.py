"""Neighbours under periodic boundaries, against ASE's own search, and structures at the contract's edges."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sheaf.backends._families.atoms.structures import Structure, is_flat, voigt, wrapped
from sheaf.backends._families.materials import expected_neighbors

neighbors: Any = pytest.importorskip("sheaf.backends._families.atoms.neighbors")


def random_structure(seed: int) -> Structure:
    """Up to a dozen atoms, many outside of the cell, in a skew cell that repeats along some directions."""
    rng = np.random.default_rng(seed)
    pbc = rng.random(3) < 0.6
    cell = rng.normal(size=(3, 3)) * rng.uniform(2, 6)
    while abs(np.linalg.det(cell)) < 8:
        cell = rng.normal(size=(3, 3)) * rng.uniform(2, 6)
    if rng.random() < 0.3:
        cell[~pbc] = 0
    n_atoms = int(rng.integers(1, 12))
    positions = rng.normal(size=(n_atoms, 3)) * rng.choice([2, 15])
    return Structure(np.ones(n_atoms, dtype=np.int64), positions, cell, pbc, has_cell=True)


def as_edges(pairs: Any) -> list[tuple[int, ...]]:
    shift = pairs.shift.astype(int)
    forth = [(i, j, *s) for i, j, s in zip(pairs.first, pairs.second, shift, strict=True)]
    back = [(j, i, *-s) for i, j, s in zip(pairs.first, pairs.second, shift, strict=True)]
    return sorted(forth + back)


@pytest.mark.parametrize("most_boxes", [10_000, -1000])
@pytest.mark.parametrize("seed", range(40))
def test_pairs_are_those_that_ase_finds(seed: int, most_boxes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from ase.neighborlist import primitive_neighbor_list

    monkeypatch.setattr(neighbors, "_MOST_BOXES", most_boxes)
    structure = random_structure(seed)
    pairs = neighbors.find_pairs(structure, 5.0)
    found = primitive_neighbor_list("ijS", structure.pbc, structure.full_cell(), structure.positions, 5.0)
    assert as_edges(pairs) == sorted((i, j, *s) for i, j, s in zip(*found, strict=True))
    apart = (
        structure.positions[pairs.second]
        + pairs.shift @ structure.full_cell()
        - structure.positions[pairs.first]
    )
    np.testing.assert_allclose(np.linalg.norm(apart, axis=1), pairs.distance, atol=1e-9)
    assert neighbors.most_pairs(structure, 5.0) >= len(pairs)


@pytest.mark.parametrize("pbc", [False, True])
def test_empty_space_costs_nothing(*, pbc: bool) -> None:
    positions = np.array([[0, 0, 0], [1e30, 0, 0], [1, 0, 0], [1e30, 0, 0]])
    cell = np.eye(3) * 1e31
    structure = Structure(np.ones(4, dtype=np.int64), positions, cell, np.full(3, pbc), has_cell=True)
    pairs = neighbors.find_pairs(structure, 6.0)
    assert as_edges(pairs) == [(0, 2, 0, 0, 0), (1, 3, 0, 0, 0), (2, 0, 0, 0, 0), (3, 1, 0, 0, 0)]


@pytest.mark.parametrize("seed", range(10))
def test_wrapped_atoms_have_the_neighbours_they_had(seed: int) -> None:
    structure = random_structure(seed)
    away = np.random.default_rng(seed).integers(-3, 4, (len(structure), 3)) * structure.pbc
    moved = replace(structure, positions=structure.positions + away @ structure.full_cell())
    back = wrapped(moved)
    scaled = (back.positions @ np.linalg.inv(structure.full_cell()))[:, structure.pbc]
    assert ((scaled > -1e-9) & (scaled < 1 + 1e-9)).all()
    before, after = neighbors.find_pairs(moved, 5.0), neighbors.find_pairs(back, 5.0)
    np.testing.assert_allclose(np.sort(after.distance), np.sort(before.distance), atol=1e-9)


def test_long_cells_askew_are_searched_in_no_more_room_than_their_atoms_need() -> None:
    # Boxes over the Cartesian space between these two atoms would take 25 GB.
    cell = np.array([[0, 3e4, 3e4], [3, 0, 3], [3, 3, 0]])
    positions = np.array([[0, 0, 0], [0.999, 0, 0] @ cell])
    structure = Structure(np.ones(2, dtype=np.int64), positions, cell, np.full(3, True), has_cell=True)
    pairs = neighbors.find_pairs(structure, 4.5)
    # Each atom has six images of its own in a layer at 4.24 Å; the other atom is 42 Å away.
    around = [(0, 0, 1), (0, 0, -1), (0, 1, 0), (0, -1, 0), (0, 1, -1), (0, -1, 1)]
    assert as_edges(pairs) == sorted((i, i, *shift) for i in (0, 1) for shift in around)


def test_neighbours_are_expected_by_the_density() -> None:
    rng = np.random.default_rng(0)
    cell = np.eye(3) * 20.0
    numbers = np.ones(400, dtype=np.int64)
    crystal = Structure(numbers, rng.uniform(0, 20, (400, 3)), cell, np.ones(3, dtype=bool), has_cell=True)
    counted = 2 * len(neighbors.find_pairs(crystal, 6.0))
    assert expected_neighbors(crystal, 6.0) == pytest.approx(counted, rel=0.05)
    ball = Structure(numbers, crystal.positions, np.zeros((3, 3)), np.zeros(3, dtype=bool), has_cell=False)
    counted = 2 * len(neighbors.find_pairs(ball, 6.0))
    assert expected_neighbors(ball, 6.0) == pytest.approx(counted, rel=0.3)


def test_flat_vectors_are_told() -> None:
    assert is_flat(np.array([[1, 0, 0], [2, 0, 0]]))
    assert is_flat(np.array([[1.0, 0, 0], [0, 0, 0]]))
    assert is_flat(np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9.0]]))
    assert not is_flat(np.diag([1e-3, 1e3, 1.0]))
    assert not is_flat(np.zeros((0, 3)))


def test_voigt_has_the_contracts_order() -> None:
    tensor = np.array([[1, 6, 5], [6, 2, 4], [5, 4, 3.0]])
    assert voigt(tensor).tolist() == [1, 2, 3, 4, 5, 6]
