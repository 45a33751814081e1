"""The parts of the backend `chgnet`."""
