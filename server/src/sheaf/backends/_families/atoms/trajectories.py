"""Frames of a motion as the contract tells them: an event for each step, and the whole at the end."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from sheaf.api.materials import (
    AtomsProgress,
    MolecularDynamicsRequest,
    MolecularDynamicsResponse,
    RelaxRequest,
    RelaxResponse,
)
from sheaf.backends._families.atoms.motion import Evaluate, Frame, relax, simulate
from sheaf.backends._shared.refusals import check_finite
from sheaf.backends.base import respond
from sheaf_client.contracts.base import Metadata

MotionRequest = RelaxRequest | MolecularDynamicsRequest
MotionResponse = RelaxResponse | MolecularDynamicsResponse


def follow(
    request: MotionRequest,
    evaluate: Evaluate,
    tell: Callable[[Callable[[], AtomsProgress]], None],
    warnings: Sequence[str],
) -> MotionResponse:
    """Move the atoms to their end; the response.

    Args:
        tell: called after each step with what makes its event.
        warnings: what to tell the caller, known once the potential has been asked.
    """
    if isinstance(request, RelaxRequest):
        frames, total, timestep = relax(request, evaluate), request.max_steps, None
    else:
        frames, total, timestep = simulate(request, evaluate), request.n_steps, request.timestep_fs
    record = _Record(cells=isinstance(request, RelaxRequest) and request.relax_cell)
    last: Frame | None = None
    for frame in frames:
        last = frame
        _check_speeds(frame)
        if frame.step % request.record_every == 0:
            record.add(frame)
        if frame.step:
            tell(partial(_event, frame, total, timestep))
    assert last is not None  # noqa: S101 - step 0 is a frame
    if record.steps[-1] != last.step:
        record.add(last)
    if isinstance(request, RelaxRequest):
        return _relaxed(request, last, record, warnings)
    return _simulated(request, last, record, warnings)


class _Record:
    """What the answer tells of its steps, in no more memory than the answer takes.

    Args:
        cells: whether the cell is part of it.
    """

    def __init__(self, *, cells: bool) -> None:
        self.steps: list[int] = []
        self._moving_cell = cells
        self._positions, self._cells = bytearray(), bytearray()
        self._numbers = array("d")

    def add(self, frame: Frame) -> None:
        self.steps.append(frame.step)
        self._positions += frame.positions.astype(np.float32).tobytes()
        if self._moving_cell and frame.cell is not None:
            self._cells += frame.cell.tobytes()
        self._numbers.extend((frame.energy, frame.max_force, frame.kinetic_energy, frame.temperature))

    @property
    def trajectory(self) -> Any:
        """Positions, float32 of shape (n_frames, n_atoms, 3)."""
        return np.frombuffer(self._positions, dtype=np.float32).reshape(len(self.steps), -1, 3)

    @property
    def cells(self) -> Any:
        """Shape (n_frames, 3, 3)."""
        return np.frombuffer(self._cells).reshape(len(self.steps), 3, 3)

    @property
    def numbers(self) -> Any:
        """Energies, longest forces, kinetic energies and temperatures, each of shape (n_frames,)."""
        return np.array(self._numbers).reshape(len(self.steps), 4).T


def _check_speeds(frame: Frame) -> None:
    """Refuse a simulation whose speeds do not fit into the answer; positions and forces were looked at."""
    with np.errstate(over="ignore"):
        speeds = frame.velocities.astype(np.float32), np.float32(frame.temperature)
    message = f"After step {frame.step} the atoms have no finite speeds; take shorter steps."
    check_finite("/timestep_fs", message, *speeds, frame.kinetic_energy, code="out_of_range")


def _event(frame: Frame, total: int, timestep: float | None) -> AtomsProgress:
    motion: dict[str, Any] = {}
    if timestep is not None:
        motion = {"temperature_k": frame.temperature, "time_fs": frame.step * timestep}
    return AtomsProgress(
        step=frame.step,
        total_steps=total,
        positions=frame.positions.astype(np.float32),
        n_atoms=len(frame.positions),
        cell=None if frame.cell is None else frame.cell.tolist(),
        energy=frame.energy,
        max_force=frame.max_force,
        **motion,
    )


def _relaxed(request: RelaxRequest, last: Frame, record: _Record, warnings: Sequence[str]) -> RelaxResponse:
    cells: dict[str, Any] = {}
    if request.relax_cell and last.stress is not None:
        cells = {"stress": last.stress.astype(np.float32), "cells": record.cells}
    return respond(
        request,
        RelaxResponse,
        **_shared(last, record, warnings),
        **cells,
        converged=last.converged,
        max_forces=record.numbers[1].astype(np.float32),
    )


def _simulated(
    request: MolecularDynamicsRequest, last: Frame, record: _Record, warnings: Sequence[str]
) -> MolecularDynamicsResponse:
    return respond(
        request,
        MolecularDynamicsResponse,
        **_shared(last, record, warnings),
        velocities=last.velocities.astype(np.float32),
        kinetic_energies=record.numbers[2].copy(),
        temperatures=record.numbers[3].astype(np.float32),
    )


def _shared(last: Frame, record: _Record, warnings: Sequence[str]) -> dict[str, Any]:
    return {
        "energy": last.energy,
        "positions": last.positions.astype(np.float32),
        "cell": None if last.cell is None else last.cell.tolist(),
        "forces": last.forces.astype(np.float32),
        "n_steps": last.step,
        "n_atoms": len(last.positions),
        "n_frames": len(record.steps),
        "frame_steps": record.steps,
        "energies": record.numbers[0].copy(),
        "trajectory": record.trajectory,
        "metadata": Metadata(warnings=list(warnings)),
    }
