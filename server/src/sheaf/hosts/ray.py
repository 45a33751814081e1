"""Models on Ray Serve: one application per model at `/{model_name}`, our engine in each replica.

Ray gives replicas, routing, autoscaling and rolling updates; batching, refusal and order stay with the
engine, so a replica accepts all that the engine may queue and is the only place where requests wait.
A server touches no application of the cluster but its own.
"""

from __future__ import annotations

import atexit
import logging
import signal
import threading
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sheaf.carried import pack, unpack, with_class
from sheaf.engine.gc_tuning import freeze_heap
from sheaf.extras import needs
from sheaf.hosts.ray_proxy import HTTPMode, check_mode, start_ray
from sheaf.http import create_app
from sheaf.http.keys import Access
from sheaf.http.limits import Limits
from sheaf.local import LocalModels, describe
from sheaf.observability import Telemetry, configure_logging, start_tracing
from sheaf.observability.ray_export import export_to_ray
from sheaf.spec import ModelSpec, SpecLike, as_specs, hosted_specs
from sheaf_client.contracts.models import ModelList
from sheaf_client.errors import ModelNotFoundError

with needs("ModelServer", "ray"):
    import ray as ray_core
    from ray import serve as ray_serve
    from ray.serve.exceptions import RayServeException

    from sheaf.hosts import ray_cluster as cluster
    from sheaf.hosts.ray_cluster import INDEX, Mark

if TYPE_CHECKING:
    from ray.serve import Application

    from sheaf.engine import ModelRuntime

log = logging.getLogger("sheaf.server")

#: Ray annotates its functions and decorators only in part, so they are used without types.
ray: Any = ray_core
serve: Any = ray_serve

#: Requests over the engine's limit that a replica takes in to refuse them.
REFUSED_AT_ONCE = 64
#: Seconds a replica may take to answer what it has accepted when it is replaced.
DRAIN_SECONDS = 60.0


class UpdateFailedError(RuntimeError):
    """The new version of a model did not come up, and why; the old one goes on serving."""


def build_app(spec: SpecLike, *, limits: Limits | None = None, access: Access | None = None) -> Application:
    """The Ray Serve application of one model, for `serve.run` or a KubeRay configuration.

    Who may call is settled here, with what the environment of this process says: replicas have another one.
    Each replica counts its callers' requests for itself. A backend that this program registered goes along.

    Raises `ValueError` where the settings do not fit the backend, or it cannot be sent to replicas.
    """
    (spec,) = as_specs(spec)
    return _application(spec, limits or Limits(), Access.from_environment(access), Mark())


def _application(spec: ModelSpec, limits: Limits, access: Access, mark: Mark) -> Application:
    spec = with_class(access.weigh(spec))
    try:
        spec.make_backend()
    except Exception as error:
        raise ValueError(f"{spec.name!r} cannot be deployed: {error}") from error
    mark = mark.model_copy(update={"model": describe(spec, ready=False)})
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
        user_config=mark.as_config(),
    ).bind(pack(spec, spec), limits, access)
    return application


