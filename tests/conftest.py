"""Fixtures that all tests share: the app, a home of their own, real speech where it is there."""

from __future__ import annotations

import json
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


@pytest.fixture()
def tiny_training(tmp_path: Path) -> tuple[Path, Path]:
    """A recipe that trains in a second, and a manifest of six voices that are buzzes, and noise."""
    return write_tiny_training(tmp_path)


@pytest.fixture(scope="session")
def tiny_trained(app: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what `podtool train separator` makes of it; to be copied, not changed."""
    place = tmp_path_factory.mktemp("trained")
    recipe, manifest = write_tiny_training(place)
    command = ["train", "separator", recipe, "--data", manifest, "-o", place / "run"]
    done = CliRunner().invoke(app, [*map(str, command), "--licence", "MIT"])
    assert done.exit_code == 0, done.stderr
    (place / "run" / "rows.jsonl").write_text(done.stdout)
    (place / "run" / "stderr.txt").write_text(done.stderr)
    return place / "run"


def write_tiny_training(place: Path) -> tuple[Path, Path]:
    folder = place / "corpus"
    folder.mkdir()
    rng = np.random.default_rng(5)
    t = np.arange(24000) / 16000
    rows: list[dict[str, Any]] = []
    for k in range(6):
        pitch = 90 * 1.25**k * (1 + 0.03 * np.sin(2 * np.pi * 3 * t + k))
        phase = 2 * np.pi * np.cumsum(pitch) / 16000
        wave = sum(np.sin(h * phase) / h for h in range(1, 12)) * (1.1 + np.sin(5 * t))
        write_audio(folder / f"v{k}.wav", Audio(0.1 * wave[None].astype(np.float32), 16000))
        rows.append({"path": f"v{k}.wav", "kind": "read", "speaker": f"v{k}", "corpus": "Buzzes"})
    for name in ("n0.wav", "n1.wav"):
        noise = (0.05 * rng.standard_normal(24000)).astype(np.float32)
        write_audio(folder / name, Audio(noise[None], 16000))
        rows.append({"path": name, "kind": "noise", "corpus": "Hisses"})
    manifest = folder / "MANIFEST.jsonl"
    manifest.write_text("".join(json.dumps({**row, "licence": "CC0-1.0"}) + "\n" for row in rows))
    recipe = place / "tiny.toml"
    recipe.write_text(TINY_RECIPE)
    return recipe, manifest


TINY_RECIPE = """
name = "tiny"
task = "talkers"
seed = 3
[network]
window = 64
hop = 32
bands = [5, 8, 20]
channels = 8
hidden = 8
layers = 1
talkers = 2
[data]
validation_speakers = ["v4", "v5"]
validation_files = ["n1.wav"]
[mixing]
seconds = 0.5
talkers = 2
counts = [0.4, 0.6]
reverb_share = 0.0
codec_share = 0.0
[training]
steps = 6
batch = 2
warmup = 2
checkpoint_every = 2
validate_every = 2
validation_scenes = 3
"""
