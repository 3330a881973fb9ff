"""`make demo` from the inside: the script that it runs, on the demo's own recordings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from podtool.audio import open_audio
from podtool.store import ModelStore

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.models
def test_the_demo(tmp_path: Path) -> None:
    if any(ModelStore().state(m.id) != "ready" for m in ModelStore().table.expand(["embedded"])):
        pytest.skip("podtool models pull embedded")
    command = [sys.executable, str(ROOT / "examples" / "demo.py"), "--folder", str(tmp_path / "d")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = dict(line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
    before, after, report = (Path(said[k].strip()) for k in ("before", "after", "report"))
    assert report.name == "report.html" and report.stat().st_size > 10_000
    with open_audio(before) as old, open_audio(after) as new:
        assert (old.frames, old.channels, old.sample_rate) == (new.frames, 2, new.sample_rate)
        difference = np.abs(old.read().samples - new.read().samples).max(axis=0)
    rate = 44100
    # The first reader speaks alone from 4.0 to 11.0 s, the second from 11.6 to 18.2 s.
    assert difference[: round(11.0 * rate)].max() == 0
    assert difference[round(12.5 * rate) : round(17.5 * rate)].max() > 0.05
