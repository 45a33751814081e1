"""What the backends of `materials` share: reading structures, refusing, packing passes, and answering.

A request is one structure or a list of them; all structures of a batch, of whatever size, go through the
network in as few passes as the bound on a pass allows.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np

from sheaf.api.materials import (
    MaterialsRequest,
    MaterialsResponse,
    MolecularDynamicsRequest,
    RelaxRequest,
    StructureResult,
)
from sheaf.backends._families.atoms.structures import (
    Floats,
    PotentialFacts,
    Properties,
    Structure,
    is_flat,
    structure_of,
    wrapped,
)
from sheaf.backends._shared.loading import loaded
from sheaf.backends._shared.passes import cut_by_rows
from sheaf.backends._shared.refusals import answer_each, check_finite, compute_together, refuse
from sheaf.backends.base import respond
from sheaf.backends.loops import LibraryLoop, LoopBackend
from sheaf_client.contracts.base import Metadata
from sheaf_client.errors import InvalidRequestError
from sheaf_client.protocol.atoms import held_axes

if TYPE_CHECKING:
    from sheaf.backends._families.atoms.motion import Evaluate
    from sheaf.backends._families.atoms.neighbors import Pairs
    from sheaf.backends._families.atoms.potential import Potential

#: One relaxation or simulation, as far as it has come.
MovingAtoms: TypeAlias = LibraryLoop[Structure, Properties, Any]

#: Most neighbours of all atoms of one pass, as `cost` counts them: half a gigabyte in models of common size.
#: A core is as fast with fewer; an accelerator wants more.
PASS_COST = 10_000
#: Most neighbours of all atoms of one structure: some gigabytes.
MAX_COST = 200_000
#: Most numbers in the positions of one trajectory: 40 MB.
MAX_TRAJECTORY = 10_000_000
#: Atoms nearer than this, in Å, are one place given twice.
NEAREST = 0.01
#: Most that a coordinate or a part of a lattice vector is away from 0, in Å: float32 tells places further out
#: no better apart than `NEAREST`.
FARTHEST = 1e5
#: The speed of light in Å/fs.
LIGHT = 2997.92458


@dataclass(frozen=True, eq=False)
class Place:
    """A structure, and where it stands in its request: `""` or `/structures/3`."""

    structure: Structure
    path: str


@dataclass(frozen=True, eq=False)
class Placed:
    """A structure in its cell, and its neighbours."""

    place: Place
    pairs: Pairs


def places_of(request: Any) -> list[Place]:
    """The structures of a request, one or several."""
    if getattr(request, "structures", None) is None:
        return [Place(structure_of(request), "")]
    return [Place(structure_of(one), f"/structures/{i}") for i, one in enumerate(request.structures)]


class PotentialBackend(LoopBackend[Any, Any, Structure, Properties]):
    """A potential behind the contract; a backend loads it and has its own settings.

    Relaxations and simulations are loops of ASE's: each step of all that run is one pass.

    Args:
        pass_cost: most neighbours of all atoms in one pass through the network.
        max_cost: most neighbours of all atoms of one structure; a larger one is refused.
    """

    model_type: ClassVar[str] = "materials"
    operations: ClassVar[frozenset[str]] = frozenset({"compute", "relax", "molecular_dynamics"})

    def __init__(self, *, pass_cost: float = PASS_COST, max_cost: float = MAX_COST) -> None:
        self.pass_cost = pass_cost
        self.max_cost = max_cost
        self._potential: Potential | None = None

    @abstractmethod
    def load(self) -> None: ...

    def serve(self, potential: Potential) -> None:
        """Answer by this potential from now on."""
        self._potential = potential
        self.facts = potential.facts

    def unload(self) -> None:
        self._potential = self.facts = None

    def warm_up(self) -> None:
        silicon = {"atomic_numbers": [min(self.known.elements)] * 2, "positions": np.eye(3)[:2]}
        self.predict(MaterialsRequest.model_validate({"model_name": "warm-up", **silicon}))

    def check(self, request: Any) -> None:
        """Refuse elements that the model does not know, cells that are flat, stress without a volume."""
        for place in places_of(request):
            self._check_structure(place)
            for field in ("compute_stress", "relax_cell"):
                if getattr(request, field, False):
                    _check_volume(place, f"/{field}")
        if not isinstance(request, MaterialsRequest):
            _check_length(request)
            _check_held(request)
            _check_speeds(request)

    def batch_key(self, request: Any) -> Hashable:
        """Whether the gradient is asked for, which costs twice the energies alone."""
        return _wants_gradient(request)

    def cost(self, request: Any) -> float:
        """Neighbours of all atoms of the request, as the density of each structure has it, in Å."""
        return sum(expected_neighbors(place.structure, self.known.cutoff) for place in places_of(request))

    def answer_size(self, request: Any) -> int:
        """That of a trajectory: float32 as base64."""
        return 0 if isinstance(request, MaterialsRequest) else _recorded(request) * 16 // 3

    def deterministic(self, request: Any) -> bool:
        """Chance decides over velocities that are drawn and over the thermostat, where no seed is given."""
        if not isinstance(request, MolecularDynamicsRequest) or request.seed is not None:
            return True
        draws = request.ensemble.value == "nvt" or request.velocities is None
        return not (draws and request.temperature_k)

    def steps(self, request: Any) -> int:
        """Structures that a relaxation or a simulation asks about: the start, and one after each step."""
        if isinstance(request, MaterialsRequest):
            return 0
        return 1 + int(request.max_steps if isinstance(request, RelaxRequest) else request.n_steps)

    def batch_predict(self, requests: Sequence[Any]) -> list[Any]:
        """Compute requests of any mix of sizes, molecules and crystals, in shared passes.

        One in which atoms turn out to be in the same place, or too many, is refused in its own.
        """
        if self.steps(requests[0]):
            return [*super().batch_predict(requests)]

        def answer_all(read: Sequence[tuple[MaterialsRequest, list[Placed]]]) -> list[Any]:
            gradient = any(_wants_gradient(request) for request, _ in read)
            found = iter(self.evaluate([one for _, several in read for one in several], gradient=gradient))
            properties = [[next(found) for _ in several] for _, several in read]
            return [*answer_each(_answer, read, properties)]

        return [*compute_together(requests, self._read, answer_all)]

    def _read(self, request: MaterialsRequest) -> tuple[MaterialsRequest, list[Placed]]:
        return request, [self.neighbors(place) for place in places_of(request)]

    def run(self, request: Any, loop: MovingAtoms) -> Any:
        """Relax or simulate by ASE, which asks for the potential structure by structure."""
        from sheaf.backends._families.atoms.trajectories import follow

        warnings: list[str] = []
        return follow(request, _asking(request, loop.ask, warnings), loop.tell, warnings)

    def forward(self, questions: Sequence[Structure]) -> list[Properties | Exception]:
        """What the potential says of structures on their ways; a refusal in the place of an answer."""

        def read(structure: Structure) -> Placed:
            check_sizes(Place(structure, ""))
            return self.neighbors(Place(structure, ""))

        def evaluate(read: Sequence[Placed]) -> list[Properties | Exception]:
            found = self.evaluate(read, gradient=True)
            return [*answer_each(check_properties, [placed.place for placed in read], found)]

        return [*compute_together(questions, read, evaluate)]

    def evaluate(self, read: Sequence[Placed], *, gradient: bool) -> list[Properties]:
        """What the potential says of structures, in their order, in passes of at most `pass_cost`."""
        potential = loaded(self._potential)
        found: dict[int, Properties] = {}
        costs = [2 * len(placed.pairs) + len(placed.place.structure) for placed in read]
        for chosen in cut_by_rows(costs, costs, most=self.pass_cost):
            structures = [read[i].place.structure for i in chosen]
            pairs = [read[i].pairs for i in chosen]
            found |= zip(chosen, potential.evaluate(structures, pairs, gradient=gradient), strict=True)
        return [found[i] for i in range(len(read))]

    def neighbors(self, place: Place) -> Placed:
        """A structure moved into its cell, with the neighbours in it.

        Refuses what is crowded beyond `max_cost`, or has two atoms in one place.
        """
        from sheaf.backends._families.atoms.neighbors import find_pairs, most_pairs

        cutoff, structure = self.known.cutoff, wrapped(place.structure)
        crowded = (
            f"There are more than {self.max_cost:g} neighbours within {cutoff:g} Å, counted over all atoms."
        )
        # The bound lies over the count by a factor of up to 7 where atoms are evenly spread.
        if most_pairs(structure, cutoff) > 10 * self.max_cost:
            raise refuse(f"{place.path}/positions_b64", crowded)
        pairs = find_pairs(structure, cutoff)
        if 2 * len(pairs) > self.max_cost:
            raise refuse(f"{place.path}/positions_b64", crowded)
        if len(pairs) and pairs.distance.min() < NEAREST:
            at = int(pairs.distance.argmin())
            one, other = int(pairs.first[at]), int(pairs.second[at])
            message = f"Atoms {one} and {other} are in the same place, or images of one another are."
            raise refuse(f"{place.path}/positions_b64", message)
        return Placed(Place(structure, place.path), pairs)

    def _check_structure(self, place: Place) -> None:
        structure = place.structure
        for i, number in enumerate(structure.numbers.tolist()):
            if number not in self.known.elements:
                raise refuse(f"{place.path}/atomic_numbers/{i}", f"The model knows no element {number}.")
        check_sizes(place)
        if is_flat(structure.cell[structure.pbc]):
            message = "The lattice vectors along which the structure repeats must be independent."
            raise refuse(f"{place.path}/cell", message)

    @property
    def known(self) -> PotentialFacts:
        """What is known of the loaded model."""
        facts: PotentialFacts | None = self.facts
        return loaded(facts)


def expected_neighbors(structure: Structure, cutoff: float) -> float:
    """Neighbours of all atoms, were they evenly spread over the cell or the box that holds them; at least
    one each.
    """
    n_atoms = len(structure)
    cell = structure.full_cell()
    inverse = np.linalg.inv(cell)
    heights = 1 / np.linalg.norm(inverse, axis=0)
    extent = np.ptp(structure.positions @ inverse, axis=0) * heights
    # Where it does not repeat, a layer of one atom has no thickness, but room around it.
    spread = np.where(structure.pbc, 1.0, (extent + cutoff / 2) / heights)
    density = n_atoms / max(abs(np.linalg.det(cell)) * float(spread.prod()), 1e-9)
    around = density * 4 / 3 * np.pi * cutoff**3
    if not structure.periodic:
        around = min(around, n_atoms - 1)
    return n_atoms * max(1.0, float(around))


def _check_length(request: Any) -> None:
    """Refuse a trajectory that would hold more than `MAX_TRAJECTORY` numbers."""
    if _recorded(request) > MAX_TRAJECTORY:
        message = f"A trajectory holds at most {MAX_TRAJECTORY:g} numbers; record fewer steps."
        raise refuse("/record_every", message, "out_of_range")


def _recorded(request: Any) -> int:
    """Numbers in the positions of a trajectory."""
    steps = request.max_steps if isinstance(request, RelaxRequest) else request.n_steps
    return int(3 * len(request.atomic_numbers) * (steps // request.record_every + 2))


def _check_held(request: Any) -> None:
    """Refuse to hold single axes while the cell moves, in which a held atom keeps its place."""
    if request.fixed is None or not getattr(request, "relax_cell", False):
        return
    held = held_axes(request.fixed)
    partly = np.flatnonzero(held.any(axis=1) & ~held.all(axis=1))
    if len(partly):
        message = "With relax_cell an atom is held in all its axes or in none."
        raise refuse(f"/fixed/{partly[0]}", message)


def _check_speeds(request: Any) -> None:
    """Refuse atoms that start out faster than light."""
    velocities = getattr(request, "velocities", None)
    if velocities is not None and (np.linalg.norm(velocities.astype(np.float64), axis=1) > LIGHT).any():
        message = f"No atom is faster than light, {LIGHT:g} Å/fs."
        raise refuse("/velocities_b64", message, "out_of_range")


def check_sizes(place: Place) -> None:
    """Refuse positions and lattice vectors of sizes that no structure has; atoms that flew apart too."""
    structure = place.structure
    # Written so that NaN is refused too.
    if not (np.abs(structure.positions) <= FARTHEST).all():
        message = f"Positions are within {FARTHEST:g} Å of the origin in each axis."
        raise refuse(f"{place.path}/positions_b64", message, "out_of_range")
    # Zeros stand for a vector that is not given; it is not needed where nothing repeats.
    lengths = np.linalg.norm(structure.cell[structure.cell.any(axis=1)], axis=1)
    if not ((lengths >= NEAREST) & (lengths <= FARTHEST)).all():
        message = f"Lattice vectors are from {NEAREST:g} to {FARTHEST:g} Å long."
        raise refuse(f"{place.path}/cell", message, "out_of_range")


def _asking(request: Any, evaluate: Evaluate, warnings: list[str]) -> Evaluate:
    """The potential as one relaxation or simulation asks it; what it warns of is added to `warnings`.

    A structure that it refuses on the way is not the caller's own: a simulation was led there by its steps.
    """
    asked = 0

    def ask(structure: Structure) -> Properties:
        nonlocal asked
        try:
            found = evaluate(structure)
        except InvalidRequestError as error:
            if not asked or not isinstance(request, MolecularDynamicsRequest):
                raise
            fault = error.errors[0]
            message = f"Step {asked} led where the model cannot follow; take shorter ones. {fault.message}"
            raise refuse("/timestep_fs", message, fault.code) from error
        asked += 1
        warnings.extend(text for text in found.warnings if text not in warnings)
        return found

    return ask


def _wants_gradient(request: Any) -> bool:
    return bool(getattr(request, "compute_forces", True) or getattr(request, "compute_stress", False))


def _check_volume(place: Place, path: str) -> None:
    where = f" (structure {place.path.rpartition('/')[2]})" if place.path else ""
    if not place.structure.periodic:
        raise refuse(path, f"Stress is defined for structures that repeat{where}.")
    if not place.structure.volume:
        raise refuse(path, f"Stress is per volume, and three independent lattice vectors have one{where}.")


def _answer(
    read: tuple[MaterialsRequest, Sequence[Placed]], properties: Sequence[Properties]
) -> MaterialsResponse:
    request, places = read[0], [placed.place for placed in read[1]]
    for place, found in zip(places, properties, strict=True):
        check_properties(place, found)
    parts = [_fields(request, place, found) for place, found in zip(places, properties, strict=True)]
    said: dict[str, None] = {}
    for place, found in zip(places, properties, strict=True):
        said |= dict.fromkeys(f"{place.path[1:]}: {text}" if place.path else text for text in found.warnings)
    metadata = Metadata(warnings=list(said))
    if request.structures is None:
        return respond(request, MaterialsResponse, metadata=metadata, **parts[0])
    return respond(
        request,
        MaterialsResponse,
        metadata=metadata,
        energy=float(np.sum([found.energy for found in properties])),
        n_atoms=sum(len(place.structure) for place in places),
        results=[StructureResult(**fields) for fields in parts],
    )


def _fields(request: MaterialsRequest, place: Place, found: Properties) -> dict[str, Any]:
    return {
        "energy": found.energy,
        "forces": _float32(found.forces) if request.compute_forces else None,
        "stress": _float32(found.stress) if request.compute_stress else None,
        "n_atoms": len(place.structure),
    }


def _float32(values: Floats | None) -> Any:
    return None if values is None else values.astype(np.float32)


def check_properties(place: Place, found: Properties) -> Properties:
    """What was found; refuses a structure that has no finite numbers, as answers hold them."""
    with np.errstate(over="ignore"):
        parts = found.energy, _float32(found.forces), _float32(found.stress)
    check_finite(f"{place.path}/positions_b64", "The model gives no finite numbers for these atoms.", *parts)
    return found
