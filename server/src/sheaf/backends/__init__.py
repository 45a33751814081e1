"""Backends: one file a model family, each calling the model's own library."""
