"""The client's README, run as a reader would: block after block, against a live server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from sheaf.embedded import EmbeddedServer

README = Path(__file__).parents[2] / "sdk/README.md"


def test_every_block_runs(
    live_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHEAF_BASE_URL", live_server.url)
    text = README.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 9
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)  # noqa: S102 - our own page
    printed = capsys.readouterr().out
    assert "['shop', 'day', 'mean', '0.1', '0.5', '0.9']" in printed
    assert "('/horizon', 'out_of_range')" in printed
    assert f"Sheaf({live_server.url}, adapters sketch@0.8, ink)" in printed
    assert "time_series.forecast takes no adapters" in printed
    assert "POST /statsforecast/time_series/forecast 1 200" in printed
    assert "'statsforecast'" in printed
