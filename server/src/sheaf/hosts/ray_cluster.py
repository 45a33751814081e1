"""What Ray Serve runs on a cluster: whose applications, on which routes, and why one did not come up.

Several programs may share a cluster. Each application of Sheaf's says in its settings whose it is and what it
serves, so that a server takes away its own alone, and replaces nobody else's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from ray import get_runtime_context
from ray import serve as ray_serve
from ray._private import state as ray_state
from ray.serve import context as serve_context
from ray.serve.schema import ApplicationStatus, ServeInstanceDetails

from sheaf.ray_errors import cause_of
from sheaf_client.contracts.models import ModelInfo

#: Ray annotates its functions only in part, so they are used without types.
serve: Any = ray_serve
_context: Any = serve_context
_jobs: Any = ray_state
_runtime_context: Any = get_runtime_context

#: Name of the application at `/`: the list of models, the document and its page.
INDEX = "sheaf-index"
_MEMBER = "sheaf"
#: Seconds between two looks at the cluster.
_POLL = 0.1
#: Applications of these have come up, or have not.
_SETTLED = (ApplicationStatus.RUNNING, ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY)


class Mark(BaseModel):
    """What an application of Sheaf's says of itself, in the `user_config` of its deployment.

    Attributes:
        server: Identifier of the `ModelServer` that deployed it; empty where none did.
        job: Ray's identifier of that server's program.
        model: What it serves; None for the list of models.
    """

    server: str = ""
    job: str = ""
    model: ModelInfo | None = None

    def as_config(self) -> dict[str, Any]:
        """The `user_config` that says it."""
        return {_MEMBER: self.model_dump(mode="json")}


@dataclass(frozen=True)
class Deployed:
    """An application on the cluster; `mark` is None where it is not Sheaf's."""

    name: str
    route: str | None
    status: ApplicationStatus
    mark: Mark | None
    messages: tuple[str, ...]

    @property
    def ready(self) -> bool:
        """Whether it is up as it was deployed last."""
        return self.status == ApplicationStatus.RUNNING

    @property
    def cause(self) -> str:
        """Why it did not come up, as far as its replicas tell."""
        return next((cause_of(text.partition("Error:\n")[2] or text) for text in self.messages if text), "")


def own_mark(server: str, model: ModelInfo | None = None) -> Mark:
    """The mark of an application that this program deploys."""
    return Mark(server=server, job=_runtime_context().get_job_id(), model=model)


def forget_ended() -> bool:
    """Forget the Ray Serve of a cluster that is no more, and say whether there was one.

    Serve keeps its client after Ray has ended, and tells clusters apart by the number of a program's job,
    which starts at one in each: the next cluster of a program would be asked through a client of the last.
    """
    client, kept = _context._check_cached_client_alive()  # noqa: SLF001 - no other way
    return kept and client is None


def _client() -> Any:
    # What `serve.status()` reads too, which leaves routes and settings out; None where Serve is not up.
    return _context._get_global_client(raise_if_no_controller_running=False)  # noqa: SLF001 - no other way


def address() -> tuple[str, int] | None:
    """Host and port at which Ray Serve listens, as whoever started it has said; None where it is not up."""
    client = _client()
    return None if client is None else (client.http_config.host, client.http_config.port)


def applications() -> dict[str, Deployed]:
    """What is on the cluster by name, save for what is being deleted."""
    client = _client()
    if client is None:
        return {}
    details = ServeInstanceDetails(**client.get_serve_details())
    return {
        name: Deployed(
            name=name,
            route=app.route_prefix,
            status=app.status,
            mark=_mark_of(app),
            messages=(*(deployment.message for deployment in app.deployments.values()), app.message),
        )
        for name, app in details.applications.items()
        if app.status not in (ApplicationStatus.DELETING, ApplicationStatus.NOT_STARTED)
    }


def _mark_of(app: Any) -> Mark | None:
    for deployment in app.deployments.values():
        config = deployment.deployment_config.user_config
        if isinstance(config, dict) and _MEMBER in config:
            try:
                return Mark.model_validate(config[_MEMBER])
            except ValidationError:
                return None
    return None


def served_models() -> list[ModelInfo]:
    """Sheaf's models on the whole cluster, in order of names; those on other routes than theirs are not."""
    marked = ((app, app.mark.model) for app in applications().values() if app.mark is not None)
    return [
        model.model_copy(update={"ready": app.ready})
        for app, model in sorted(marked, key=lambda pair: pair[0].name)
        if model is not None and app.route == f"/{model.name}"
    ]


def check_free(names: Iterable[str], server: str) -> None:
    """Raise `ValueError` where a name, its route or `/` is another's than that server's.

    What a server whose program ended without a word has left behind is free.
    """
    there = applications()
    routes = {app.route: app for app in there.values() if app.route is not None}
    for name in names:
        if name == INDEX:
            raise ValueError(f"{INDEX!r} is the name of Sheaf's list of models; give the model another")
        app = there.get(name)
        if app is not None and not _is_free(app, server):
            raise ValueError(
                f"the cluster has an application {name!r} that is not this server's: give the model another "
                f"name, or take that one away with `serve.delete({name!r})`"
            )
        _check_route(routes.get(f"/{name}"), name)
    listing = there.get(INDEX)
    if listing is not None and listing.mark is None:
        raise ValueError(f"the cluster has an application {INDEX!r} that is not Sheaf's: rename that one")
    _check_route(routes.get("/"), INDEX)


def _check_route(holder: Deployed | None, name: str) -> None:
    if holder is None or holder.name == name:
        return
    what = "Sheaf's list of models" if name == INDEX else f"the model {name!r}"
    raise ValueError(
        f"the application {holder.name!r} on the cluster has the route {holder.route}, which {what} needs: "
        "deploy that one with another `route_prefix`"
    )


def _is_free(app: Deployed, server: str) -> bool:
    mark = app.mark
    if mark is None or not mark.server:
        return False
    return mark.server == server or any(job["JobID"] == mark.job and job["IsDead"] for job in _jobs.jobs())


def owned(there: Mapping[str, Deployed], server: str) -> list[str]:
    """Those that are a server's models."""
    return [
        name
        for name, app in there.items()
        if app.mark is not None and app.mark.server == server and name != INDEX
    ]


def failures(names: Collection[str]) -> dict[str, str]:
    """Wait until each of these has come up or has failed; the causes of those that failed, where known."""
    found = _wait(lambda there: all(name not in there or there[name].status in _SETTLED for name in names))
    failed = ApplicationStatus.DEPLOY_FAILED
    return {
        name: found[name].cause if name in found else ""
        for name in names
        if name not in found or found[name].status == failed
    }


def delete(names: Collection[str], patience: float) -> None:
    """Let applications finish what they have accepted, then take them away; at most `patience` seconds."""
    for name in names:
        serve.delete(name, _blocking=False)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and any(name in serve.status().applications for name in names):
        time.sleep(_POLL)


def _wait(settled: Callable[[dict[str, Deployed]], bool]) -> dict[str, Deployed]:
    while not settled(there := applications()):
        time.sleep(_POLL)
    return there
