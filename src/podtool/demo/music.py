"""A seeded music bed: slow pads and a plucked arpeggio over four chords, nothing recorded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from podtool.audio import Audio

BEAT_S = 60 / 92
CHORDS = ((57, 60, 64, 67), (53, 57, 60, 64), (48, 55, 60, 64), (55, 59, 62, 67))  # MIDI notes


def bed(seconds: float, rate: int, seed: int) -> Audio:
    """Stereo music of that length, peak 1; the same seed gives the same samples."""
    rng = np.random.default_rng(seed)
    frames = round(seconds * rate)
    mix = np.zeros((2, frames))
    bar = 4 * BEAT_S
    for number in range(int(np.ceil(seconds / bar))):
        chord = CHORDS[number % len(CHORDS)]
        for note in chord:
            pad = _pad(_hz(note), bar * 1.25, rate, rng)
            _add(mix, pad, number * bar, rate, rng.uniform(-1, 1))
        order = rng.permutation(np.repeat(chord, 2))
        for step, note in enumerate(order):
            at = number * bar + step * BEAT_S / 2
            pluck = 0.5 * _pluck(_hz(int(note) + 12), rate, rng)
            _add(mix, pluck, at, rate, 0.6 * (-1) ** step)
    samples = mix / max(1e-9, float(np.abs(mix).max()))
    return Audio(samples.astype(np.float32), rate)


def _hz(note: int) -> float:
    return float(440.0 * 2 ** ((note - 69) / 12))


def _pad(hz: float, seconds: float, rate: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Three detuned voices with a few soft harmonics, slow in and slow out."""
    t = np.arange(round(seconds * rate)) / rate
    tone = np.zeros(t.size)
    for detune in (-0.003, 0.0, 0.003):
        for harmonic, level in ((1, 1.0), (2, 0.3), (3, 0.12)):
            phase = rng.uniform(0, 2 * np.pi)
            tone += level * np.sin(2 * np.pi * hz * harmonic * (1 + detune) * t + phase)
    edge = min(t.size // 2, round(0.6 * rate))
    envelope = np.ones(t.size)
    envelope[:edge] = np.sin(np.linspace(0, np.pi / 2, edge)) ** 2
    envelope[-edge:] = np.minimum(envelope[-edge:], np.sin(np.linspace(np.pi / 2, 0, edge)) ** 2)
    return tone / 3 * envelope


def _pluck(hz: float, rate: int, rng: np.random.Generator) -> NDArray[np.float64]:
    t = np.arange(round(0.9 * rate)) / rate
    tone = sum(np.sin(2 * np.pi * hz * k * t) * np.exp(-t * (4 + 3 * k)) / k for k in (1, 2, 3, 4))
    attack = np.minimum(1, t / 0.004)
    return np.asarray(tone * attack * rng.uniform(0.7, 1.0))


def _add(
    mix: NDArray[np.float64], tone: NDArray[np.float64], at_s: float, rate: int, pan: float
) -> None:
    """Add a tone at a time, panned (-1 left, 1 right) with constant power; cut at the end."""
    start = round(at_s * rate)
    tone = tone[: max(0, mix.shape[1] - start)]
    angle = (pan * 0.8 + 1) * np.pi / 4
    mix[0, start : start + tone.size] += np.cos(angle) * tone
    mix[1, start : start + tone.size] += np.sin(angle) * tone
