"""Fixtures that all tests share: the app, a home of their own, real speech where it is there."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from podtool.audio import Audio, write_audio

ROOT = Path(__file__).resolve().parents[1]

# A shell starts background jobs with Ctrl-C ignored, and children inherit that: the tests of
# Ctrl-C would then find that it does nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says how busy the machine is, not whether the property holds.
hypothesis.settings.register_profile("podtool", deadline=None)
hypothesis.settings.load_profile("podtool")


@pytest.fixture(scope="session")
def app() -> Any:
    """The Typer app, reached by name as the console script reaches it."""
    return import_module("podtool.commands").app


@pytest.fixture()
def run(app: Any) -> Callable[..., Result]:
    """Run a command in this process: run("diarize", "x.wav").exit_code / .stdout / .stderr."""

    def invoke(*args: object, input: bytes | str | None = None) -> Result:
        return CliRunner().invoke(app, [str(a) for a in args], input=input)

    return invoke


@pytest.fixture()
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty PODTOOL_HOME for a test that writes there."""
    home = tmp_path / "home"
    monkeypatch.setenv("PODTOOL_HOME", str(home))
    yield home


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real recordings; the test is skipped where it is absent."""
    folder = Path(os.environ.get("PODTOOL_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "MANIFEST.jsonl").exists():
        pytest.skip("no recordings at PODTOOL_DATA (default ../shared/data)")
    return folder


@pytest.fixture()
def tone(tmp_path: Path) -> Path:
    """Two seconds of a quiet tone as WAV, 44.1 kHz stereo."""
    t = np.arange(2 * 44100) / 44100
    wave = (0.1 * np.sin(2 * np.pi * 220 * t)).astype(np.float32)
    path = tmp_path / "tone.wav"
    write_audio(path, Audio(np.stack([wave, wave]), 44100))
    return path
