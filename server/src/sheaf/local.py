"""The models of one process by name: what the in-process client and the embedded server share."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Generator, Iterable, Sequence
from typing import Self

from sheaf.backends.operations import served_by
from sheaf.contract.operations import operations_of
from sheaf.engine import ModelRuntime
from sheaf.engine.gc_tuning import refreeze_heap
from sheaf.observability import Telemetry, process_telemetry
from sheaf.spec import ModelSpec, SpecLike, as_specs, hosted_specs
from sheaf_client.contracts.models import ModelInfo, ModelList
from sheaf_client.contracts.problem import Fault
from sheaf_client.errors import InvalidRequestError, ModelNotFoundError

log = logging.getLogger("sheaf.local")


class LocalModels:
    """Runtimes by the names of their models, which can be changed while others answer.

    They are under the eyes of `telemetry`, by default the process's.
    """

    def __init__(self, models: Iterable[SpecLike] | SpecLike, telemetry: Telemetry | None = None) -> None:
        self.telemetry = telemetry or process_telemetry()
        #: Replaced as a whole where it changes, so that whoever reads it needs no lock.
        self.runtimes = {spec.name: ModelRuntime(spec, self.telemetry) for spec in as_specs(models)}
        #: Names whose models are being changed, each by one thread.
        self._changing: set[str] = set()
        self._change = threading.Condition()
        self.telemetry.watch(self)

    @classmethod
    def start(cls, models: Iterable[SpecLike] | SpecLike, telemetry: Telemetry | None = None) -> Self:
        """Load all models; where one fails, those loaded before it are let go.

        Raises `ValueError` where there is none, and what the loading raises.
        """
        held = cls(hosted_specs(models), telemetry)
        with contextlib.ExitStack() as loaded:
            for runtime in held.runtimes.values():
                loaded.callback(runtime.stop)
                runtime.start()
            loaded.pop_all()
        return held

    def start_all(self) -> None:
        """Load the models that are not loaded yet, one after another; raises what that raises."""
        for name in list(self.runtimes):
            with self._change_of(name):
                runtime = self.runtimes.get(name)
                if runtime is not None and not runtime.ready:
                    started = time.perf_counter()
                    runtime.start()
                    log.info("%s is ready after %.1f s", name, time.perf_counter() - started)

    def load(self, spec: SpecLike) -> None:
        """Load one more model; raises `ValueError` where the name is taken, and what its loading raises."""
        (spec,) = as_specs(spec)
        with self._change_of(spec.name):
            if spec.name in self.runtimes:
                raise ValueError(f"two models are called {spec.name!r}")
            self._put(spec)

    def update(self, spec: SpecLike) -> None:
        """Replace the model of that name with no request dropped.

        The new version is loaded first, so for a while both are in memory; then it takes over at once, and
        the old one finishes what it has accepted. Where the new one does not come up, what its loading raised
        is raised here, and the old one goes on serving. Raises `ModelNotFoundError` for an unknown name.
        """
        (spec,) = as_specs(spec)
        with self._change_of(spec.name):
            self.get(spec.name)
            self._put(spec)

    def put(self, spec: SpecLike, *, timeout: float | None = None) -> bool:
        """`load` or `update`, whichever it is; whether the name is new.

        Raises `DeadlineExceededError`, and nothing has changed, where loading takes longer than `timeout`.
        """
        (spec,) = as_specs(spec)
        with self._change_of(spec.name):
            new = spec.name not in self.runtimes
            self._put(spec, timeout)
        return new

    def unload(self, name: str) -> None:
        """Finish what waits for a model, then let go of it; raises `ModelNotFoundError`."""
        with self._change_of(name):
            runtime = self.get(name)
            with self._change:
                self.runtimes = {key: value for key, value in self.runtimes.items() if key != name}
            runtime.stop()
            del runtime
            refreeze_heap()

    def specs(self) -> Sequence[ModelSpec]:
        """What is deployed, in order of names."""
        runtimes = self.runtimes
        return [runtimes[name].spec for name in sorted(runtimes)]

    def known(self) -> Sequence[str]:
        """The names of what is deployed, in order."""
        return sorted(self.runtimes)

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
        runtimes = [runtime for _, runtime in sorted(self.runtimes.items())]
        return ModelList(models=[describe(runtime.spec, ready=runtime.ready) for runtime in runtimes])

    def refuse(self) -> None:
        """Refuse what waits and what runs, for the host is at its end; `stop` is to follow."""
        for runtime in self.runtimes.values():
            runtime.refuse()

    def stop(self) -> None:
        """Let every model finish what waits, then let go of it."""
        for runtime in self.runtimes.values():
            runtime.stop()
        self.telemetry.forget(self)

    def _put(self, spec: ModelSpec, timeout: float | None = None) -> None:
        new = ModelRuntime(spec, self.telemetry)
        new.start(timeout=timeout)
        with self._change:
            old = self.runtimes.get(spec.name)
            self.runtimes = {**self.runtimes, spec.name: new}
        if old is not None:
            old.hand_over(new)
            del old
        refreeze_heap()

    @contextlib.contextmanager
    def _change_of(self, name: str) -> Generator[None]:
        """One change of a model after the other; one that hangs holds up those of its own model alone."""
        with self._change:
            self._change.wait_for(lambda: name not in self._changing)
            self._changing.add(name)
        try:
            yield
        finally:
            with self._change:
                self._changing.discard(name)
                self._change.notify_all()

    def __repr__(self) -> str:
        return f"local: {', '.join(sorted(self.runtimes))}"


def describe(spec: ModelSpec, *, ready: bool) -> ModelInfo:
    """The public description of one model."""
    served = served_by(spec.backend_class, spec.model_type)
    paths = [
        op.path.replace("{model_name}", spec.name)
        for op in operations_of(spec.model_type)
        if op.name in served
    ]
    backend = spec.backend_class
    return ModelInfo(
        name=spec.name,
        model_type=spec.model_type,
        backend=spec.backend_name,
        operations=paths,
        ready=ready,
        title=None if backend.info is None else backend.info.title,
        streams=backend.streams(),
        adapters=spec.lora is not None,
        contexts=backend.keeps_contexts,
    )
