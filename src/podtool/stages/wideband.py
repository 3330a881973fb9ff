"""What a separator at 16 kHz mono says, carried over to the recording's own rate and channels.

Below the separator's 8 kHz its outputs are taken as they are. What lies above is shared out by the
outputs' power from 5 to 8 kHz, moment by moment, since sibilants reach over the border. Channels
are the middle plus a difference: of that, each output gets what follows it (its place between the
loudspeakers, by least squares), and the rest is shared by power.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from podtool.audio import Audio
from podtool.resample import resample, to_mono

BORDER_HZ = 5000.0
SMOOTH_S = 0.02
Samples = NDArray[np.float32]


def widen(piece: Audio, outputs: Samples, rate: int) -> Samples:
    """(sources, m) outputs at `rate`, heard in the middle of `piece` -> (sources, channels, n).

    They stay parts of the piece: where outputs sum to the whole middle, results sum to the piece.
    """
    middle = to_mono(piece)
    low = resample(middle, rate).samples
    outputs = _fit(outputs, low.shape[1])
    parts = np.concatenate([outputs, low - outputs.sum(axis=0, keepdims=True)])
    own = _back(outputs, rate, piece)
    if piece.sample_rate > rate:
        high = middle.samples - _back(low, rate, piece)
        own += _at_frames(power_shares(_above(parts, rate), rate), piece.frames)[:-1] * high
    difference = piece.samples - middle.samples
    wide = np.repeat(own[:, None, :], piece.channels, axis=1)
    if difference.any():
        gains = _gains(resample(Audio(difference, piece.sample_rate), rate).samples, outputs)
        wide += gains[:, :, None] * own[:, None, :]
        rest = difference - np.einsum("kc,kn->cn", gains, own)
        shares = _at_frames(power_shares(parts, rate), piece.frames)[:-1]
        wide += shares[:, None, :] * rest
    return wide


def _back(samples: Samples, rate: int, piece: Audio) -> Samples:
    there = resample(Audio(np.ascontiguousarray(samples), rate), piece.sample_rate).samples
    return _fit(there, piece.frames)


def _fit(samples: Samples, frames: int) -> Samples:
    samples = samples[:, :frames]
    missing = frames - samples.shape[1]
    return np.pad(samples, ((0, 0), (0, missing))) if missing else samples


def _above(parts: Samples, rate: int) -> Samples:
    from scipy.signal import butter, sosfiltfilt

    border = min(BORDER_HZ, 0.8 * rate / 2)
    sections = butter(4, border, "highpass", fs=rate, output="sos")
    return np.asarray(sosfiltfilt(sections, parts, axis=1, padlen=min(100, parts.shape[1] - 1)))


def power_shares(parts: Samples, rate: int) -> Samples:
    """(parts, m) each part's share of the short-time power; zero where all are silent."""
    from scipy.ndimage import uniform_filter1d

    size = max(1, round(SMOOTH_S * rate))
    power = np.square(parts, dtype=np.float64)
    for _ in range(2):
        power = uniform_filter1d(power, size, axis=1, mode="nearest")
    power = np.maximum(power, 0.0)
    return np.asarray(power / (power.sum(axis=0, keepdims=True) + 1e-14), np.float32)


def _at_frames(values: Samples, frames: int) -> Samples:
    """Slow curves (parts, m) over a stretch -> (parts, frames) over the same stretch."""
    if values.shape[1] == frames:
        return values
    there = (np.arange(frames) + 0.5) * values.shape[1] / frames - 0.5
    here = np.arange(values.shape[1])
    return np.asarray([np.interp(there, here, v) for v in values], np.float32)


def _gains(difference: Samples, outputs: Samples) -> Samples:
    """(sources, channels): how each channel's difference from the middle follows the outputs."""
    sources, channels = len(outputs), len(difference)
    y, d = outputs.astype(np.float64), _fit(difference, outputs.shape[1]).astype(np.float64)
    gram = y @ y.T
    gram += (1e-3 * np.trace(gram) / sources + 1e-12) * np.eye(sources)
    found = np.linalg.solve(gram, y @ d.T)
    return np.asarray(np.clip(found, -1.0, channels - 1.0), np.float32)
