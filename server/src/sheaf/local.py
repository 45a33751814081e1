"""The models of one process by name: what the in-process client and the embedded server share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Self

from sheaf.backends.operations import served_by
from sheaf.engine import ModelRuntime
from sheaf.observability import Telemetry, process_telemetry
from sheaf.spec import ModelSpec, SpecLike, as_specs
from sheaf_client.contracts.models import ModelInfo, ModelList
from sheaf_client.contracts.problem import Fault
from sheaf_client.errors import InvalidRequestError, ModelNotFoundError


class LocalModels:
    """Runtimes by the names of their models, under the eyes of `telemetry`, by default the process's."""

    def __init__(self, models: Iterable[SpecLike] | SpecLike, telemetry: Telemetry | None = None) -> None:
        self.telemetry = telemetry or process_telemetry()
        self.runtimes = {spec.name: ModelRuntime(spec, self.telemetry) for spec in as_specs(models)}
        self.telemetry.watch(self)

    @classmethod
    def start(cls, models: Iterable[SpecLike] | SpecLike, telemetry: Telemetry | None = None) -> Self:
        """Load all models; where one fails, those loaded before it are let go."""
        held = cls(models, telemetry)
        with contextlib.ExitStack() as loaded:
            for runtime in held.runtimes.values():
                loaded.callback(runtime.stop)
                runtime.start()
            loaded.pop_all()
        return held

    def get(self, name: str) -> ModelRuntime:
        """The model of that name; raises `ModelNotFoundError`."""
        runtime = self.runtimes.get(name)
        if runtime is None:
            raise ModelNotFoundError(f"No model is called {name[:128]!r}.")
        return runtime

    def find(self, name: str, model_type: str) -> ModelRuntime:
        """The model of that name and contract."""
        runtime = self.get(name)
        if runtime.spec.model_type != model_type:
            fault = Fault(
                code="mismatch", path="/model_type", message=f"{name} serves {runtime.spec.model_type}."
            )
            raise InvalidRequestError("The request is for another model type.", errors=[fault])
        return runtime

    def list(self) -> ModelList:
        """What is deployed, in order of names."""
        runtimes = (self.runtimes[name] for name in sorted(self.runtimes))
        return ModelList(models=[describe(runtime.spec, ready=runtime.ready) for runtime in runtimes])

    def stop(self) -> None:
        """Let every model finish what waits, then let go of it."""
        for runtime in self.runtimes.values():
            runtime.stop()
        self.telemetry.forget(self)

    def __repr__(self) -> str:
        return f"local: {', '.join(sorted(self.runtimes))}"


def describe(spec: ModelSpec, *, ready: bool) -> ModelInfo:
    """The public description of one model."""
    from sheaf.http._routes import OPERATIONS

    served = served_by(spec.backend_class)
    paths = [
        op.path.replace("{model_name}", spec.name)
        for op in OPERATIONS
        if op.model_type == spec.model_type and op.name in served
    ]
    return ModelInfo(
        name=spec.name, model_type=spec.model_type, backend=spec.backend_name, operations=paths, ready=ready
    )
