"""One model of this project behind HTTP, in a process of its own, for the benchmarks that load it.

    python benchmarks/_serve.py embedded|ray PORT SPEC

SPEC is a `ModelSpec` in JSON; `model` in it is a class of benchmarks/_models.py where no backend is named.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import _models
from sheaf.spec import ModelSpec


def main() -> None:
    host, port, text = sys.argv[1:]
    content = json.loads(text)
    model = content.pop("model", None)
    spec = ModelSpec(**content, backend_cls=getattr(_models, model) if model else None)
    if host == "embedded":
        from sheaf.embedded import EmbeddedServer

        EmbeddedServer([spec], port=int(port)).run()
        return
    import ray

    from sheaf.server import ModelServer

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    ModelServer([spec], port=int(port)).run(blocking=True)


if __name__ == "__main__":
    main()
