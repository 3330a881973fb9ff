"""Loudness against the standard's own definitions (EBU Tech 3341 tones) and against pyloudnorm."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from podtool.audio import Audio, blocks
from podtool.errors import ConfigError
from podtool.loudness import MASTERS, SILENT, k_weighting, limit, master, measure

Samples = NDArray[np.float32]


def tone(level_db: float, seconds: float, rate: int, hz: float = 1000.0) -> Samples:
    t = np.arange(round(seconds * rate)) / rate
    wave = 10 ** (level_db / 20) * np.sin(2 * np.pi * hz * t)
    return np.stack([wave, wave]).astype(np.float32)


def noise(seconds: float, rate: int, channels: int = 2, seed: int = 1) -> Samples:
    """Noise with the swings of speech: a burst and a pause every second."""
    rng = np.random.default_rng(seed)
    frames = round(seconds * rate)
    swing = 0.02 + 0.1 * (np.sin(2 * np.pi * np.arange(frames) / rate) > 0)
    return (rng.standard_normal((channels, frames)) * swing).astype(np.float32)


def test_filter_is_the_one_printed_in_the_standard_at_48_khz() -> None:
    printed = [
        [
            1.53512485958697,
            -2.69169618940638,
            1.19839281085285,
            1,
            -1.69065929318241,
            0.73248077421585,
        ],
        [1, -2, 1, 1, -1.99004745483398, 0.99007225036621],
    ]
    assert np.allclose(k_weighting(48000), printed, atol=1e-8)


@pytest.mark.parametrize("rate", [16000, 44100, 48000, 96000])
@pytest.mark.parametrize("level", [-23.0, -33.0])
def test_tech_3341_cases_1_and_2(rate: int, level: float) -> None:
    assert measure(Audio(tone(level, 20, rate), rate)).integrated_lufs == pytest.approx(
        level, abs=0.1
    )


def test_tech_3341_case_3_gates_the_quiet_parts() -> None:
    parts = [tone(-36, 10, 48000), tone(-23, 60, 48000), tone(-36, 10, 48000)]
    sound = Audio(np.concatenate(parts, axis=1), 48000)
    assert measure(sound).integrated_lufs == pytest.approx(-23.0, abs=0.1)


def test_tech_3341_case_4_gates_near_silence() -> None:
    levels = [(-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)]
    sound = Audio(np.concatenate([tone(v, s, 48000) for v, s in levels], axis=1), 48000)
    assert measure(sound).integrated_lufs == pytest.approx(-23.0, abs=0.1)


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_agrees_with_pyloudnorm(rate: int, channels: int) -> None:
    import pyloudnorm

    sound = noise(12, rate, channels)
    theirs = pyloudnorm.Meter(rate).integrated_loudness(sound.T)
    assert measure(Audio(sound, rate)).integrated_lufs == pytest.approx(theirs, abs=0.15)


def test_blocks_do_not_change_the_number() -> None:
    sound = Audio(noise(5, 16000), 16000)
    one, many = measure(sound, 60.0), measure(sound, 0.0371)
    assert many.integrated_lufs == pytest.approx(one.integrated_lufs, abs=1e-6)
    assert many.true_peak_dbtp == pytest.approx(one.true_peak_dbtp, abs=1e-4)


@pytest.mark.parametrize("phase", [0.0, 45.0, 60.0, 67.5])
def test_tech_3341_true_peak_of_a_quarter_rate_tone(phase: float) -> None:
    """Cases 15 to 18: a tone at fs/4 whose samples miss its crest by up to 3 dB; -6 dBTP."""
    angle = np.arange(48000) * np.pi / 2 + np.deg2rad(phase)
    wave = np.sin(angle) * np.minimum(
        1, np.minimum(np.arange(48000), 47999 - np.arange(48000)) / 4800
    )
    sound = Audio((0.5 * wave).astype(np.float32)[None], 48000)
    assert measure(sound).true_peak_dbtp == pytest.approx(-6.02, abs=0.2)


def test_silence_and_a_few_samples_have_a_level() -> None:
    assert measure(Audio(np.zeros((2, 48000), np.float32), 48000)).integrated_lufs == SILENT
    assert measure(Audio(np.full((1, 3), 0.5, np.float32), 48000)).peak_db == pytest.approx(
        -6.02, abs=0.01
    )


@pytest.mark.parametrize("cut", [777, 4000, 10**6])
def test_limiter_holds_the_ceiling_and_the_frames(cut: int) -> None:
    from scipy.signal import resample_poly

    sound = noise(3, 44100) * 12
    sound[:, 20000:20040] = 1.7 * np.sign(sound[:, 20000:20040])
    parts = [Audio(sound[:, i : i + cut], 44100) for i in range(0, sound.shape[1], cut)]
    out = np.concatenate([b.samples for b in limit(parts, 44100, 2, 1.5, -1.0)], axis=1)
    assert out.shape == sound.shape
    assert 20 * np.log10(np.abs(resample_poly(out, 4, 1, axis=1)).max()) <= -1.0
    assert measure(Audio(out, 44100)).true_peak_dbtp <= -1.0


def test_limiter_leaves_what_is_low_alone() -> None:
    sound = noise(2, 44100)
    out = np.concatenate([b.samples for b in limit([Audio(sound, 44100)], 44100, 2, 1.0, -1.0)], 1)
    assert (out == sound).all()


@pytest.mark.parametrize("name", ["apple", "mono", "ebu", "spotify"])
def test_masters_reach_loudness_under_the_ceiling(name: str) -> None:
    import pyloudnorm

    sound = Audio(noise(8, 44100), 44100)
    stream, plan = master(lambda: (b for _, b in blocks(sound, 1.0)), 44100, 2, name)
    out = np.concatenate([b.samples for b in stream], axis=1)
    target = MASTERS[name]
    assert target is not None and target.lufs is not None and plan is not None
    assert out.shape == sound.samples.shape
    assert pyloudnorm.Meter(44100).integrated_loudness(out.T) == pytest.approx(target.lufs, abs=0.3)
    assert measure(Audio(out, 44100)).true_peak_dbtp <= target.ceiling_dbtp
    assert plan.result.integrated_lufs == pytest.approx(target.lufs, abs=0.1)


def test_acx_reaches_its_rms() -> None:
    sound = Audio(noise(8, 44100, 1), 44100)
    stream, _ = master(lambda: (b for _, b in blocks(sound, 1.0)), 44100, 1, "acx")
    out = Audio(np.concatenate([b.samples for b in stream], axis=1), 44100)
    measured = measure(out)
    assert -23 <= measured.rms_db <= -18 and measured.true_peak_dbtp <= -3.0


def test_master_none_gives_the_very_blocks_and_unknown_ones_are_refused() -> None:
    sound = Audio(noise(1, 16000), 16000)
    stream, plan = master(lambda: [sound], 16000, 2, "none")
    assert plan is None and [b.samples is sound.samples for b in stream] == [True]
    with pytest.raises(ConfigError, match="vinyl"):
        master(lambda: [sound], 16000, 2, "vinyl")
