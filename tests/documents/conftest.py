"""Samples run on the small checkpoints that the tests of backends load."""

from tests.backends.conftest import diffusion_checkpoints, one_thread, studio_of

__all__ = ["diffusion_checkpoints", "one_thread", "studio_of"]
