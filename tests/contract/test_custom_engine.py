"""The example plug-in: installed as a package, found by its entry point, run in a worker."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from podtool import engines
from podtool.audio import Audio, open_audio, write_audio
from podtool.engines.protocols import EngineContext
from podtool.engines.worker import Worker
from podtool.store import ModelStore

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
RATE = 44100


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plug-in installed into a folder, as pip does it, without the network."""
    place, copy = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("source")
    shutil.copytree(ROOT / "examples" / "custom_engine", copy, dirs_exist_ok=True)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    done = subprocess.run(
        [*command, "--no-build-isolation", "--target", str(place), str(copy)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return place


def scene(seconds: float = 3.0) -> tuple[Audio, np.ndarray]:
    """A buzz in the middle, noise that differs between the channels; and the buzz alone (n,)."""
    t = np.arange(round(seconds * RATE)) / RATE
    parts = [np.sin(2 * np.pi * 150 * k * t) / k for k in range(1, 12)]
    voice = 0.1 * np.sum(parts, axis=0)
    music = 0.1 * np.random.default_rng(0).standard_normal((2, len(t)))
    return Audio((np.tile(voice, (2, 1)) + music).astype(np.float32), RATE), voice


def snr_db(estimate: np.ndarray, truth: np.ndarray) -> float:
    return float(10 * np.log10(np.sum(truth**2) / np.sum((estimate - truth) ** 2)))


def test_it_is_found_and_works_in_a_worker(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(site))
    context = EngineContext(ModelStore())
    assert engines.engine_names("separation")[-1] == "centre"
    assert engines.availability("separation", "centre", context).available
    engine = engines.load("separation", "centre", context)
    assert isinstance(engine, Worker) and engine.stems == ("speech",)
    mixture, voice = scene()
    speech = engine.separate(mixture)["speech"].samples
    assert snr_db(speech[0], voice) > snr_db(mixture.samples[0], voice) + 6
    same = Audio(np.tile(voice.astype(np.float32), (2, 1)), RATE)
    assert np.allclose(engine.separate(same)["speech"].samples, same.samples, atol=1e-4)
    for frames in (0, 1, 441):
        silent = Audio(np.zeros((2, frames), np.float32), RATE)
        assert not engine.separate(silent)["speech"].samples.any()
    engine.close()


def test_it_serves_the_command(site: Path, tmp_path: Path) -> None:
    mixture, voice = scene()
    write_audio(tmp_path / "show.wav", mixture, "float")
    turns = tmp_path / "turns.rttm"
    turns.write_text("SPEAKER show 1 0.000 3.000 <NA> <NA> S1 <NA> <NA>\n")
    command = ["separate", tmp_path / "show.wav", "--engine", "centre", "--speakers"]
    done = subprocess.run(
        [sys.executable, "-m", "podtool", *map(str, command), "--turns", str(turns)]
        + ["--out-dir", str(tmp_path / "stems")],
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    told = next(r for r in rows if r["kind"] == "provenance" and r["stage"] == "separate")
    assert told["engine"] == "centre 1"
    with open_audio(tmp_path / "stems" / "speaker-S1.wav") as stem:
        found = stem.read().samples
    assert snr_db(found[0], voice) > snr_db(mixture.samples[0], voice) + 6
