"""The older name of `sheaf.backends.loops`."""

from sheaf.backends.loops import LibraryLoop as Course
from sheaf.backends.loops import LoopBackend as RendezvousBackend
from sheaf.backends.loops import LoopCancelled as CourseCancelled

__all__ = ["Course", "CourseCancelled", "RendezvousBackend"]
