"""The names under which a server may be asked.

A page of any name can have that name point at this machine (DNS rebinding), and a browser then takes a server
here for its own. What tells the two apart is the name in the request's `Host`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from sheaf_client.errors import MisdirectedError

#: The names of this machine for itself.
LOOPBACK: Final = ("localhost", "127.0.0.0/8", "::1")
#: Any name will do.
ANY = "*"
#: A name, or an address in brackets, with or without a port.
_HOST = re.compile(r"(?:\[([^\]]*)\]|([^:]*))(?::\d*)?")
_NAME = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?")
#: Most spellings that are remembered; their ports differ.
_MAX_SEEN = 1024


class Hosts:
    """Names that a server answers to, as `as_host` gives them."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._any = ANY in allowed
        self._names: set[str] = set()
        self._ends: list[str] = []
        self._networks: list[IPv4Network | IPv6Network] = []
        for name in allowed:
            if network := _network(name):
                self._networks.append(network)
            elif name.startswith("*."):
                self._ends.append(name[1:])
            else:
                self._names.add(name)
        self._seen: set[str] = set()

    def check(self, host: str) -> None:
        """Raise `MisdirectedError` for a `Host` that is not allowed; none at all is no page's."""
        if host in self._seen:
            return
        if not self._any and host and not self._is_allowed(host):
            raise MisdirectedError(
                f"This server does not answer to {host[:100]!r}: `limits.allowed_hosts` or `--allow-host` "
                "names further hosts."
            )
        if len(self._seen) < _MAX_SEEN:
            self._seen.add(host)

    def _is_allowed(self, host: str) -> bool:
        parts = _HOST.fullmatch(host)
        if parts is None:
            return False
        in_brackets, name = parts[1], (parts[2] or "").lower().removesuffix(".")
        try:
            address = ip_address(name) if in_brackets is None else IPv6Address(in_brackets)
        except ValueError:
            return name in self._names or any(name.endswith(end) for end in self._ends)
        return any(address in network for network in self._networks)


def as_host(text: str) -> str:
    """A name, an address or a network in the form that is compared; `*.` stands for what is before a name.

    Raises `ValueError` for what is none of these.
    """
    name = text.strip().lower().removesuffix(".")
    if network := _network(name):
        return str(network.network_address if network.num_addresses == 1 else network)
    if name != ANY and _NAME.fullmatch(name) is None:
        raise ValueError(
            f"{text!r} is no host: give a name, an address or a network alone, such as 'models.example.org'"
        )
    return name


def is_loopback(host: str) -> bool:
    """Whether a server that listens there can be reached from this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _network(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
