"""Synthetic backgrounds: repeatable, level, different from each other, and in tune."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from podtool.training import synthetic
from podtool.training.corpus import RATE, Clip, Corpus
from podtool.training.mixing import Mixer, MixingParams

Samples = NDArray[np.float32]
Maker = Callable[[np.random.Generator, int], Samples]
BOTH = pytest.mark.parametrize("make", [synthetic.noise, synthetic.music])
BED = MixingParams(  # one noise and nothing else
    silence_share=1, noise_share=1, music_share=0, babble_share=0, self_noise_share=0,
    entry_share=0, reverb_share=0, telephone_share=0, clip_share=0, quantise_share=0,
    codec_share=0, synthetic_noise_share=0, blend_share=0, bed_speed_share=0, bed_eq_share=0,
    reverse_share=0,
)  # fmt: skip


def _rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _spectrum(samples: Samples) -> NDArray[np.float64]:
    spectrum = np.fft.rfft(samples * np.hanning(len(samples)))
    return np.asarray(np.square(np.abs(spectrum)))


@BOTH
def test_backgrounds_depend_on_the_generator_alone(make: Maker) -> None:
    first = [make(_rng(1, k), RATE) for k in range(8)]
    synthetic._instrument.cache_clear()
    again = [make(_rng(1, k), RATE) for k in reversed(range(8))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


@BOTH
@pytest.mark.parametrize(("frames", "count"), [(4 * RATE, 40), (RATE // 2 + 7, 60)])
def test_backgrounds_are_sound_at_level_one(make: Maker, frames: int, count: int) -> None:
    for k in range(count):
        made = make(_rng(2, k), frames)
        assert made.shape == (frames,) and made.dtype == np.float32
        assert np.isfinite(made).all()
        assert np.sqrt(np.mean(np.square(made, dtype=float))) == pytest.approx(1, abs=1e-3)


@BOTH
def test_no_two_backgrounds_are_alike(make: Maker) -> None:
    bands = []
    for k in range(40):
        power = _spectrum(make(_rng(3, k), 2 * RATE))
        edges = (np.geomspace(40, 7900, 25) * 2).astype(int)
        band = np.log10(np.add.reduceat(power, edges[:-1]) / power.sum() + 1e-6)
        bands.append((band - band.mean()) / np.linalg.norm(band - band.mean()))
    likeness = np.stack(bands) @ np.stack(bands).T - np.eye(40)
    assert np.median(likeness) < 0.8 and likeness.max() < 0.999
    loudest = [int(np.argmax(b)) for b in bands]
    assert len(set(loudest)) >= 8


def test_a_texture_has_the_colour_and_the_envelope_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def colour(rng: np.random.Generator, bins: int) -> NDArray[np.float64]:
        hz = np.linspace(0, RATE / 2, bins)
        return np.where((hz > 1000) & (hz < 2000), 1.0, 1e-5)

    def envelope(rng: np.random.Generator, count: int, step_s: float) -> NDArray[np.float64]:
        return np.where(np.arange(count) * step_s < 2, 1.0, 0.1)

    monkeypatch.setattr(synthetic, "_colour", colour)
    monkeypatch.setattr(synthetic, "_envelope", envelope)
    monkeypatch.setattr(
        synthetic, "_played", lambda _, hz: np.zeros(len(hz), np.float32)
    )  # no beat
    for seed in range(6):
        made = synthetic._texture(_rng(seed), 4 * RATE)
        power = _spectrum(made)
        assert power[4 * 850 : 4 * 2150].sum() > 0.97 * power.sum()
        early, late = (
            np.mean(np.square(made[at : at + RATE])) for at in (RATE // 2, 5 * RATE // 2)
        )
        assert 10 * np.log10(early / late) == pytest.approx(20, abs=1.5)


@pytest.mark.parametrize("hz", [110.0, 220.0, 311.1, 523.3, 1046.5])
def test_notes_are_in_tune(hz: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the common period of their partials; an instrument may go an octave down."""
    monkeypatch.setattr(synthetic, "_INSTRUMENTS", 1)  # number 0, plucked
    song = synthetic._Song(_rng(0), 4 * RATE, 0.5)
    voice = synthetic._Voice(_rng(1), song, 4)
    note = voice.note(hz, RATE // 2, 1.0)
    power = np.square(np.abs(np.fft.rfft(note, 8 * RATE)))
    peak = int(np.argmax(power[8 * 30 :]) + 8 * 30) / 8
    multiple = peak / hz * 2 ** max(0, np.ceil(np.log2(hz / synthetic._root_hz(4))))
    assert multiple == pytest.approx(round(multiple), rel=0.01)
    quieter = voice.note(hz, RATE // 2, 0.5)
    np.testing.assert_allclose(quieter, note * 0.5, atol=1e-6)


def test_harmony_keeps_to_the_scale() -> None:
    for seed in range(8):
        song = synthetic._Song(_rng(seed), 4 * RATE, 0.5)
        tonic = song.hz(0, 0)
        for degree in range(-3, 12):
            semitones = 12 * np.log2(song.hz(degree, 1) / tonic)
            assert round(semitones) % 12 in song._scale
            assert semitones == pytest.approx(round(semitones), abs=1e-6)
        spans = song.spans()
        assert spans[0][0] <= 0 and spans[-1][1] >= song.frames


def test_compression_evens_the_level() -> None:
    quiet_loud = _rng(1).standard_normal(2 * RATE).astype(np.float32)
    quiet_loud[:RATE] *= 0.05
    for seed in range(5):
        out = synthetic._compressed(_rng(seed), quiet_loud)
        before, after = (np.std(x[RATE + 8000 :]) / np.std(x[:8000]) for x in (quiet_loud, out))
        assert 1.2 < after < 0.6 * before


def _corpus(noise: list[Clip]) -> Corpus:
    return Corpus({f"s{k}": [_tone(300)] for k in range(3)}, [], noise)


def _tone(hz: float) -> Clip:
    """Louder and louder, so that backwards is told from forwards."""
    t = np.arange(4 * RATE) / RATE
    samples = np.round(8000 * np.sin(2 * np.pi * hz * t) * 2.0 ** (t - 2))
    return Clip("", "", samples.astype(np.int16)[None], 8000.0)


def test_without_recordings_only_synthetic_backgrounds_are_heard() -> None:
    made = Mixer(_corpus([]), replace(BED, synthetic_noise_share=0.1), 1, None)
    assert all(made.scene(k).background.any() for k in range(5))
    assert not Mixer(_corpus([]), BED, 1, None).scene(0).background.any()
    recorded = Mixer(_corpus([_tone(1000)]), BED, 1, None).scene(0).background
    assert np.argmax(_spectrum(recorded)) / 4 == pytest.approx(1000, abs=2)


def test_recordings_are_played_faster_backwards_and_together() -> None:
    def peaks(params: MixingParams, clips: list[Clip]) -> list[set[int]]:
        mixer = Mixer(_corpus(clips), params, 1, None)
        found = []
        for k in range(12):
            power = _spectrum(mixer.scene(k).background)
            loud = np.flatnonzero(power > 0.02 * power.max()) / 4
            found.append({int(100 * np.round(hz / 100)) for hz in loud})
        return found

    clips = [_tone(1000), _tone(3000)]
    assert {frozenset(p) for p in peaks(BED, clips)} == {frozenset({1000}), frozenset({3000})}
    both = peaks(replace(BED, blend_share=1), clips)
    assert {1000, 3000} in both
    fast = replace(BED, bed_speed_share=1, bed_speed=(1.2, 1.2))
    assert all(p == {1200} for p in peaks(fast, clips[:1]))

    def rises(reverse_share: float) -> bool:
        mixer = Mixer(_corpus(clips), replace(BED, reverse_share=reverse_share), 1, None)
        power = np.square(mixer.scene(0).background).reshape(16, -1).mean(axis=1)
        return bool(np.median(np.diff(power)) > 0)

    assert rises(0) and not rises(1)
