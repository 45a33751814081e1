"""What may be missing where a model is loaded: a library, a checkpoint, a file of it, weights."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from sheaf.extras import install_command
from tests.backends.conformance.model import ModelUnderTest

#: The checks of a checkpoint's parts.
CHECKPOINT_CHECKS = (
    "test_a_checkpoint_that_is_not_there_is_told",
    "test_a_file_that_a_checkpoint_lacks_is_told",
    "test_weights_that_a_checkpoint_lacks_are_never_made_up",
)


class MissingPartChecks(ModelUnderTest):
    """What it says of a part that is missing."""

    def test_a_missing_library_is_told_with_the_command_that_installs_it(
        self, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        info = self.backend_class.info
        assert info is not None
        unused = set(self.unused_libraries)
        assert unused < self.libraries(), "no library is left, or one is named that `info` does not"
        for library in self.libraries() - unused:
            with monkeypatch.context() as patch:
                patch.setitem(sys.modules, library, None)
                for name in list(sys.modules):
                    if name.startswith(f"{library}."):
                        patch.setitem(sys.modules, name, None)
                    elif name.startswith(("sheaf.backends._families", "sheaf.backends._models")):
                        patch.delitem(sys.modules, name)
                with pytest.raises(ModuleNotFoundError, match=re.escape(install_command(info.extra))) as told:
                    self.made(settings).load()
                assert f" needs {told.value.name}, of the extra {info.extra}: " in str(told.value)
                assert (told.value.name or "").partition(".")[0] == library

    def test_a_checkpoint_that_is_not_there_is_told(self, settings: dict[str, Any], tmp_path: Path) -> None:
        with pytest.raises(OSError, match="nowhere"):
            self.made({**settings, "model_id": str(tmp_path / "nowhere")}).load()

    def test_a_file_that_a_checkpoint_lacks_is_told(self, settings: dict[str, Any], tmp_path: Path) -> None:
        assert self.needed_files, "name the files in `needed_files`"
        for name in self.needed_files:
            folder = shutil.copytree(settings["model_id"], tmp_path / name.replace("/", "-"))
            (folder / name).unlink()
            with pytest.raises(OSError, match=re.escape(Path(name).name)):
                self.made({**settings, "model_id": str(folder)}).load()

    def test_weights_that_a_checkpoint_lacks_are_never_made_up(
        self, settings: dict[str, Any], tmp_path: Path
    ) -> None:
        from safetensors.torch import load_file, save_file

        assert self.needed_weights, "name some weights in `needed_weights`"
        folder = shutil.copytree(settings["model_id"], tmp_path / "lacking")
        for file, lacking in self.needed_weights:
            whole = load_file(folder / file)
            rest = {name: weight for name, weight in whole.items() if name != lacking}
            assert len(rest) < len(whole), f"{file} has no {lacking}"
            save_file(rest, folder / file, {"format": "pt"})
            with pytest.raises(ValueError, match="lacks the weights"):
                self.made({**settings, "model_id": str(folder)}).load()
            save_file(whole, folder / file, {"format": "pt"})
