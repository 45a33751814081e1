"""Policies of batching: pure functions and data, with the clock handed in."""
