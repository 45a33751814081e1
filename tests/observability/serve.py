"""A server in a process of its own, as `sheaf serve` runs it: `python -m tests.observability.serve PORT`."""

from __future__ import annotations

import sys

from sheaf.embedded import EmbeddedServer
from sheaf.spec import ModelSpec
from tests.echoes import Echo, Fragile

if __name__ == "__main__":
    specs = [ModelSpec(name="echo", backend_cls=Echo), ModelSpec(name="fragile", backend_cls=Fragile)]
    EmbeddedServer(specs, port=int(sys.argv[1])).run()
