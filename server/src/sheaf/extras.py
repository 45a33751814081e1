"""What is not installed, told with the command that installs it: one text for backends and hosts."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager


def install_command(extra: str) -> str:
    """The command that installs what an extra needs."""
    return f'pip install "sheaf-serve[{extra}]"'


def missing(needer: str, extra: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    """The error for a library that `needer` needs and that is not installed."""
    return ModuleNotFoundError(f"{needer} needs {error.name}: {install_command(extra)}", name=error.name)


@contextmanager
def needs(needer: str, extra: str) -> Generator[None]:
    """Imports that `needer` needs; a `ModuleNotFoundError` of theirs names the extra that brings them."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise missing(needer, extra, error) from error
