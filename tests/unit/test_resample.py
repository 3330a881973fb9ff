"""The resampler and the down-mix: lengths, levels, and the same result by either road."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podtool import resample as module
from podtool.audio import Audio, open_audio, write_audio
from podtool.resample import at_rate, resample, to_mono

RATES = [8000, 11025, 16000, 22050, 44100, 48000, 96000, 192000]


def tone(hz: float, rate: int, seconds: float = 1.0, channels: int = 1) -> Audio:
    t = np.arange(round(seconds * rate)) / rate
    wave = 0.5 * np.sin(2 * np.pi * hz * t)
    return Audio(np.tile(wave, (channels, 1)).astype(np.float32), rate)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 5000), st.sampled_from(RATES), st.sampled_from(RATES), st.integers(1, 3))
def test_length_rate_and_layout(frames: int, rate: int, to: int, channels: int) -> None:
    audio = Audio(np.zeros((channels, frames), np.float32), rate)
    out = resample(audio, to)
    assert out.sample_rate == to
    assert out.samples.shape == (channels, round(frames * to / rate))
    assert out.samples.dtype == np.float32


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("to", RATES)
def test_a_tone_stays_the_tone(rate: int, to: int) -> None:
    out = resample(tone(1000.0, rate), to).samples[0]
    wanted = tone(1000.0, to).samples[0]
    middle = slice(len(wanted) // 10, -len(wanted) // 10)
    assert np.abs(out[middle] - wanted[middle]).max() < 1e-3


def test_what_the_lower_rate_cannot_hold_is_gone() -> None:
    out = resample(tone(7000.0, 44100), 8000).samples[0]
    assert np.abs(out[1000:-1000]).max() < 1e-3


def test_the_same_rate_is_the_same_samples() -> None:
    audio = tone(440.0, 16000, channels=2)
    assert resample(audio, 16000) is audio


def test_mono_is_the_mean() -> None:
    audio = Audio(np.array([[1.0, 0.0], [0.0, 0.5]], np.float32), 16000)
    assert np.array_equal(to_mono(audio).samples, np.array([[0.5, 0.25]], np.float32))
    mono = tone(440.0, 16000)
    assert to_mono(mono) is mono


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
@pytest.mark.parametrize("mono", [True, False])
def test_spooled_and_in_memory_are_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: int, mono: bool
) -> None:
    rng = np.random.default_rng(0)
    samples = rng.uniform(-0.5, 0.5, (2, rate * 70 + 17)).astype(np.float32)  # three blocks
    write_audio(tmp_path / "x.wav", Audio(samples, rate), "float")
    with open_audio(tmp_path / "x.wav") as audio:
        whole = at_rate(audio, 16000, mono)
        monkeypatch.setattr(module, "IN_MEMORY_S", 1.0)
        spooled = at_rate(audio, 16000, mono)
        assert isinstance(whole, Audio) and not isinstance(spooled, Audio)
        assert (spooled.frames, spooled.channels) == (whole.frames, 1 if mono else 2)
        assert spooled.sample_rate == 16000
        assert np.abs(spooled.read().samples - whole.samples).max() < 1e-4
        for start, stop in ((0, 10), (12345, 23456), (whole.frames - 5, whole.frames + 5)):
            part = spooled.read(start, stop).samples
            assert np.array_equal(part, spooled.read().samples[:, start:stop])
        assert spooled.read(whole.frames + 5).frames == 0


def test_nothing_is_done_where_nothing_is_to_be_done(tmp_path: Path) -> None:
    write_audio(tmp_path / "x.wav", tone(440.0, 16000))
    with open_audio(tmp_path / "x.wav") as audio:
        assert at_rate(audio, 16000) is audio