@serve.deployment
@serve.ingress()
class _ModelReplica:
    """One replica: a model and the app over it."""

    def __init__(self, packed: bytes, limits: Limits, access: Access) -> None:
        self._limits, self._access = limits, access
        configure_logging()
        start_tracing()
        telemetry = Telemetry()
        self._models = LocalModels.start(unpack(packed), telemetry)
        freeze_heap()
        export_to_ray(telemetry)

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Ray gives every replica the mark of its application, which is for others to read."""

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return _behind_ray(create_app(self._models, limits=self._limits, access=self._access))

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
        """As in replicas of models."""

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return _behind_ray(create_app(self._models, limits=self._limits, access=self._access))


class _DeployedModels:
    """The models of other applications, of all programs on the cluster: answered elsewhere."""

    def __init__(self) -> None:
        self.telemetry = Telemetry()

    def get(self, name: str) -> ModelRuntime:
        raise ModelNotFoundError(f"No model is called {name[:128]!r}.")

    def known(self) -> Sequence[str]:
        return ()  # the cluster must be asked, which takes a while

    def list(self) -> ModelList:
        return ModelList(models=cluster.served_models())


class ModelServer:
    """Models on a Ray cluster: this machine's own where none is connected yet.

        server = ModelServer(models=[ModelSpec(name="chronos", backend="chronos2", …)])
        server.run()

    It lasts as long as its program, or its `with` block: what it deployed goes with it, however that ends.
    Other programs' applications on the cluster stay, and so does Ray Serve with them. To leave a model on a
    cluster, deploy `build_app(spec)` by `serve.run`.

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
        self._specs = {spec.name: spec for spec in hosted_specs(models)}
        self._host, self._port = host, port
        self._limits = limits or Limits()
        self._mode: HTTPMode = http_mode
        self._id = uuid4().hex
        #: Whether this server started Ray, which ends with the program, and Ray Serve.
        self._began_ray = self._began_serve = False

    @property
    def url(self) -> str:
        """Base URL of the proxy on this machine; once it runs, that of the Ray Serve it found."""
        return f"http://{self._host}:{self._port}"

    @property
    def specs(self) -> list[ModelSpec]:
        """What is deployed, or will be by `run`."""
        return list(self._specs.values())

    def run(self, *, blocking: bool = False) -> None:
        """Deploy every model and return when all are ready, or with `blocking` when interrupted.

        Raises:
            ValueError: Nothing was deployed: a name or a route is another program's, or the settings of a
                model do not fit its backend.
            RuntimeError: A model did not come up, and why; the others go on serving.
        """
        applications = self._start(self._specs.values())
        targets = [
            serve.RunTarget(application, name=name, route_prefix=f"/{name}")
            for name, application in applications.items()
        ]
        # All at once: one after another, each would wait for the start of the processes before it.
        try:
            serve.run_many(targets)
        except (RuntimeError, RayServeException) as error:
            self._tell_failures(error)
        self._publish()
        if blocking:
            _wait_for_signal()
            self.shutdown()

    def __enter__(self) -> Self:
        try:
            self.run()
        except BaseException:
            self.shutdown()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()

    def update(self, spec: SpecLike) -> None:
        """Replace a model, or add one, with no request dropped.

        Raises:
            UpdateFailedError: The new version did not come up, and why; the old one goes on serving.
            ValueError: The model is a new one, and its name or its route is another program's.
        """
        (spec,) = as_specs(spec)
        old = self._specs.get(spec.name)
        self._start([])
        cluster.check_free([spec.name], self._id)
        try:
            application = self._build(spec)
        except ValueError as error:
            raise UpdateFailedError(str(error)) from error
        try:
            self._deploy(spec.name, application)
        except (RuntimeError, RayServeException) as error:
            cause = cluster.failures([spec.name]).get(spec.name) or str(error)
            if old is None:
                cluster.delete([spec.name], DRAIN_SECONDS)
            else:
                self._deploy(old.name, self._build(old))
            raise UpdateFailedError(f"the new version of {spec.name!r} did not come up: {cause}") from error
        self._specs[spec.name] = spec
        self._publish()

    def remove(self, name: str) -> None:
        """Let a model finish what it has accepted, then take it away; raises `KeyError` for another's."""
        del self._specs[name]
        if name in cluster.owned(cluster.applications(), self._id):
            cluster.delete([name], DRAIN_SECONDS)

    def shutdown(self) -> None:
        """Take this server's models away; Ray Serve too where it started that and nobody else's are there."""
        atexit.unregister(self._end)
        if not ray.is_initialized() or cluster.forget_ended():
            return  # they ended with their cluster
        there = cluster.applications()
        leaving = cluster.owned(there, self._id)
        others = {name: app for name, app in there.items() if name not in {*leaving, INDEX}}
        if self._began_serve and not others:
            self._began_serve = False
            serve.shutdown()
            return
        listing = there.get(INDEX)
        if listing is not None and listing.mark and not any(app.mark for app in others.values()):
            leaving.append(INDEX)  # the last of Sheaf's servers takes the list of models along
        cluster.delete(leaving, DRAIN_SECONDS)

    def _start(self, specs: Iterable[ModelSpec]) -> dict[str, Application]:
        """Have Ray Serve there, and the applications of these models ready to be deployed on it."""
        atexit.unregister(self._end)
        atexit.register(self._end)
        self._began_ray = start_ray(self._mode) or self._began_ray
        cluster.forget_ended()
        specs = list(specs)
        cluster.check_free([spec.name for spec in specs], self._id)
        applications = {spec.name: self._build(spec) for spec in specs}
        at = cluster.address()
        if at is None:
            self._began_serve = True
            serve.start(http_options={"host": self._host, "port": self._port})
        else:
            self._host, self._port = at
        return applications

    def _tell_failures(self, error: Exception) -> None:
        """Raise why models did not come up, once the others have; nothing is left of those."""
        causes = cluster.failures(self._specs)
        if not causes:
            raise error
        own = cluster.owned(cluster.applications(), self._id)
        cluster.delete([name for name in causes if name in own], DRAIN_SECONDS)
        self._publish()
        told = "; ".join(f"{name!r} did not come up: {cause or error}" for name, cause in causes.items())
        raise RuntimeError(told) from error

    def _deploy(self, name: str, application: Application) -> None:
        serve.run(application, name=name, route_prefix=f"/{name}")

    def _build(self, spec: ModelSpec) -> Application:
        return _application(spec, self._limits, self._access, cluster.own_mark(self._id))

    def _publish(self) -> None:
        """Have the list of models at `/`: it is one for all servers on the cluster, by the first of them."""
        if INDEX in cluster.applications():
            return
        index: Any = _Index
        config = cluster.own_mark(self._id).as_config()
        application = index.options(user_config=config).bind(self._limits, self._access)
        serve.run(application, name=INDEX, route_prefix="/")

    def _end(self) -> None:
        """What the end of the program leaves to be done."""
        if not self._began_ray:
            self.shutdown()


def _behind_ray(app: ASGIApp) -> ASGIApp:
    """The app as Ray calls it.

    It sees whole paths: Ray's route prefix is part of them, not a mount point. And it leaves `X-Request-ID`
    to Ray, which names the requests that come without it, and writes it into every answer by itself.
    """

    async def behind_ray(scope: Scope, receive: Receive, send: Send) -> None:
        async def without_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [header for header in message["headers"] if header[0] != b"x-request-id"]
                message = {**message, "headers": headers}
            await send(message)

        await app({**scope, "root_path": ""} if "root_path" in scope else scope, receive, without_id)

    return behind_ray


def _wait_for_signal() -> None:
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda _number, _frame: stop.set()) for number in numbers]
    stop.wait()
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
