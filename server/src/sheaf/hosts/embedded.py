"""The embedded server: one process, uvicorn, this machine only unless told otherwise. No Ray."""

from __future__ import annotations

import atexit
import contextlib
import errno
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

import uvicorn

from sheaf.engine.gc_tuning import freeze_heap
from sheaf.hosts.ending import MARGIN, Ending
from sheaf.http import create_app
from sheaf.http.draining import DrainingServer
from sheaf.http.keys import Access
from sheaf.http.limits import Limits
from sheaf.http.protocol import bounded_protocol
from sheaf.local import LocalModels
from sheaf.observability import Telemetry, configure_logging, start_tracing
from sheaf.spec import ModelSpec, SpecLike, as_specs, hosted_specs

log = logging.getLogger("sheaf.server")

DEFAULT_PORT = 8000


class EmbeddedServer:
    """A server over models of this process.

    `run` serves until a signal comes; as a context manager it serves on a thread of its own:

        with EmbeddedServer(["statsforecast"], port=0) as server:
            Sheaf(server.url).time_series.forecast(...)

    Args:
        models: Specs, or names of backends whose defaults will do; none only with an admin's key.
        host: Address to listen on.
        port: Port to listen on; 0 for any that is free.
        limits: Sizes and times that are accepted.
        access: Who may call, and who may change models; `SHEAF_API_KEYS` and `SHEAF_ADMIN_KEY` add to it.
    """

    def __init__(
        self,
        models: Iterable[SpecLike] | SpecLike,
        *,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        limits: Limits | None = None,
        access: Access | None = None,
    ) -> None:
        self._access = Access.from_environment(access)
        # An admin may begin with none, and load them while it serves.
        specs = as_specs(models) if self._access.admin is not None else hosted_specs(models)
        self._models = LocalModels([self._access.weigh(spec) for spec in specs], Telemetry())
        self._host, self._port = host, port
        self._limits = (limits or Limits()).at(host)
        self._socket: socket.socket | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None

    @property
    def url(self) -> str:
        """Base URL of the server, once it listens."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    @property
    def access(self) -> Access:
        """Who may call, with what the environment adds."""
        return self._access

    @property
    def specs(self) -> list[ModelSpec]:
        """What is served."""
        return [runtime.spec for runtime in self._models.runtimes.values()]

    def run(self, *, on_ready: Callable[[], None] | None = None) -> None:
        """Serve in this thread until a signal ends it.

        Args:
            on_ready: Called once, when every model is loaded and the server answers, on another thread.

        Raises:
            OSError: The port cannot be listened at.
            Exception: What the loading of a model raised.
        """
        configure_logging(default="info", whole_process=True)
        start_tracing()
        with Ending(self._limits.drain_timeout) as ending:
            self._listen()
            server = self._make_server()

            def stop() -> None:
                server.should_exit = True

            ending.by(stop)
            loading = threading.Thread(
                target=self._load, args=(server, on_ready), name="sheaf-load", daemon=True
            )
            loading.start()
            try:
                server.run(sockets=[self._bound()])
            finally:
                self._models.stop()
            if self._failure is not None:
                raise self._failure

    def __enter__(self) -> Self:
        configure_logging()
        self._models.start_all()
        self._listen()
        server = self._make_server()
        self._thread = threading.Thread(
            target=server.run, args=([self._bound()],), name="sheaf-http", daemon=True
        )
        self._thread.start()
        atexit.register(self._end)
        while not server.started:
            if not self._thread.is_alive():
                raise RuntimeError("the server did not start")
            time.sleep(0.005)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(self._limits.drain_timeout + MARGIN)
            if self._thread.is_alive():
                log.error("the server did not come to its end in time; its thread is left")
            atexit.unregister(self._end)
        self._models.stop()

    def _end(self) -> None:
        """The process ends with the server running: its thread must not be in a call by then."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = self._server.force_exit = True
            self._thread.join(1)

    def _load(self, server: uvicorn.Server, on_ready: Callable[[], None] | None) -> None:
        """Load the models while the server already answers `/health`; a failure ends it."""
        try:
            self._models.start_all()
            freeze_heap()
        except Exception as error:  # noqa: BLE001 - told by `run`, in the thread that asked
            self._failure = error
            server.should_exit = True
            return
        while not server.started:
            if server.should_exit:
                return
            time.sleep(0.005)
        if on_ready is not None:
            on_ready()

    def _listen(self) -> None:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((self._host, self._port))
        except OSError as error:
            self._socket.close()
            if error.errno == errno.EADDRINUSE:
                text = (
                    f"port {self._port} of {self._host} is in use by another program; take another by --port"
                )
                raise OSError(errno.EADDRINUSE, f"{text} (port= in Python), 0 for any that is free") from None
            raise
        self._port = self._socket.getsockname()[1]

    def _bound(self) -> socket.socket:
        assert self._socket is not None  # noqa: S101 - `_listen` comes first
        return self._socket

    def _make_server(self) -> uvicorn.Server:
        app = create_app(self._models, limits=self._limits, access=self._access, changeable=self._models)

        def refuse() -> None:
            app.end()
            self._models.refuse()

        config = uvicorn.Config(
            app,
            http=bounded_protocol(self._limits),
            ws="none",
            log_level="warning",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
        )
        self._server = DrainingServer(config, seconds=self._limits.drain_timeout, refuse=refuse)
        return self._server
