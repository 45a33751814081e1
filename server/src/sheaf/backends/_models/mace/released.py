"""Models that MACE's authors released, by the names that the library's `mace_mp` knows them by.

The library's own function downloads them, into its cache; a file that is there is used offline.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from sheaf.backends._models.mace.library import mace

log = logging.getLogger("sheaf")

#: Shorter names in use for some.
_ALIASES = {"mpa-0": "medium-mpa-0", "omat-0": "medium-omat-0", "matpes-pbe-0": "mace-matpes-pbe-0"}


def released_names() -> list[str]:
    """The names of released models, shorter ones included."""
    urls: Mapping[str, str] = mace("mace.calculators.foundations_models").mace_mp_urls
    return sorted([*urls, *(short for short, name in _ALIASES.items() if name in urls)])


def fetch(name: str) -> Path:
    """The file of a released model, downloaded where it is not in the library's cache.

    Raises `OSError` where it cannot be downloaded.
    """
    library: Any = mace("mace.calculators.foundations_models")
    said = StringIO()  # the library prints its progress, and what licence a model has
    try:
        with contextlib.redirect_stdout(said):
            path = Path(library.download_mace_mp_checkpoint(_ALIASES.get(name, name)))
    except (OSError, RuntimeError) as error:
        cache = mace("mace.tools.utils").get_cache_dir()
        raise OSError(
            f"the model {name} is not in {cache} and cannot be downloaded ({error}): give model_id the path "
            "of its file, or the folder of a converted model"
        ) from error
    for line in said.getvalue().splitlines():
        if "licen" in line.lower():
            log.warning("mace: %s", line.strip())
    return path
