"""Models on Modal: one container class over the same ASGI app as the embedded server.

Needs the extra `modal`, which is imported when the app is built.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from importlib.metadata import metadata, requires
from inspect import signature
from typing import TYPE_CHECKING, Any, cast

from starlette.types import ASGIApp

from sheaf.carried import with_class
from sheaf.extras import needs
from sheaf.http import create_app
from sheaf.http.keys import Access
from sheaf.http.limits import Limits
from sheaf.local import LocalModels
from sheaf.observability import Telemetry, configure_logging, start_tracing
from sheaf.spec import ModelSpec, SpecLike, hosted_specs

if TYPE_CHECKING:
    from packaging.requirements import Requirement

#: Settings of `modal.App.cls` that are made here, and arguments of the server, for a name that is near.
_OWN_OPTIONS = {"self", "serialized", "image"}
_ARGUMENTS = ("models", "app", "name", "image", "extras", "gpu", "secrets", "limits", "access", "public")
#: Packages whose source on this machine goes into the image.
_PACKAGES = {"sheaf-serve": "sheaf", "sheaf-client": "sheaf_client"}


class ModalServer:
    """Models in containers of Modal, which come and go with the load.

        server = ModalServer(["statsforecast"], extras=["statsforecast"])
        print(server.deploy())

    With `app = server.app` in a module, `modal deploy module.py` does the same; a module that has a
    `modal.App` of its own gives it as `app` and calls `build()`. The settings and the models travel with the
    deployment, so backends must be importable in the image, unless they are written in the program that
    deploys; those of Sheaf's own are.

    Args:
        models: Specs, or names of backends whose defaults will do; one container holds them all.
        app: The `modal.App` that the models are added to; when absent one is made.
        name: Name of the app that is made, `sheaf` when absent.
        image: The `modal.Image` of the containers, with Sheaf and the models' libraries in it. When absent
            one is made of this machine's Sheaf and the needs of `extras`, with this Python's version.
        extras: Extras of `sheaf-serve` that the image gets.
        gpu: GPU of a container as Modal names it, such as `"L4"`; needed where a model asks for one.
        secrets: `modal.Secret`s whose variables the containers see.
        limits: Sizes and times that are accepted.
        access: Who may call, besides what `SHEAF_API_KEYS` says here and among the `secrets`. Each container
            counts its callers' requests for itself.
        public: Let anyone call it. Otherwise callers send a proxy token of the workspace, as the headers
            `Modal-Key` and `Modal-Secret`.
        options: Further settings of `modal.App.cls`, such as `volumes`, `region`, `min_containers`.

    Raises:
        TypeError: An option is no setting of `modal.App.cls`, or `app` is no `modal.App`.
        ValueError: There is no model, one asks for a GPU and none is named, or both `app` and `name` are
            given.
    """

    def __init__(
        self,
        models: Iterable[SpecLike] | SpecLike,
        *,
        app: Any = None,
        name: str | None = None,
        image: Any = None,
        extras: Sequence[str] = (),
        gpu: str | list[str] | None = None,
        secrets: Sequence[Any] = (),
        limits: Limits | None = None,
        access: Access | None = None,
        public: bool = False,
        **options: Any,
    ) -> None:
        self._access = Access.from_environment(access)
        self.specs: list[ModelSpec] = [self._access.weigh(spec) for spec in hosted_specs(models)]
        if gpu is None and (hungry := [s.name for s in self.specs if s.resources.num_gpus]):
            raise ValueError(f"{hungry[0]} asks for a GPU: say which, such as gpu='L4'")
        if app is not None and not hasattr(app, "cls"):
            raise TypeError(f"app: expected a modal.App, not {app!r}; the name of one is `name`")
        if app is not None and name is not None:
            raise ValueError("app has a name already: give app or name, not both")
        _check_options(options)
        self._given_app, self._name = app, name or "sheaf"
        self._image, self._extras = image, tuple(extras)
        self._limits, self._public = limits or Limits(), public
        resources = [spec.resources for spec in self.specs]
        memory = sum(r.memory_gb or 0 for r in resources)
        self._options: dict[str, Any] = {
            "cpu": sum(r.num_cpus for r in resources) or None,
            "memory": int(memory * 1024) or None,
            "gpu": gpu,
            "secrets": list(secrets),
            **options,
        }

    @property
    def concurrency(self) -> tuple[int, int]:
        """Requests that a container takes at most, and those beyond which Modal starts another.

        The first is what the engines may hold: below it Modal would hold requests back and starve every
        batch. The second is a batch that runs and one in line for each model, which keeps it busy.
        """
        policies = [spec.batch_policy for spec in self.specs]
        most = sum(p.max_queue + p.max_batch_size for p in policies)
        return most, sum(min(2 * p.max_batch_size, p.max_queue + p.max_batch_size) for p in policies)

    @cached_property
    def app(self) -> Any:
        """The `modal.App`, with the models on it."""
        _ = self.container  # registers itself
        return self._app

    def build(self) -> Any:
        """The `modal.App` with the models added to it, where `modal deploy` and `modal serve` find them."""
        return self.app

    @cached_property
    def container(self) -> Any:
        """The `modal.Cls` that runs the models; its one endpoint is `web`."""
        modal = _modal()
        most, target = self.concurrency
        concurrent = modal.concurrent(max_inputs=most, target_inputs=target)
        image = self._image if self._image is not None else default_image(self._extras)
        cls = self._app.cls(image=image, serialized=True, **self._options)
        specs = [with_class(spec) for spec in self.specs]
        return cls(concurrent(_container(specs, self._limits, self._access, public=self._public)))

    @cached_property
    def _app(self) -> Any:
        return _modal().App(self._name) if self._given_app is None else self._given_app

    def deploy(self, **options: Any) -> str | None:
        """Deploy to the workspace that `modal setup` chose; the URL of the models.

        Args:
            options: Settings of `modal.App.deploy`, such as `environment_name`.
        """
        self.app.deploy(**options)
        url: str | None = self.container().web.get_web_url()
        return url


def _check_options(options: Mapping[str, Any]) -> None:
    """Refuse an option where it is given, not where the app is built."""
    if not options:
        return
    known = {
        name for name in signature(_modal().App.cls).parameters if not name.startswith("_")
    } - _OWN_OPTIONS
    if unknown := sorted(options.keys() - known):
        near = get_close_matches(unknown[0], [*known, *_ARGUMENTS], 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise TypeError(
            f"{unknown[0]!r} is no argument of ModalServer and no setting of modal.App.cls.{hint}"
        )


def default_image(extras: Sequence[str] = ()) -> Any:
    """A Debian image with this machine's Sheaf, what it needs, and what the extras need."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    image = _modal().Image.debian_slim(python_version=python)
    return image.pip_install(*requirements(extras)).add_local_python_source(*_PACKAGES.values())


