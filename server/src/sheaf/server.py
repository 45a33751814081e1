"""Models on Ray Serve: one application per model at `/{model_name}`, our engine in each replica.

Ray gives replicas, routing, autoscaling and rolling updates; batching, refusal and order stay with the
engine, so a replica accepts all that the engine may queue and is the only place where requests wait.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ray import serve as ray_serve
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatus
from starlette.types import ASGIApp, Receive, Scope, Send

from sheaf.engine.heap import settle_heap
from sheaf.http import create_app
from sheaf.http.keys import Access
from sheaf.http.limits import Limits
from sheaf.local import LocalModels, describe
from sheaf.observability import Telemetry, configure_logging, start_tracing
from sheaf.observability.ray_export import export_to_ray
from sheaf.ray_proxy import HTTPMode, check_mode, start_ray
from sheaf.spec import ModelSpec, SpecLike, as_specs
from sheaf_client.contracts.models import ModelInfo, ModelList
from sheaf_client.errors import ModelNotFoundError

if TYPE_CHECKING:
    from ray.serve import Application

    from sheaf.engine import ModelRuntime

log = logging.getLogger("sheaf.server")

#: Ray annotates its functions and decorators only in part, so they are used without types.
serve: Any = ray_serve

#: Name of the application at `/`: the list of models, the document and its page.
INDEX = "sheaf-index"
#: Requests over the engine's limit that a replica takes in to refuse them.
REFUSED_AT_ONCE = 64
#: Seconds a replica may take to answer what it has accepted when it is replaced.
DRAIN_SECONDS = 60.0


class UpdateFailedError(RuntimeError):
    """The new version of a model did not come up; the old one goes on serving."""


def build_app(spec: SpecLike, *, limits: Limits | None = None, access: Access | None = None) -> Application:
    """The Ray Serve application of one model, for `serve.run` or a KubeRay configuration.

    Who may call is settled here, with what the environment of this process says: replicas have another one.
    Each replica counts its callers' requests for itself.
    """
    access = Access.from_environment(access)
    (spec,) = as_specs(spec)
    spec = access.weigh(spec)
    resources = spec.resources
    options: dict[str, Any] = {"num_cpus": resources.num_cpus, "num_gpus": resources.num_gpus}
    if resources.memory_gb is not None:
        options["memory"] = int(resources.memory_gb * 2**30)
    policy = spec.batch_policy
    replica: Any = _ModelReplica  # the decorator has made a deployment of the class
    application: Application = replica.options(
        name=spec.name,
        num_replicas=resources.replicas,
        ray_actor_options=options,
        # Below what the engine queues, Ray would hold requests back in its routers and starve every batch;
        # the room above it lets the engine itself refuse what is too much, with its hint when to come back.
        max_ongoing_requests=policy.max_queue + 2 * policy.max_batch_size + REFUSED_AT_ONCE,
        # What not even a refusal is ready for waits in Ray's routers, and not without end.
        max_queued_requests=policy.max_queue,
        # A new replica is up before its predecessor goes, so that an update leaves no gap.
        max_surge_percent=100,
        max_constructor_retry_count=1,
        graceful_shutdown_timeout_s=DRAIN_SECONDS,
    ).bind(spec, limits or Limits(), access)
    return application


@serve.deployment
@serve.ingress()
class _ModelReplica:
    """One replica: a model and the app over it."""

    def __init__(self, spec: ModelSpec, limits: Limits, access: Access) -> None:
        self._limits, self._access = limits, access
        configure_logging()
        start_tracing()
        telemetry = Telemetry()
        self._models = LocalModels.start(spec, telemetry)
        settle_heap()
        export_to_ray(telemetry)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return _at_root(create_app(self._models, limits=self._limits, access=self._access))

    async def check_health(self) -> None:
        """Ray replaces a replica whose model cannot answer any more."""
        for runtime in self._models.runtimes.values():
            if not runtime.ready:
                raise RuntimeError(f"{runtime.spec.name} is not ready")


@serve.deployment(name=INDEX, ray_actor_options={"num_cpus": 0}, max_surge_percent=100)
@serve.ingress()
class _Index:
    """What is at `/`: `/models`, `/docs`, `/openapi.json`; and a 404 for models that are not there."""

    def __init__(self, limits: Limits, access: Access) -> None:
        configure_logging()
        self._models = _DeployedModels()
        self._limits, self._access = limits, access

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        self._models.infos = ModelList.model_validate(user_config).models

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return _at_root(create_app(self._models, limits=self._limits, access=self._access))


class _DeployedModels:
    """The models of other applications: known by name, answered elsewhere."""

    def __init__(self) -> None:
        self.infos: list[ModelInfo] = []
        self.telemetry = Telemetry()

    def get(self, name: str) -> ModelRuntime:
        raise ModelNotFoundError(f"No model is called {name[:128]!r}.")

    def list(self) -> ModelList:
        running = {
            name
            for name, app in serve.status().applications.items()
            if app.status == ApplicationStatus.RUNNING
        }
        return ModelList(
            models=[info.model_copy(update={"ready": info.name in running}) for info in self.infos]
        )


class ModelServer:
    """Models on a Ray cluster: this machine's own where none is connected yet.

        server = ModelServer(models=[ModelSpec(name="chronos", backend="chronos2", …)])
        server.run()

    Args:
        models: Specs, or names of backends whose defaults will do.
        host: Address the proxies listen on.
        port: Port the proxies listen on.
        limits: Sizes and times that are accepted.
        access: Who may call; `SHEAF_API_KEYS` adds to it. Models are changed by `update`, not by routes.
        http_mode: What stands before the replicas where `run` starts Ray and `RAY_SERVE_ENABLE_HA_PROXY` is
            not set: `"haproxy"`, which costs less per call, or `"proxy"`, Ray's own, which is better for
            bodies of megabytes. `"auto"` is `"haproxy"` where its package is installed. HAProxy listens at
            `host`, but shows its statistics on all networks of the machine. `ImportError` where it is
            asked for and not there.
    """

    def __init__(
        self,
        models: Iterable[SpecLike] | SpecLike,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        limits: Limits | None = None,
        access: Access | None = None,
        http_mode: HTTPMode = "auto",
    ) -> None:
        check_mode(http_mode)
        self._access = Access.from_environment(access)
        self._specs = {spec.name: spec for spec in as_specs(models)}
        self._host, self._port = host, port
        self._limits = limits or Limits()
        self._mode: HTTPMode = http_mode

    @property
    def url(self) -> str:
        """Base URL of the proxy on this machine."""
        return f"http://{self._host}:{self._port}"

    @property
    def specs(self) -> list[ModelSpec]:
        """What is deployed, or will be by `run`."""
        return list(self._specs.values())

    def run(self, *, blocking: bool = False) -> None:
        """Deploy every model and return when all are ready, or with `blocking` when interrupted.

        Raises `RuntimeError` where a model does not come up; the others go on serving.
        """
        start_ray(self._mode)
        serve.start(http_options={"host": self._host, "port": self._port})
        # All at once: one after another, each would wait for the start of the processes before it.
        targets = (
            serve.RunTarget(self._build(spec), name=name, route_prefix=f"/{name}")
            for name, spec in self._specs.items()
        )
        serve.run_many(list(targets))
        self._publish()
        if blocking:
            _wait_for_signal()
            self.shutdown()

    def update(self, spec: SpecLike) -> None:
        """Replace a model, or add one, with no request dropped.

        Raises `UpdateFailedError` where the new version does not come up; the old one goes on serving.
        """
        (spec,) = as_specs(spec)
        old = self._specs.get(spec.name)
        try:
            self._deploy(spec)
        except (RuntimeError, RayServeException) as error:
            if old is None:
                serve.delete(spec.name)
            else:
                self._deploy(old)
            raise UpdateFailedError(f"the new version of {spec.name!r} did not come up: {error}") from error
        self._specs[spec.name] = spec
        self._publish()

    def remove(self, name: str) -> None:
        """Let a model finish what it has accepted, then take it away."""
        del self._specs[name]
        self._publish()
        serve.delete(name)

    def shutdown(self) -> None:
        """Take all models away and stop Ray Serve."""
        serve.shutdown()

    def _deploy(self, spec: ModelSpec) -> None:
        serve.run(self._build(spec), name=spec.name, route_prefix=f"/{spec.name}")

    def _build(self, spec: ModelSpec) -> Application:
        return build_app(spec, limits=self._limits, access=self._access)

    def _publish(self) -> None:
        index: Any = _Index
        listed = ModelList(models=[describe(self._specs[name], ready=False) for name in sorted(self._specs)])
        serve.run(
            index.options(user_config=listed.model_dump()).bind(self._limits, self._access),
            name=INDEX,
            route_prefix="/",
        )


def _at_root(app: ASGIApp) -> ASGIApp:
    """The app sees whole paths: Ray's route prefix is part of them, not a mount point."""

    async def at_root(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "root_path": ""} if "root_path" in scope else scope, receive, send)

    return at_root


def _wait_for_signal() -> None:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())
    stop.wait()
