"""Laws of fades, crossfades, overlap-add and stretching."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podtool.audio import Audio
from podtool.dsp import crossfade, fade, overlap_add, ramp, stretch, window_starts


@given(st.integers(1, 400))
def test_ramps_keep_amplitude_or_power(frames: int) -> None:
    linear, power = ramp(frames), ramp(frames, "power")
    assert np.allclose(linear + linear[::-1], 1)
    assert np.allclose(power**2 + power[::-1] ** 2, 1)
    assert (np.diff(linear) >= 0).all() and 0 < linear[0] and linear[-1] < 1


@given(st.integers(0, 300), st.integers(0, 200), st.integers(0, 200))
def test_fade_leaves_the_middle_alone(frames: int, fade_in: int, fade_out: int) -> None:
    samples = np.ones((2, frames), np.float32)
    out = fade(samples, fade_in, fade_out)
    assert out.shape == samples.shape
    assert (out <= 1).all() and (out >= 0).all()
    if fade_in + fade_out <= frames:
        assert (out[:, fade_in : frames - fade_out] == 1).all()


@given(st.integers(1, 200), st.integers(1, 200), st.data())
def test_crossfade_of_a_signal_with_itself_is_the_signal(
    a: int, b: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, min(a, b)))
    noise = np.random.default_rng(a * 1000 + b).standard_normal((1, a + b - overlap))
    whole = noise.astype(np.float32)
    joined = crossfade(whole[:, :a], whole[:, a - overlap :], overlap)
    assert joined.shape == whole.shape
    assert np.allclose(joined, whole, atol=1e-6)


def test_crossfade_refuses_more_than_there_is() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        crossfade(np.zeros((1, 3), np.float32), np.zeros((1, 9), np.float32), 4)


@given(st.integers(0, 3000), st.integers(2, 700), st.data())
def test_overlap_add_of_unchanged_windows_is_the_signal(
    frames: int, window: int, data: st.DataObject
) -> None:
    hop = data.draw(st.integers((window + 1) // 2, window))
    signal = np.random.default_rng(frames).standard_normal((2, frames)).astype(np.float32)
    windows = [signal[:, s : s + window] for s in window_starts(frames, window, hop)]
    out = np.concatenate(list(overlap_add(windows, frames, window, hop)), axis=1)
    assert out.shape == signal.shape
    assert np.allclose(out, signal, atol=2e-6)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.85, 1.15), st.sampled_from([16000, 44100]))
def test_stretch_gives_the_frames_and_keeps_the_pitch(factor: float, rate: int) -> None:
    t = np.arange(rate) / rate
    tone = (0.3 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)[None]
    frames = round(rate * factor)
    out = stretch(Audio(tone, rate), frames)
    assert out.samples.shape == (1, frames)
    middle = (
        out.samples[0, frames // 4 : 3 * frames // 4]
        * np.hanning(frames // 2 + frames % 2)[: 3 * frames // 4 - frames // 4]
    )
    peak = np.abs(np.fft.rfft(middle, 1 << 17)).argmax() * rate / (1 << 17)
    assert abs(peak - 440) < 3