def requirements(extras: Sequence[str] = ()) -> list[str]:
    """What `sheaf-serve` with these extras needs of the package index; `ValueError` for an unknown one."""
    with needs("ModalServer", "modal"):
        from packaging.requirements import Requirement

    offered: list[str] = metadata("sheaf-serve").get_all("Provides-Extra") or []
    if unknown := sorted(set(extras) - set(offered)):
        raise ValueError(f"sheaf-serve has no extra {unknown[0]!r}; it has {', '.join(sorted(offered))}")
    lines = [Requirement(line) for package in _PACKAGES for line in requires(package) or ()]
    wanted = {
        _without_marker(need)
        for need in lines
        if need.name not in _PACKAGES
        and (need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *extras)))
    }
    return sorted(wanted)


def _without_marker(need: Requirement) -> str:
    extras = f"[{','.join(sorted(need.extras))}]" if need.extras else ""
    return f"{need.name}{extras}{need.specifier}"


def _container(specs: Sequence[ModelSpec], limits: Limits, access: Access, *, public: bool) -> type:
    """The class that a container makes one object of. It holds runtimes, and nothing else of its own."""

    class Models:
        def start(self) -> None:
            configure_logging(default="info")
            start_tracing()
            self._models = LocalModels.start(specs, Telemetry())

        def stop(self) -> None:
            self._models.stop()

        def web(self) -> ASGIApp:
            return create_app(self._models, limits=limits, access=Access.from_environment(access))

    modal, cls = _modal(), cast("Any", Models)
    cls.start = modal.enter()(cls.start)
    cls.stop = modal.exit()(cls.stop)
    cls.web = modal.asgi_app(requires_proxy_auth=not public)(cls.web)
    return Models


def _modal() -> Any:
    """Imported when it is used, and without types: its decorators are annotated only in part."""
    with needs("ModalServer", "modal"):
        return importlib.import_module("modal")
