"""What servers under attack serve: every contract, behind models that hold a request for a moment."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sheaf.api.materials import AtomsProgress
from sheaf.api.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf.backends._shared.refusals import refuse
from sheaf.backends.base import ModelBackend, respond
from sheaf.contract.operations import all_operations, names_of
from sheaf.spec import ModelSpec
from sheaf_client.contracts.base import BaseRequest, BaseResponse
from tests.contract.echo import name_of
from tests.echoes import Echo


class Refusing(ModelBackend):
    """Takes requests of any contract, works on them for a moment, and refuses them."""

    def load(self) -> None:
        """There is nothing to load."""

    def batch_predict(self, requests: Sequence[BaseRequest]) -> list[BaseResponse | Exception]:
        time.sleep(0.01)
        return [refuse("", "This model refuses everything.") for _ in requests]


class Patient(Echo):
    """Takes a moment for each call, and answers whatever the history is."""

    def answer(self, request: TimeSeriesRequest) -> TimeSeriesResponse:
        fields = {"mean": [0.0] * request.horizon, "horizon": request.horizon}
        return respond(request, TimeSeriesResponse, **fields, frequency=request.frequency)


class Moving(Refusing):
    """Tells a hundred steps of as many atoms as there are, and then refuses them."""

    model_type = "materials"
    operations = frozenset(names_of("materials"))

    def stream(self, request: Any) -> Iterator[AtomsProgress]:
        atoms = len(request.atomic_numbers)
        for step in range(1, 101):
            positions = np.full((atoms, 3), step, np.float32)
            told = {"positions": positions, "n_atoms": atoms, "energy": 0.0, "max_force": 0.0}
            yield AtomsProgress(step=step, total_steps=100, **told)
        raise refuse("", "This model refuses everything.")


def _class_of(model_type: str) -> type[Refusing]:
    members: dict[str, Any] = {"model_type": model_type, "operations": frozenset(names_of(model_type))}
    return type(f"Refusing_{model_type}", (Refusing,), members)


#: A model for every operation, under the operation's name, and one that answers.
EVERY = [
    *(ModelSpec(name=name_of(op), backend_cls=_class_of(op.model_type)) for op in all_operations()),
    ModelSpec(name="echo", backend_cls=Patient, backend_kwargs={"seconds": 0.05}),
]
FORECASTS = ["statsforecast"]
MOVING = [ModelSpec(name="atoms", backend_cls=Moving)]
