"""The diarize stage with its real models: real speech, and audio that is none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from podtool.audio import Audio, open_audio
from podtool.engines import load
from podtool.engines.embedding_campplus import CamPlusPlus
from podtool.engines.protocols import EngineContext
from podtool.errors import InputError, ModelError
from podtool.progress import Timings
from podtool.resample import resample
from podtool.stages.diarize import (
    Diarization,
    DiarizeEngines,
    DiarizeParams,
    diarize,
    same_voice,
)
from podtool.store import ModelStore

pytestmark = pytest.mark.models
RATE = 16000


@pytest.fixture(scope="module")
def engines() -> DiarizeEngines:
    context = EngineContext(ModelStore(), threads=1)
    try:
        return DiarizeEngines(
            load("vad", "silero", context),
            load("segmentation", "pyannote", context),
            load("embedding", "campplus", context),
        )
    except ModelError as error:
        pytest.skip(f"{error.message}: {error.hint}")


def readers(data: Path) -> dict[str, list[np.ndarray]]:
    """Three utterances of 4 to 12 s of each of three speakers, 16 kHz."""
    paths: dict[str, list[Path]] = {}
    for line in (data / "MANIFEST.jsonl").open():
        row = json.loads(line)
        if row.get("corpus") == "LibriSpeech test-clean" and 4 < row["duration_s"] < 12:
            paths.setdefault(row["speaker"], []).append(data / row["path"])
    found: dict[str, list[np.ndarray]] = {}
    for speaker in [s for s in sorted(paths) if len(paths[s]) >= 3][:3]:
        found[speaker] = []
        for path in paths[speaker][:3]:
            with open_audio(path) as file:
                found[speaker].append(resample(file.read(), RATE).samples[0])
    return found


@pytest.fixture(scope="module")
def dialogue(data: Path) -> tuple[Audio, list[tuple[float, float, str]], dict[str, np.ndarray]]:
    """Three people in turn, the last two turns two seconds on top of each other; one clip each."""
    people = readers(data)
    order = [(k, s) for k in range(2) for s in people]
    mix = np.zeros(0, np.float32)
    truth = []
    for i, (k, s) in enumerate(order):
        clip = people[s][k]
        at = len(mix) + (RATE // 2 if i < len(order) - 1 else -2 * RATE)
        mix = np.pad(mix, (0, at + len(clip) - len(mix)))
        mix[at:] += clip
        truth.append((at / RATE, len(mix) / RATE, s))
    return Audio(mix[None], RATE), truth, {s: clips[2] for s, clips in people.items()}


def labels_at(found: Diarization, second: float) -> list[str]:
    return sorted({t.speaker for t in found.turns if t.start <= second < t.end})


def test_a_dialogue(dialogue, engines) -> None:  # type: ignore[no-untyped-def]
    audio, truth, _ = dialogue
    timings = Timings()
    found = diarize(audio, "talk", engines, timings=timings, workers=1)
    assert [s.id for s in found.speakers] == ["S1", "S2", "S3"]
    assert found.turns[0].speaker == "S1"
    for start, end, _ in truth[:3]:
        assert len(labels_at(found, (start + end) / 2)) == 1
    assert [labels_at(found, (a + b) / 2) for a, b, _ in truth[:3]] == [["S1"], ["S2"], ["S3"]]
    assert 0.8 < found.overlap_s < 3.0
    assert all(abs(o.start - truth[-1][0]) < 1.0 for o in found.overlaps[-1:])
    assert all(t.end <= audio.duration for t in found.turns)
    assert all(0 < (t.score or 0) <= 1 for t in found.turns)
    assert {"segmentation", "vad", "embedding", "clustering"} <= set(timings.seconds)
    again = diarize(audio, "talk", engines, workers=2)
    assert again == found


def test_enrolled_people_get_their_names(dialogue, engines) -> None:  # type: ignore[no-untyped-def]
    audio, truth, clips = dialogue
    known = {s: engines.embedding.embed(Audio(c[None], RATE)) for s, c in clips.items()}
    stranger = known.pop(truth[0][2])
    found = diarize(audio, "talk", engines, enrolled=known, workers=1)
    assert [s.name for s in found.speakers] == [None, truth[1][2], truth[2][2]]
    embedding = found.speakers[0].embedding
    assert embedding is not None and float(stranger @ np.array(embedding.vector)) > 0.5


@pytest.mark.parametrize("wanted", [1, 2])
def test_a_number_of_speakers(dialogue, engines, wanted) -> None:  # type: ignore[no-untyped-def]
    found = diarize(dialogue[0], "talk", engines, DiarizeParams(speakers=wanted), workers=1)
    assert len(found.speakers) == wanted


def test_every_second_is_embedded_at_most_twice(dialogue, engines) -> None:  # type: ignore[no-untyped-def]
    audio = dialogue[0]
    heard = 0

    class Counting(CamPlusPlus):
        def features(self, samples):  # type: ignore[no-untyped-def]
            nonlocal heard
            heard += len(samples)
            return super().features(samples)

    counting = replace(engines, embedding=Counting(engines.embedding._session))
    diarize(audio, "talk", counting, DiarizeParams(denoise="never"), workers=1)
    assert audio.frames / 3 < heard <= 2 * audio.frames


@pytest.mark.parametrize("rate", [8000, 44100])
def test_other_rates_and_stereo(dialogue, engines, rate) -> None:  # type: ignore[no-untyped-def]
    audio, _, _ = dialogue
    start = Audio(audio.samples[:, : 20 * RATE], RATE)
    other = resample(start, rate)
    found = diarize(Audio(np.repeat(other.samples, 2, 0), rate), "talk", engines, workers=1)
    assert 1 <= len(found.speakers) <= 3
    assert found.speech_s > 10


@pytest.mark.parametrize("seconds", [0.000125, 0.01, 0.5, 12.0])
@pytest.mark.parametrize("rate", [8000, 16000, 192000])
def test_silence_and_blips(engines: DiarizeEngines, seconds: float, rate: int) -> None:
    silence = Audio(np.zeros((1, max(1, round(seconds * rate))), np.float32), rate)
    assert diarize(silence, "silence", engines, workers=1) == Diarization()


def test_a_tone_and_noise_hold_nobody(engines: DiarizeEngines) -> None:
    t = np.arange(8 * RATE) / RATE
    tone = Audio((0.2 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)[None], RATE)
    noise = np.random.default_rng(0).normal(0, 0.05, (1, 8 * RATE)).astype(np.float32)
    assert diarize(tone, "tone", engines, workers=1).turns == ()
    assert diarize(Audio(noise, RATE), "noise", engines, workers=1).turns == ()


def test_one_voice_or_two(dialogue, engines, data) -> None:  # type: ignore[no-untyped-def]
    audio, _, clips = dialogue
    assert not same_voice(diarize(audio, "talk", engines, workers=1))
    one = next(iter(readers(data).values()))
    alone = diarize(Audio(np.concatenate(one)[None], RATE), "alone", engines, workers=1)
    assert same_voice(alone)
    assert not same_voice(Diarization())
    assert len(clips) == 3


@pytest.mark.parametrize(
    "bad", [{"speakers": 0}, {"min_speakers": 4, "max_speakers": 2}, {"denoise": "maybe"}]
)
def test_contradictions_are_refused(engines: DiarizeEngines, bad: dict[str, object]) -> None:
    silence = Audio(np.zeros((1, RATE), np.float32), RATE)
    with pytest.raises(InputError):
        diarize(silence, "x", engines, DiarizeParams(**bad))  # type: ignore[arg-type]
