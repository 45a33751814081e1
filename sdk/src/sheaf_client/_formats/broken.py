"""The fault of a file that its bytes show."""

from __future__ import annotations


class BrokenFileError(ValueError):
    """The file is none that the field takes, or a part of it is missing; the text is for the caller.

    Attributes:
        code: The fault's code in a refusal of the request that carries the file.
    """

    def __init__(self, message: str, code: str = "bad_format") -> None:
        super().__init__(message)
        self.code = code


def cut_off(what: str, where: str) -> BrokenFileError:
    """The fault of a file that ends too early."""
    return BrokenFileError(f"The {what} file is cut off {where}.")
