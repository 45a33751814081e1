"""What attacks share with the tests of the HTTP surface: a server on a free port, and plain sockets."""

from __future__ import annotations

from tests.http.conftest import Serve, serve

__all__ = ["Serve", "serve"]
