"""What is not installed, told with the command that installs it: one text for backends and hosts."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, requires

_EXTRA = re.compile(r"""extra == ['"]([\w-]+)""")


def install_command(extra: str) -> str:
    """The command that installs the libraries of an extra by name: `sheaf-serve` on the index is not ours."""
    try:
        needs = requires("sheaf-serve") or []
    except PackageNotFoundError:
        needs = []
    marked = (need.partition(";") for need in needs)
    libraries = [f'"{need.strip()}"' for need, _, marker in marked if _EXTRA.findall(marker) == [extra]]
    return f"pip install {' '.join(libraries)}" if libraries else f'pip install "./server[{extra}]"'


def missing(needer: str, extra: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    """The error for a library that `needer` needs and that is not installed."""
    text = f"{needer} needs {error.name}, of the extra {extra}: {install_command(extra)}"
    return ModuleNotFoundError(text, name=error.name)


@contextmanager
def needs(needer: str, extra: str) -> Generator[None]:
    """Imports that `needer` needs; a `ModuleNotFoundError` of theirs names the extra that brings them."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise missing(needer, extra, error) from error
