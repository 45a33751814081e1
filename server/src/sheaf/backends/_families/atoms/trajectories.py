"""Frames of a motion as the contract tells them: an event for each step, and the whole at the end."""

from __future__ import annotations

from collections.abc import Iterator
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
    request: MotionRequest, evaluate: Evaluate, warnings: list[str]
) -> Iterator[AtomsProgress | MotionResponse]:
    """An event after each step, and last the response.

    Args:
        warnings: what to tell the caller, known once the potential has been asked.
    """
    relaxing = isinstance(request, RelaxRequest)
    frames = relax(request, evaluate) if isinstance(request, RelaxRequest) else simulate(request, evaluate)
    total = request.max_steps if isinstance(request, RelaxRequest) else request.n_steps
    kept: list[Frame] = []
    last: Frame | None = None
    for frame in frames:
        last = frame
        _check_speeds(frame)
        if frame.step % request.record_every == 0:
            kept.append(frame)
        if frame.step:
            yield _event(frame, total, None if relaxing else getattr(request, "timestep_fs", None))
    if last is not None and kept[-1] is not last:
        kept.append(last)
    if isinstance(request, RelaxRequest):
        yield _relaxed(request, kept, warnings)
    else:
        yield _simulated(request, kept, warnings)


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


def _relaxed(request: RelaxRequest, frames: list[Frame], warnings: list[str]) -> RelaxResponse:
    last = frames[-1]
    cells: dict[str, Any] = {}
    if request.relax_cell and last.stress is not None:
        cells = {
            "stress": last.stress.astype(np.float32),
            "cells": np.stack([frame.cell for frame in frames if frame.cell is not None]),
        }
    return respond(
        request,
        RelaxResponse,
        **_shared(frames, warnings),
        **cells,
        converged=last.converged,
        max_forces=np.array([frame.max_force for frame in frames], dtype=np.float32),
    )


def _simulated(
    request: MolecularDynamicsRequest, frames: list[Frame], warnings: list[str]
) -> MolecularDynamicsResponse:
    return respond(
        request,
        MolecularDynamicsResponse,
        **_shared(frames, warnings),
        velocities=frames[-1].velocities.astype(np.float32),
        kinetic_energies=np.array([frame.kinetic_energy for frame in frames]),
        temperatures=np.array([frame.temperature for frame in frames], dtype=np.float32),
    )


def _shared(frames: list[Frame], warnings: list[str]) -> dict[str, Any]:
    last = frames[-1]
    return {
        "energy": last.energy,
        "positions": last.positions.astype(np.float32),
        "cell": None if last.cell is None else last.cell.tolist(),
        "forces": last.forces.astype(np.float32),
        "n_steps": last.step,
        "n_atoms": len(last.positions),
        "n_frames": len(frames),
        "frame_steps": [frame.step for frame in frames],
        "energies": np.array([frame.energy for frame in frames]),
        "trajectory": np.stack([frame.positions for frame in frames]).astype(np.float32),
        "metadata": Metadata(warnings=warnings),
    }
