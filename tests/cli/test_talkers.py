"""People who talk at once in `separate --speakers` and `transcribe`: tones told apart by pitch."""

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
from podtool.artifacts import Utterance, Word
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


class Tones:
    """A recogniser that hears "low" and "high", as often as they sound for half a second."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="tones", stage="transcription", version="1", licence="MIT", tier="embedded",
        sample_rate=16000,
    )  # fmt: skip

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        return cls()

    def transcribe(self, audio: Audio, language: str | None) -> list[Utterance]:
        words: list[Word] = []
        for at in range(0, audio.frames - 4000, 8000):
            piece = audio.samples[0, at : at + 8000]
            power = np.abs(np.fft.rfft(piece)) ** 2 / len(piece) ** 2
            low = np.arange(len(power)) * 16000 / len(piece) < 400
            for text, part in (("low", power[low]), ("high", power[~low])):
                if part.sum() > 1e-4:
                    words.append(Word(text, at / 16000, at / 16000 + 0.4, 0.9))
        return [Utterance("", "", 0.0, audio.duration, "", words=tuple(words))]

    def align(self, audio: Audio, words: list[str]) -> list[Word]:
        step = audio.duration / max(1, len(words))
        return [Word(w, k * step, (k + 1) * step, 0.9) for k, w in enumerate(words)]


@pytest.fixture()
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fakes_by_pitch", sys.modules[__name__])
    monkeypatch.setitem(engines.BUILTIN, "talkers", {"by-pitch": "fakes_by_pitch:ByPitch"})
    monkeypatch.setitem(engines.BUILTIN, "embedding", {"campplus": "fakes_by_pitch:Voices"})
    monkeypatch.setitem(engines.BUILTIN, "transcription", {"tones": "fakes_by_pitch:Tones"})
    monkeypatch.setitem(engines.BUILTIN, "alignment", {"pocketsphinx": "fakes_by_pitch:Tones"})
    monkeypatch.setitem(engines.BUILTIN, "vad", {})  # tones are no speech
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


@pytest.fixture()
def rows(episode: tuple[Path, Path], run: Run, tmp_path: Path) -> Path:
    """The episode and its turns as rows."""
    audio, rttm = episode
    turns = run("import", rttm, "--recording", audio)
    assert turns.exit_code == 0, turns.stderr
    path = tmp_path / "ep.jsonl"
    path.write_text(turns.stdout)
    return path


def heard(result: Result) -> dict[str, set[str]]:
    assert result.exit_code == 0, result.stderr
    found: dict[str, set[str]] = {}
    for row in told(result):
        if row["kind"] == "utterance":
            found.setdefault(row["speaker"], set()).update(row["text"].split())
    return found


@pytest.mark.usefixtures("fakes")
def test_people_who_talk_at_once_are_read_apart(run: Run, rows: Path) -> None:
    apart = run("transcribe", rows)
    assert heard(apart) == {"S1": {"low"}, "S2": {"high"}}
    stems = [r.get("stem") for r in told(apart) if r["kind"] == "utterance"]
    assert stems == ["speaker:S1", "speaker:S2", None]  # the last turn is nobody else's
    made_by = next(r for r in told(apart) if r.get("stage") == "transcribe")
    assert "by-pitch" in made_by["engine"] and "context_s" in made_by["params"]["talkers"]
    assert ByPitch.asked == [2]
    mixed = run("transcribe", rows, "--overlap", "mixture")
    both = heard(mixed)
    assert "high" in both["S1"] or "low" in both["S2"]
    assert ByPitch.asked == [2] and "talkers" not in mixed.stderr
    assert run("transcribe", rows, "--overlap", "never").exit_code != 0


@pytest.mark.usefixtures("fakes")
def test_without_a_talker_engine_overlaps_are_read_as_they_are(
    run: Run, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(engines.BUILTIN, "talkers", {})
    found = run("transcribe", rows)
    assert found.stderr.count("no talker engine runs here") == 1
    mixed = run("transcribe", rows, "--overlap", "mixture")
    assert heard(found) == heard(mixed) and "talker engine" not in mixed.stderr
    refused = run("transcribe", rows, "--overlap", "separate")
    assert refused.exit_code > 1 and refused.stdout == ""


@pytest.mark.usefixtures("fakes")
def test_single_talkers_cost_nothing_and_read_the_same(
    run: Run, episode: tuple[Path, Path], rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [x for x in rows.read_text().splitlines(keepends=True) if '"S2"' not in x]
    rows.write_text("".join(lines))
    found = run("transcribe", rows)
    monkeypatch.setitem(engines.BUILTIN, "talkers", {})
    without = run("transcribe", rows)
    assert found.exit_code == 0 and found.stdout == without.stdout
    assert not ByPitch.asked and "talker" not in without.stderr
