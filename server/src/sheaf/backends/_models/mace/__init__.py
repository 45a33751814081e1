"""The parts of the backend `mace`."""
