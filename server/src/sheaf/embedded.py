"""The name under which programs import the embedded server."""

from sheaf.hosts.embedded import DEFAULT_PORT, EmbeddedServer

__all__ = ["DEFAULT_PORT", "EmbeddedServer"]
