"""Enrolment: which clips are chosen, and which references are refused and why."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from podtool.artifacts import Turn
from podtool.audio import Audio
from podtool.engines.world_frames import BANDS
from podtool.engines.world_profile import SpeechProfile
from podtool.errors import InputError
from podtool.segments import Span, intersect, total
from podtool.stages.clone import (
    ClonedVoice,
    CloneParams,
    clone,
    reference_speaker,
    refuse_music,
    with_reference_checks,
)
from podtool.stages.quality import measure, tonal_background

RATE = 16000


class Listening:
    """Takes what it is given for speech and remembers it."""

    def __init__(self) -> None:
        self.heard: list[Audio] = []

    def enrol(self, clips: Sequence[Audio], workers: int = 1) -> SpeechProfile:
        self.heard = list(clips)
        frames = int(sum(c.duration for c in clips) / 0.005)
        f0 = np.full(frames, 120.0, np.float32)
        return SpeechProfile(np.zeros((frames, BANDS), np.float32), f0, RATE, 8000.0)


class ByLevel:
    """An embedding that tells loud clips from quiet ones: two people for the test."""

    def embed(self, audio: Audio) -> NDArray[np.float32]:
        loud = float(np.abs(audio.samples).max()) > 0.5
        return np.array([1, 0] if loud else [0, 1], np.float32)


def talk(seconds: float, noise: float = 1e-4, level: float = 0.1, seed: int = 0) -> Audio:
    """Bursts of shaped noise with pauses, over a floor of white noise."""
    rng = np.random.default_rng(seed)
    n = round(seconds * RATE)
    t = np.arange(n) / RATE
    bursts = np.clip(np.sin(2 * np.pi * 0.8 * t) * 4, 0, 1) * rng.normal(size=n)
    wave = level * np.convolve(bursts, np.ones(6) / 6, mode="same") + noise * rng.normal(size=n)
    return Audio(wave.astype(np.float32)[None, :], RATE)


def then(*parts: Audio) -> Audio:
    return Audio(np.concatenate([p.samples for p in parts], axis=1), RATE)


def turn(start: float, end: float, speaker: str = "S1") -> Turn:
    return Turn(f"t{start:g}", "r", start, end, speaker)


def spans(voice: ClonedVoice) -> list[Span]:
    return [Span(c.start, c.end) for c in voice.clips]


def test_clips_come_from_where_the_person_talks_alone() -> None:
    turns = [turn(0, 12), turn(10, 18, "S2"), turn(16, 30)]
    voice = clone(talk(30), "r", turns, "S1", Listening())
    assert not intersect(spans(voice), [Span(10, 18)])
    assert total(spans(voice)) == pytest.approx(22, abs=0.1)
    assert [c.recording for c in voice.clips] == ["r"] * len(voice.clips)


def test_clean_clips_are_taken_before_noisy_ones() -> None:
    audio = then(talk(20, noise=0.05), talk(30, seed=1))
    voice = clone(audio, "r", [turn(0, 50)], "S1", Listening(), params=CloneParams(enrolment_s=25))
    noisy = total(intersect(spans(voice), [Span(0, 12)]))
    assert noisy == 0 and total(spans(voice)) >= 25
    assert all(c.snr_db is not None and c.snr_db > 15 for c in voice.clips)


def test_noisy_speech_is_used_where_there_is_no_other_and_said() -> None:
    voice = clone(talk(30, noise=0.05), "r", [turn(0, 30)], "S1", Listening())
    assert any("noisy" in w for w in voice.warnings)
    assert voice.statistics["snr_db"] < 15


def test_clipped_speech_is_a_last_resort() -> None:
    clipped = talk(20, level=0.8)
    clipped = Audio(np.clip(clipped.samples * 5, -1, 1), RATE)
    assert measure(clipped).clipped > 0.001 > measure(talk(5)).clipped
    audio = then(clipped, talk(30, seed=2))
    voice = clone(audio, "r", [turn(0, 50)], "S1", Listening())
    assert not intersect(spans(voice), [Span(0, 19)])
    only = clone(clipped, "r", [turn(0, 20)], "S1", Listening())
    assert any("clipped" in w for w in only.warnings)


def test_a_clip_of_somebody_else_is_left_out() -> None:
    audio = then(talk(40), talk(8, level=0.9, seed=3))
    voice = clone(
        audio, "r", [turn(0, 40), turn(40, 48)], "S1", Listening(), ByLevel(), CloneParams()
    )
    assert not intersect(spans(voice), [Span(40, 48)])
    assert any("somebody else" in w for w in voice.warnings)
    assert voice.embedding is not None and voice.embedding[1] == pytest.approx(1)
    assert voice.statistics["clip_similarity"] == pytest.approx(1)


def test_enrolment_is_bounded() -> None:
    engine = Listening()
    params = CloneParams(enrolment_s=30)
    clone(talk(120), "r", [turn(0, 120)], "S1", engine, params=params)
    assert 30 <= sum(c.duration for c in engine.heard) <= 41


def test_too_little_speech_is_refused_and_little_is_said() -> None:
    with pytest.raises(InputError, match="there are 2.0 s of speech"):
        clone(talk(10), "r", [turn(0, 2)], "S1", Listening())
    with pytest.raises(InputError, match="no speaker 'S9'") as error:
        clone(talk(10), "r", [turn(0, 9)], "S9", Listening())
    assert error.value.hint == "Speakers: S1"
    voice = clone(talk(10), "r", [turn(0, 8)], "S1", Listening())
    assert any("20 s or more" in w for w in voice.warnings)


def test_a_reference_of_two_people_is_refused() -> None:
    with pytest.raises(InputError, match="2 people.*first at 6.0 s"):
        reference_speaker([turn(0, 6), turn(6, 9, "S2")])
    assert reference_speaker([turn(0, 30), turn(30, 31, "S2")]) == "S1"  # a laugh of another
    with pytest.raises(InputError, match="no speech"):
        reference_speaker([])


def test_music_behind_a_reference_is_refused_and_noise_is_not() -> None:
    speech = talk(20)
    t = np.arange(speech.frames) / RATE
    chords = np.sum([np.sin(2 * np.pi * f * t) for f in (196, 247, 294, 392, 494, 587)], axis=0)
    music = Audio(speech.samples + (0.008 * chords).astype(np.float32)[None, :], RATE)
    rows = [turn(0, 20)]
    with pytest.raises(InputError, match="music"):
        refuse_music(music, [Span(0, 20)])
    with pytest.raises(InputError, match="music"):
        with_reference_checks(music, rows)
    assert with_reference_checks(talk(20, noise=0.02), rows) == ("S1", ())
    assert with_reference_checks(speech, rows) == ("S1", ())
    with pytest.raises(InputError, match="2.0 s of speech"):
        with_reference_checks(speech, [turn(0, 2)])
    assert tonal_background(music).share > tonal_background(speech).share


def test_the_same_recording_gives_the_same_voice() -> None:
    one, two = (clone(talk(30), "r", [turn(0, 30)], "S1", Listening()) for _ in range(2))
    assert one.clips == two.clips and one.profile.digest() == two.profile.digest()


def test_quality_of_almost_nothing() -> None:
    assert measure(Audio(np.zeros((1, 10), np.float32), RATE)).snr_db == 0
    assert tonal_background(Audio(np.zeros((1, 10), np.float32), RATE)).share == 0
    with pytest.raises(InputError, match="silent"):
        silence = Audio(np.zeros((1, 10 * RATE), np.float32), RATE)
        clone(silence, "r", [turn(0, 10)], "S1", Listening())
