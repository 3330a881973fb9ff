"""How good a stretch of speech is as a reference: noise below it, clipping, tones behind it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from podtool.audio import Audio

FULL_SCALE = 0.999
_WINDOW = 1024
_HOP = 256


@dataclass(frozen=True, slots=True)
class Quality:
    """Level in dBFS, speech over background in dB (at most 60), share of clipped samples."""

    level_dbfs: float
    snr_db: float
    clipped: float


@dataclass(frozen=True, slots=True)
class Background:
    """What is heard in the quietest moments: how far below the speech, and the share of tones."""

    snr_db: float
    share: float


def measure(audio: Audio) -> Quality:
    """Quality of a clip of speech that is mostly one person talking.

    The background is the 5th percentile of 30 ms levels, the speech their 90th: a clip without
    pauses therefore looks noisier than it is, never cleaner.
    """
    samples = audio.samples.mean(axis=0, dtype=np.float64)
    size = max(1, round(0.03 * audio.sample_rate))
    count = len(samples) // size
    if count < 4:
        return Quality(-120.0, 0.0, 0.0)
    power = np.square(samples[: count * size].reshape(count, size)).mean(axis=1)
    low, high = np.percentile(10 * np.log10(power + 1e-12), [5, 90])
    loudest = np.abs(audio.samples).max(axis=0)
    peak = float(loudest.max(initial=0.0))
    at_top = loudest >= max(FULL_SCALE, 0.9999 * peak)
    runs = at_top[1:] & at_top[:-1]  # one sample at the top is a peak, two in a row are clipping
    return Quality(
        level_dbfs=float(10 * np.log10(np.square(samples).mean() + 1e-12)),
        snr_db=float(min(60.0, max(0.0, high - low))),
        clipped=float(runs.mean()) if len(runs) else 0.0,
    )


def tonal_background(audio: Audio) -> Background:
    """Tones in the quietest sixth of mono 16 kHz audio, 150 Hz to 5 kHz, averaged over 0.1 s.

    The share counts bins 7 dB over the median of the 25 around them. Noise has under .02 of them,
    music and babble behind speech .03 and more.
    """
    samples = audio.samples[0].astype(np.float64)
    if len(samples) < 20 * _HOP + _WINDOW:
        return Background(60.0, 0.0)
    frames = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)[::_HOP]
    power = np.empty((len(frames), 310))
    window = np.hanning(_WINDOW)
    for start in range(0, len(frames), 1000):
        spectrum = np.fft.rfft(frames[start : start + 1000] * window, axis=1)[:, 10:320]
        power[start : start + 1000] = np.abs(spectrum) ** 2
    total = np.cumsum(np.vstack([np.zeros((1, power.shape[1])), power]), axis=0)
    mean = np.maximum(total[6:] - total[:-6], 0.0) / 6
    level = 10 * np.log10(mean.mean(axis=1) + 1e-12)
    quiet = 10 * np.log10(mean[level <= np.percentile(level, 15)] + 1e-12)
    over = quiet - _running_median(quiet, 25)
    snr = float(np.percentile(level, 90) - np.percentile(level, 7))
    return Background(snr, float((over > 7.0).mean()))


def _running_median(rows: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """(n, d) median over `width` neighbours along the second axis, edges reflected."""
    half = width // 2
    padded = np.pad(rows, ((0, 0), (half, half)), mode="symmetric")
    out = np.empty_like(rows)
    for start in range(0, len(rows), 500):
        views = np.lib.stride_tricks.sliding_window_view(padded[start : start + 500], width, axis=1)
        out[start : start + 500] = np.median(views, axis=2)
    return out
