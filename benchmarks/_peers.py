"""Other people's servers and clients, each in an environment of its own: their versions must not meet ours.

    python benchmarks/_peers.py [bentoml] [litserve] [clients]

creates what is missing under benchmarks/.peers/NAME; the benchmarks do it themselves where they need one.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

FOLDER = Path(__file__).parent / ".peers"
SCRIPTS = Path(__file__).parent / "peers"
#: Both servers get the event loop and the HTTP parser that uvicorn gives this project's environment.
REQUIREMENTS = {
    "bentoml": ["bentoml>=1.4", "uvloop", "httptools"],
    "litserve": ["litserve>=0.2", "uvloop", "httptools"],
    "clients": ["openai", "huggingface_hub"],
}
#: The packages of this environment; peers that run torch append it to their path in place of another copy.
PROJECT_PACKAGES = sysconfig.get_paths()["purelib"]


def interpreter(name: str) -> Path:
    """The interpreter of a peer's environment, which is created where it is missing.

    Raises `PeerMissingError` where its packages cannot be installed.
    """
    folder = FOLDER / name
    python = folder / "bin/python"
    done = folder / "installed"
    if done.is_file():
        return python
    sys.stderr.write(f"installing {name} into {folder}\n")
    venv.create(folder, with_pip=True)
    command = [str(python), "-m", "pip", "install", "-q", *REQUIREMENTS[name]]
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode:
        raise PeerMissingError(f"pip could not install {name} into {folder}")
    done.touch()
    return python


class PeerMissingError(RuntimeError):
    """A peer cannot be measured here."""


if __name__ == "__main__":
    for peer in sys.argv[1:] or REQUIREMENTS:
        print(interpreter(peer))
