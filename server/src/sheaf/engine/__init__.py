"""The engine: one loaded model, its waiting line and its one thread, behind `ModelRuntime`."""

from sheaf.engine.runtime import ModelRuntime

__all__ = ["ModelRuntime"]
