"""How far apart the times of a series are, by its frequency, for backends as for `forecast_frame`."""

from __future__ import annotations

from sheaf_client._extensions.calendar import MONTHS, STEPS

__all__ = ["MONTHS", "STEPS"]
