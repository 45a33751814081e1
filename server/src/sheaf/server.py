"""The name under which programs import the server on Ray."""

from sheaf.hosts.ray import DRAIN_SECONDS, REFUSED_AT_ONCE, ModelServer, UpdateFailedError, build_app

__all__ = ["DRAIN_SECONDS", "REFUSED_AT_ONCE", "ModelServer", "UpdateFailedError", "build_app"]
