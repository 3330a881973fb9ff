"""`podtool separate` as people call it: stems, rows, exactness, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from typer.testing import Result

from podtool.audio import Audio, write_audio

Run = Callable[..., Result]


@pytest.fixture()
def episode(tmp_path: Path) -> tuple[Path, Path]:
    """Three seconds of stereo noise with a buzzing voice in the middle second; its turns."""
    rate, rng = 22050, np.random.default_rng(4)
    t = np.arange(rate) / rate
    voice = np.zeros(3 * rate)
    buzz = sum(np.sin(2 * np.pi * 130 * k * t) / k for k in range(1, 20))
    voice[rate : 2 * rate] = 0.1 * np.asarray(buzz) * np.abs(np.sin(2 * np.pi * 4 * t))
    samples = (voice + 0.01 * rng.standard_normal((2, 3 * rate))).astype(np.float32)
    audio = tmp_path / "ep.wav"
    write_audio(audio, Audio(samples, rate), "pcm16")
    rows = tmp_path / "ep.jsonl"
    recording = {
        "kind": "recording", "v": 1, "id": "ep", "path": str(audio), "sha256": "0" * 64,
        "sample_rate": rate, "channels": 2, "frames": 3 * rate,
    }  # fmt: skip
    turn = {
        "kind": "turn", "v": 1, "id": "t1", "recording": "ep",
        "start": 1.0, "end": 2.0, "speaker": "S1",
    }  # fmt: skip
    rows.write_text(json.dumps(recording) + "\n" + json.dumps(turn) + "\n")
    return audio, rows


def read(path: Path) -> np.ndarray:
    return np.asarray(sf.read(path, dtype="float32", always_2d=True)[0])


def test_stems_sum_to_the_file_and_rows_name_them(
    run: Run, episode: tuple[Path, Path], tmp_path: Path
) -> None:
    audio, rows = episode
    made = run("separate", rows, "--out-dir", tmp_path / "stems", "--engine", "spectral")
    assert made.exit_code == 0, made.stderr
    told = [json.loads(line) for line in made.stdout.splitlines()]
    kinds = [r["kind"] for r in told]
    assert kinds[:3] == ["recording", "turn", "provenance"] and kinds.count("stem") == 2
    speech, background = (read(tmp_path / "stems" / f"{s}.wav") for s in ("speech", "background"))
    assert (speech + background == read(audio)).all()
    assert [r["value"] for r in told if r.get("name") == "stems_sum_error"] == [0.0]
    inside, outside = speech[22050 + 4000 : 44100 - 4000], speech[:18000]
    assert np.std(inside) > 0.05 and not outside.any()
    assert "share of energy" in made.stderr


def test_one_stem_to_a_file_or_to_stdout_is_the_same(
    run: Run, episode: tuple[Path, Path], tmp_path: Path
) -> None:
    _, rows = episode
    one = tmp_path / "background.wav"
    done = run("separate", rows, "--stem", "background", "-o", one, "--engine", "spectral")
    assert done.exit_code == 0 and done.stdout == ""
    piped = run("separate", rows, "--stem", "background", "-o", "-", "--engine", "spectral")
    (tmp_path / "piped.wav").write_bytes(piped.stdout_bytes)
    assert (read(one) == read(tmp_path / "piped.wav")).all() and read(one).any()


def test_existing_stems_are_not_overwritten(
    run: Run, episode: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "speech.wav").write_text("mine")
    refused = run("separate", episode[1], "--out-dir", tmp_path)
    assert refused.exit_code == 8 and refused.stdout == ""
    assert (tmp_path / "speech.wav").read_text() == "mine"
    forced = run("separate", episode[1], "--out-dir", tmp_path, "--force", "--engine", "spectral")
    assert forced.exit_code == 0


@pytest.mark.parametrize("more", [[], ["--stem", "music", "-o", "-"], ["--stem", "speech"]])
def test_what_makes_no_sense_is_a_usage_error(
    run: Run, episode: tuple[Path, Path], more: list[str]
) -> None:
    refused = run("separate", episode[1], *more)
    assert refused.exit_code == 2 and refused.stdout == ""
