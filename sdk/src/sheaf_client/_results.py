"""Answers in the kind that people work with: numpy arrays, data frames, ASE atoms, xarray datasets.

The schema says which fields make the array and the table (`x-sheaf-results`); libraries are imported when
they are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from sheaf_client._base import Model

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from ase import Atoms
    from numpy.typing import NDArray
    from xarray import Dataset

    from sheaf_client._inputs import StructureLike

    Labels: TypeAlias = "pd.Index[Any]"


class Results(Model):
    """The base of every response: what it can become."""

    def to_numpy(self, field: str | None = None) -> NDArray[Any]:
        """The main values of the answer as one array, or those of another field.

        Args:
            field: Name of a field: a list, a tensor, an image (its pixels), a sound (its samples).

        Raises:
            TypeError: The field is none of these, was not asked for, or holds arrays of unequal shapes.
        """
        if field is not None:
            return _array(self, field)
        main: Sequence[str] = self._results().get("numpy", ())
        given = [name for name in main if getattr(self, name) is not None]
        if not given:
            raise TypeError(f"a {type(self).__name__} has no one array; name a field: to_numpy('…')")
        return _array(self, given[0])

    def to_pandas(self) -> pd.DataFrame:
        """The answer as a table, one row for each step, row, object, segment or input.

        Forecasts have their times as index where they carry them; quantiles are columns named by their level.

        Raises:
            TypeError: The answer is no table.
        """
        import pandas as pd

        table: Mapping[str, Any] | None = self._results().get("pandas")
        if table is None:
            raise TypeError(f"a {type(self).__name__} is no table")
        columns: dict[str, Any] = {}
        for field in table["columns"]:
            columns.update(_columns(self, field, table.get("names", {}).get(field)))
        if not columns:
            raise TypeError(f"this {type(self).__name__} has none of {', '.join(table['columns'])}")
        index = getattr(self, table["index"]) if "index" in table else None
        labels: Labels | None = None if index is None else pd.Index(index, name=table["index"])
        return pd.DataFrame(columns, index=labels)

    def to_ase(self, atoms: StructureLike | Model | None = None) -> Atoms:
        """The answer as atoms in space, positions in Å.

        Where the answer is of atoms that were sent, a copy of these with all they carry, exactly where the
        answer says and as fast, with the answer as their calculator: energy, forces, stress. Constraints do
        not move them back; ASE's `get_forces()` applies them. Where it holds a structure, the atoms of its
        first model in the order of its file;
        their `arrays` have `atomtypes`, `residuenames`, `residuenumbers`, `chainids`, `occupancy` and
        `bfactor`, each of shape (n_atoms,).

        Args:
            atoms: What the request was made of, or the request itself; it is not changed, and what is given
                back stands where the atoms are at the end, if the answer tells. A structure takes none.

        Raises:
            ImportError: ASE is not installed, or Biopython, which reads mmCIF.
            TypeError: The answer says nothing of atoms, or `atoms` are none, or missing, or not needed.
            ValueError: The answer is of another number of atoms, or its structure cannot be read.
        """
        from sheaf_client._atoms import read_structure, with_results

        kind, held = type(self).__name__, self._results().get("ase")
        if held is None and "energy" not in type(self).model_fields:
            raise TypeError(f"a {kind} says nothing of atoms: it has neither energy nor structure")
        if held is None:
            if atoms is None:
                raise TypeError(f"a {kind} is of the atoms that were sent; give them: to_ase(atoms)")
            return with_results(self, atoms)
        if atoms is not None:
            raise TypeError(f"a {kind} has its own atoms; call to_ase() without any")
        return read_structure(getattr(self, held["file"]), getattr(self, held["format"]))

    def to_xarray(self) -> Dataset:
        """The forecast on its grid: (time, lat, lon) at the surface, (time, level, lat, lon) above it.

        Times are UTC. Raises `TypeError` where the answer is on no grid.
        """
        needed = ("lat", "lon", "pressure_levels", "forecast_times")
        if any(name not in type(self).model_fields for name in needed):
            raise TypeError(f"a {type(self).__name__} is on no grid: it needs {', '.join(needed)}")
        return _dataset(self)

    @classmethod
    def _results(cls) -> Mapping[str, Any]:
        extra = cls.model_config.get("json_schema_extra")
        return cast("Mapping[str, Any]", extra).get("x-sheaf-results", {}) if isinstance(extra, dict) else {}


def _array(model: Model, field: str) -> NDArray[Any]:
    import numpy as np

    if field not in type(model).model_fields:
        raise TypeError(f"a {type(model).__name__} has no field {field!r}")
    value = getattr(model, field)
    if value is None:
        raise TypeError(f"this {type(model).__name__} has no {field}: the request did not ask for it")
    if hasattr(value, "to_numpy"):
        pixels = value.to_numpy()
        return cast("NDArray[Any]", pixels[0] if isinstance(pixels, tuple) else pixels)
    try:
        array = np.asarray(value)
    except ValueError:
        raise TypeError(f"`{field}` holds arrays of unequal shapes; take them one by one") from None
    if array.dtype == object or not array.ndim:
        raise TypeError(f"`{field}` holds no array")
    return array


def _columns(model: Model, field: str, names: str | Sequence[str] | None) -> dict[str, Any]:
    """The columns of a field: itself, one per key, one per place in its rows, or one per sample path."""
    field, _, turned = field.partition(".")
    value = getattr(model, field)
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, Any]", value))
    rows = cast("Sequence[Any]", value)
    if turned:
        return {f"{field}_{place}": path for place, path in enumerate(rows)}
    first = rows[0] if len(rows) else None
    if isinstance(first, Model):
        fields = type(first).model_fields
        return {name: [getattr(row, name) for row in rows] for name in fields}
    if not isinstance(first, list) and not (first is None and names is not None):
        return {field: rows}
    labels = getattr(model, names) if isinstance(names, str) else names
    if labels is None:
        labels = [f"{field}_{place}" for place in range(len(cast("list[Any]", first)))]
    return {str(label): [row[place] for row in rows] for place, label in enumerate(labels)}


def _dataset(model: Any) -> Dataset:
    import numpy as np
    import xarray as xr

    surface, volume = ("time", "lat", "lon"), ("time", "level", "lat", "lon")
    variables = {
        **{name: (surface, values) for name, values in _by_name(model.surface_forecasts).items()},
        **{name: (volume, values) for name, values in _by_name(model.atmospheric_forecasts).items()},
    }
    times = np.array([_utc(text) for text in model.forecast_times], dtype="datetime64[ns]")
    coordinates = {"time": times, "level": model.pressure_levels, "lat": model.lat, "lon": model.lon}
    return xr.Dataset(variables, coords=coordinates)


def _by_name(steps: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Name → the arrays of all steps, stacked along time."""
    import numpy as np

    return {name: np.stack([step[name] for step in steps]) for name in (steps[0] if steps else ())}


def _utc(text: str) -> np.datetime64:
    from datetime import UTC, datetime

    import numpy as np

    time = datetime.fromisoformat(text)
    return np.datetime64(time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time)
