"""How flags of held atoms read, as backends and `to_atoms` of the client both read them."""

from __future__ import annotations

from sheaf_client._atoms import constraints, held_axes

__all__ = ["constraints", "held_axes"]
