"""`podtool separate --speakers` as people call it; two tones stand for people, told by pitch."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest
import soundfile as sf
from numpy.typing import NDArray
from typer.testing import Result

from podtool import engines
from podtool.audio import Audio, write_audio
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.resample import resample

Run = Callable[..., Result]
Samples = NDArray[np.float32]
RATE = 22050
TURNS = [("S1", 0.5, 3.0), ("S2", 2.0, 4.5), ("S1", 5.0, 5.5)]
PITCH = {"S1": 200.0, "S2": 700.0}


class ByPitch:
    """Talkers: what is below 400 Hz, and what is above, in either order."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="by-pitch", stage="talkers", version="1", licence="MIT", tier="embedded",
        sample_rate=16000,
    )  # fmt: skip
    max_talkers = 3
    asked: ClassVar[list[int]] = []

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        return cls()

    def talkers(self, audio: Audio, count: int) -> Samples:
        ByPitch.asked.append(count)
        spectrum = np.fft.rfft(audio.samples[0])
        low = np.arange(len(spectrum)) * 16000 / audio.frames < 400
        halves = [np.fft.irfft(spectrum * keep, audio.frames) for keep in (~low, low)]
        return np.asarray(halves, np.float32)


class Voices:
    """Embeddings: how much of the sound is low."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="voices", stage="embedding", version="1", licence="MIT", tier="embedded",
        sample_rate=16000,
    )  # fmt: skip
    dim = 2

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        return cls()

    def embed(self, audio: Audio) -> Samples:
        power = np.abs(np.fft.rfft(audio.samples[0])) ** 2
        low = np.arange(len(power)) * 16000 / audio.frames < 400
        pair = np.array([power[low].sum(), power[~low].sum()])
        return np.asarray(pair / np.linalg.norm(pair), np.float32)


@pytest.fixture()
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fakes_by_pitch", sys.modules[__name__])
    monkeypatch.setitem(engines.BUILTIN, "talkers", {"by-pitch": "fakes_by_pitch:ByPitch"})
    monkeypatch.setitem(engines.BUILTIN, "embedding", {"campplus": "fakes_by_pitch:Voices"})
    ByPitch.asked.clear()


@pytest.fixture()
def episode(tmp_path: Path) -> tuple[Path, Path]:
    """Six seconds of stereo: two tones that talk over each other for a second; turns as RTTM."""
    t = np.arange(6 * RATE) / RATE
    voices = [
        0.1 * np.sin(2 * np.pi * PITCH[who] * t) * ((t >= start) & (t < end))
        for who, start, end in TURNS
    ]
    samples = np.stack([sum(voices)] * 2).astype(np.float32)
    noise = 1e-4 * np.random.default_rng(1).standard_normal(samples.shape)
    audio = tmp_path / "ep.wav"
    write_audio(audio, Audio((samples + noise).astype(np.float32), RATE), "pcm16")
    rttm = tmp_path / "ep.rttm"
    rttm.write_text(
        "".join(
            f"SPEAKER ep 1 {start} {end - start} <NA> <NA> {who} <NA> <NA>\n"
            for who, start, end in TURNS
        )
    )
    return audio, rttm


def read(path: Path) -> Samples:
    return np.asarray(sf.read(path, dtype="float32", always_2d=True)[0])


def told(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.usefixtures("fakes")
def test_a_stem_per_speaker_and_a_background_that_sum_to_the_file(
    run: Run, episode: tuple[Path, Path], tmp_path: Path
) -> None:
    audio, rttm = episode
    out = tmp_path / "stems"
    words = ("separate", audio, "--speakers", "--turns", rttm, "--out-dir", out)
    made = run(*words, "--engine", "spectral")
    assert made.exit_code == 0, made.stderr
    files = ["background.wav", "speaker-S1.wav", "speaker-S2.wav"]
    assert sorted(p.name for p in out.iterdir()) == files
    background, first, second = (read(out / name) for name in files)
    assert (first + second + background == read(audio)).all()
    rows = told(made)
    stems = {r["name"]: r for r in rows if r["kind"] == "stem"}
    assert stems["speaker:S2"]["speaker"] == "S2" and "speaker" not in stems["background"]
    assert [r["value"] for r in rows if r.get("name") == "stems_sum_error"] == [0.0]
    assert [r["speaker"] for r in rows if r["kind"] == "turn"] == ["S1", "S2", "S1"]
    assert [r["stage"] for r in rows if r["kind"] == "provenance"] == ["separate", "talkers"]
    assert ByPitch.asked == [2]
    both = resample(Audio(np.stack([first[:, 0], second[:, 0]]), RATE), 16000).samples
    power = np.abs(np.fft.rfft(both[:, int(2.1 * 16000) : int(2.9 * 16000)])) ** 2
    low = power[:, :320].sum(axis=1)
    assert low[0] > 50 * power[0, 320:].sum() and low[1] < 0.02 * power[1, 320:].sum()
    assert not second[: 2 * RATE - 400].any() and not first[int(3.1 * RATE) : int(4.9 * RATE)].any()
    assert "speaker:S1" in made.stderr
    again = run(*words, "--engine", "spectral")
    assert again.exit_code == 8 and "--force" in again.stderr
    forced = run(*words, "--engine", "spectral", "--force")
    assert told(forced) == rows and (read(out / files[1]) == first).all()


def test_people_who_take_turns_need_no_engine(
    run: Run, episode: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(engines.BUILTIN, "talkers", {})
    audio, rttm = episode
    polite = tmp_path / "polite.rttm"
    polite.write_text("".join(rttm.read_text().splitlines(keepends=True)[::2]))
    words = ("separate", audio, "--speakers", "--out-dir", tmp_path / "s", "--engine", "spectral")
    made = run(*words, "--turns", polite)
    assert made.exit_code == 0, made.stderr
    refused = run(*words, "--turns", rttm, "--force")
    assert refused.exit_code not in (0, 1) and "talkers engine" in refused.stderr


@pytest.mark.parametrize(
    "more",
    [
        ["--speakers"],
        ["--speakers", "--stem", "speech", "-o", "x.wav"],
        ["--turns", "ep.rttm", "--stem", "speech", "-o", "x.wav"],
    ],
)
def test_what_makes_no_sense_is_a_usage_error(
    run: Run, episode: tuple[Path, Path], more: list[str]
) -> None:
    refused = run("separate", episode[0], *more)
    assert refused.exit_code == 2 and refused.stdout == ""
