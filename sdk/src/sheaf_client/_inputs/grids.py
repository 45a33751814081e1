"""States of the atmosphere on a grid, as xarray holds them, as the fields of a contract."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Protocol, TypeAlias

from sheaf_client._inputs.kinds import comes_from


class _Dataset(Protocol):
    """xarray's `Dataset`."""

    @property
    def data_vars(self) -> Mapping[Hashable, Any]: ...
    @property
    def sizes(self) -> Mapping[Hashable, int]: ...
    @property
    def coords(self) -> Mapping[Hashable, Any]: ...


GridLike: TypeAlias = _Dataset
"""An `xarray.Dataset` with latitudes, longitudes, at least two times, and any pressure levels."""

#: What files of this field call a dimension.
_NAMES = {
    "lat": ("lat", "latitude"),
    "lon": ("lon", "longitude"),
    "level": ("level", "pressure_level", "isobaricInhPa", "plev", "lev"),
    "time": ("time", "valid_time"),
}
FIELDS = frozenset(
    {
        *("lat", "lon", "pressure_levels", "current_time"),
        *("surface_vars", "atmospheric_vars", "prev_surface_vars", "prev_atmospheric_vars"),
    }
)


def grid_fields(value: Any) -> dict[str, Any] | None:
    """The last two times of a dataset as the state now and before; None where the value is no dataset.

    Variables over (time, lat, lon) are of the surface, those over (time, level, lat, lon) of the atmosphere;
    their dimensions may stand in any order. Variables without a time are left out. A dataset of the surface
    alone needs no levels.

    Raises:
        ValueError: A dimension is missing, or there are fewer than two times.
    """
    if not comes_from(value, "xarray", "Dataset"):
        return None
    found = {kind: next((n for n in names if n in value.sizes), None) for kind, names in _NAMES.items()}
    surface_alone = found["level"] is None and not _has_levels(value, set(found.values()))
    if missing := [k for k, name in found.items() if name is None and not (k == "level" and surface_alone)]:
        raise ValueError(
            f"the dataset has no dimension for {', '.join(missing)}; "
            + "; ".join(f"{kind} is one of {', '.join(_NAMES[kind])}" for kind in missing)
        )
    time = found["time"]
    if value.sizes[time] < 2:
        raise ValueError(f"the dataset needs two times along {time!r}, the state now and the one before")
    plane, volume = (found["lat"], found["lon"]), (found["level"], found["lat"], found["lon"])
    levels: list[Any] = [] if surface_alone else value[found["level"]].to_numpy().tolist()
    fields: dict[str, Any] = {
        "lat": value[found["lat"]].to_numpy().tolist(),
        "lon": value[found["lon"]].to_numpy().tolist(),
        "pressure_levels": [int(level) for level in levels],
        "current_time": str(value[time].to_numpy()[-1].astype("datetime64[s]")),
    }
    for prefix, step in (("", -1), ("prev_", -2)):
        state = value.isel({time: step})
        fields[f"{prefix}surface_vars"] = _over(state, value, time, plane)
        fields[f"{prefix}atmospheric_vars"] = {} if surface_alone else _over(state, value, time, volume)
    return fields


def _has_levels(value: Any, known: set[Any]) -> bool:
    """Whether a dataset without a dimension for levels has them all the same, by another name or just one."""
    one = any(name in value.coords for name in _NAMES["level"])
    return one or any(known - {None} < set(variable.dims) for variable in value.data_vars.values())


def _over(state: Any, whole: Any, time: Any, dimensions: tuple[Any, ...]) -> dict[str, Any]:
    """The arrays of the variables that have just these dimensions beside time."""
    return {
        str(name): state[name].transpose(*dimensions).to_numpy()
        for name, variable in whole.data_vars.items()
        if set(variable.dims) == {time, *dimensions}
    }
