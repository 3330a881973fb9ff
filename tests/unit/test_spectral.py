"""What the spectral engine does to signals whose parts are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import exp1

from podtool.audio import Audio
from podtool.engines.separation_spectral import Spectral, _lsa, denoise
from podtool.segments import Span

RATE = 22050
Samples = NDArray[np.float32]
SPANS = [Span(1.0, 3.0), Span(4.0, 6.0)]


def voice(seconds: float = 7.0, rate: int = RATE) -> Samples:
    """A gliding, syllable-modulated buzz in the spans: (n,), about -24 dBFS while it sounds."""
    t = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(120 + 20 * np.sin(2 * np.pi * 0.7 * t)) / rate
    buzz = sum(np.sin(k * phase) / k for k in range(1, 30))
    wave = 0.08 * np.asarray(buzz) * np.sin(2 * np.pi * 2 * t) ** 2
    speaks = np.zeros(len(t), bool)
    for span in SPANS:
        speaks[round(span.start * rate) : round(span.end * rate)] = True
    return np.asarray(wave * speaks, np.float32)


def si_sdr(estimate: Samples, truth: Samples) -> float:
    e, t = estimate.astype(np.float64).ravel(), truth.astype(np.float64).ravel()
    target = t * (e @ t) / (t @ t)
    return float(10 * np.log10((target @ target) / ((e - target) @ (e - target) + 1e-20)))


def noise(channels: int, level: float, seed: int = 1) -> Samples:
    frames = round(7.0 * RATE)
    rng = np.random.default_rng(seed)
    return (level * rng.standard_normal((channels, frames))).astype(np.float32)


def separated(samples: Samples, spans: list[Span] | None = SPANS) -> Samples:
    return Spectral().separate(Audio(samples, RATE), speech=spans)["speech"].samples


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_noise_is_lowered(channels: int) -> None:
    truth = np.repeat(voice()[None], channels, 0)
    mixture = truth + noise(channels, 0.03)
    gain = si_sdr(separated(mixture), truth) - si_sdr(mixture, truth)
    assert gain > 8


def test_a_steady_chord_is_lowered() -> None:
    t = np.arange(round(7.0 * RATE)) / RATE
    chord = np.asarray(sum(np.sin(2 * np.pi * f * t) for f in (311.0, 392.0, 466.0)))
    bed = (0.02 * np.stack([chord, 0.7 * chord])).astype(np.float32)
    truth = np.repeat(voice()[None], 2, 0)
    assert si_sdr(separated(truth + bed), truth) - si_sdr(truth + bed, truth) > 6


def test_a_clean_voice_is_left_alone() -> None:
    truth = np.repeat(voice()[None], 2, 0)
    assert si_sdr(separated(truth), truth) > 30


def test_a_voice_at_one_side_stays_there() -> None:
    truth = np.stack([voice(), np.float32(0.2) * voice()])
    estimate = separated(truth + noise(2, 0.01))
    left, right = np.std(estimate, axis=1)
    assert left / right == pytest.approx(5, rel=0.15)
    assert si_sdr(estimate, truth) > si_sdr(truth + noise(2, 0.01), truth) + 3


def test_without_spans_it_works_too() -> None:
    truth = voice()[None]
    mixture = truth + noise(1, 0.03)
    assert si_sdr(separated(mixture, None), truth) - si_sdr(mixture, truth) > 5


def test_denoise_lowers_noise_and_never_gates() -> None:
    truth, hiss = voice()[None], noise(1, 0.03)
    out = denoise(Audio(truth + hiss, RATE), SPANS, deepest_db=-18.0).samples
    assert si_sdr(out, truth) - si_sdr(truth + hiss, truth) > 5
    pause = slice(0, round(0.7 * RATE))
    lowered = 20 * np.log10(np.std(out[:, pause]) / np.std(hiss[:, pause]))
    assert lowered == pytest.approx(-18, abs=0.5)


@pytest.mark.parametrize("frames", [1, 2, 100, 1023, 5000])
@pytest.mark.parametrize("rate", [8000, 44100, 192000])
def test_any_length_and_rate(frames: int, rate: int) -> None:
    samples = np.random.default_rng(0).standard_normal((2, frames)).astype(np.float32)
    out = Spectral().separate(Audio(samples, rate))["speech"].samples
    assert out.shape == samples.shape and np.isfinite(out).all()
    assert not Spectral().separate(Audio(samples * 0, rate))["speech"].samples.any()


def test_the_tabulated_gain_is_ephraim_and_malahs() -> None:
    rng = np.random.default_rng(0)
    prior = (10 ** rng.uniform(-2, 4, 5000)).astype(np.float32)
    post = (10 ** rng.uniform(-3, 4, 5000)).astype(np.float32)
    wiener = prior / (1 + prior)
    exact = np.minimum(wiener * np.exp(exp1(np.clip(wiener * post, 1e-4, 50)) / 2), 1)
    assert np.allclose(_lsa(prior, post), exact, rtol=1e-3)
