"""Atoms that move along their forces: relaxation and molecular dynamics by ASE, step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.filters import FrechetCellFilter
from ase.md import velocitydistribution as _velocities
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS, FIRE, LBFGS

from sheaf.api.materials import MolecularDynamicsRequest, RelaxRequest
from sheaf.backends._families.atoms.structures import Floats, Properties, Structure, structure_of
from sheaf_client.protocol.atoms import constraints

#: Asks the potential about one structure.
Evaluate = Callable[[Structure], Properties]

_OPTIMIZERS: dict[str, Any] = {"fire": FIRE, "lbfgs": LBFGS, "bfgs": BFGS}
_distributions: Any = _velocities
_Calculator: Any = Calculator
_Filter: Any = FrechetCellFilter
_Langevin: Any = Langevin
_Verlet: Any = VelocityVerlet


@dataclass(frozen=True, eq=False)
class Frame:
    """The atoms after a step; step 0 is the start.

    Attributes:
        positions, forces: shape (n_atoms, 3), in Å and eV/Å; forces on held atoms too.
        max_force: length of the longest force on an atom, held axes left out, in eV/Å.
        cell: shape (3, 3), in Å; None where the request gave none.
        energy: in eV.
        stress: shape (6,), in eV/Å³; None where it is not defined.
        velocities: shape (n_atoms, 3), in Å/fs.
        kinetic_energy: in eV.
        temperature: of what moves, in K.
        converged: whether the relaxation is at its end.
    """

    step: int
    positions: Floats
    forces: Floats
    max_force: float
    cell: Floats | None
    energy: float
    stress: Floats | None
    velocities: Floats
    kinetic_energy: float
    temperature: float
    converged: bool


def relax(request: RelaxRequest, evaluate: Evaluate) -> Iterator[Frame]:
    """Move the atoms downhill; a frame for the start and for each step, until no force is over `fmax`."""
    atoms, potential = _set_up(request, evaluate)
    moved: Any = _Filter(atoms) if request.relax_cell else atoms
    walk = _OPTIMIZERS[request.optimizer.value](moved, logfile=None)
    for converged in walk.irun(fmax=request.fmax, steps=request.max_steps):
        yield _frame(atoms, potential, walk.nsteps, converged=bool(converged))


def simulate(request: MolecularDynamicsRequest, evaluate: Evaluate) -> Iterator[Frame]:
    """Follow the motion of the atoms; a frame for the start and for each step."""
    atoms, potential = _set_up(request, evaluate)
    if request.masses is not None:
        atoms.set_masses(request.masses)
    rng = np.random.default_rng(request.seed)
    if request.velocities is not None:
        atoms.set_velocities(np.asarray(request.velocities, dtype=np.float64) / units.fs)
    else:
        _distributions.MaxwellBoltzmannDistribution(atoms, temperature_K=request.temperature_k, rng=rng)
    timestep = request.timestep_fs * units.fs
    if request.ensemble.value == "nve":
        walk = _Verlet(atoms, timestep)
    else:
        walk = _Langevin(
            atoms,
            timestep,
            temperature_K=request.temperature_k,
            friction=request.friction_per_fs / units.fs,
            fixcm=False,
            rng=rng,
        )
    for _ in walk.irun(steps=request.n_steps):
        yield _frame(atoms, potential, walk.nsteps, converged=False)


class _Potential(_Calculator):  # type: ignore[misc]  # the class is made without types
    """A potential as ASE asks for it."""

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012 - as ASE has it

    def __init__(self, evaluate: Evaluate, *, has_cell: bool) -> None:
        _Calculator.__init__(self)
        self._evaluate = evaluate
        self.has_cell = has_cell

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        _Calculator.calculate(self, atoms, properties, system_changes)
        structure = Structure(
            numbers=atoms.numbers.astype(np.int64),
            positions=atoms.positions.copy(),
            cell=np.array(atoms.cell),
            pbc=atoms.pbc.copy(),
            has_cell=self.has_cell,
        )
        found = self._evaluate(structure)
        self.results: dict[str, Any] = {"energy": found.energy, "free_energy": found.energy}
        self.results |= {"forces": found.forces}
        if found.stress is not None:
            self.results["stress"] = found.stress


def _set_up(request: Any, evaluate: Evaluate) -> tuple[Any, _Potential]:
    structure = structure_of(request)
    atoms: Any = Atoms(structure.numbers, structure.positions, cell=structure.cell, pbc=structure.pbc)
    atoms.calc = potential = _Potential(evaluate, has_cell=structure.has_cell)
    atoms.set_constraint(constraints(request.fixed))
    return atoms, potential


def _frame(atoms: Any, potential: _Potential, step: int, *, converged: bool) -> Frame:
    # Each question to the calculator compares all atoms with those that it last saw: one is enough.
    adjusted, found = atoms.get_forces(), potential.results
    kinetic = float(atoms.get_kinetic_energy())
    moving: int = atoms.get_number_of_degrees_of_freedom()
    return Frame(
        step=step,
        positions=atoms.get_positions(),
        forces=found["forces"].copy(),
        max_force=float(np.linalg.norm(adjusted, axis=1).max()),
        cell=np.array(atoms.cell) if potential.has_cell else None,
        energy=float(found["energy"]),
        stress=found.get("stress"),
        velocities=atoms.get_velocities() * units.fs,
        kinetic_energy=kinetic,
        temperature=2 * kinetic / (moving * units.kB) if moving else 0.0,
        converged=converged,
    )
