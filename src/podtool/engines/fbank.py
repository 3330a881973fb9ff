"""Kaldi's log-mel filter bank: 25 ms frames every 10 ms, Povey window, no dither.

As in kaldi feat/feature-fbank.h with snip_edges and 20 Hz to Nyquist, on samples scaled to
[-1, 1]: the scale vanishes with the subtraction of the mean.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

RATE = 16000
FRAME = 400
HOP = 160
FFT = 512
_BLOCK = 2000  # frames transformed at once: bounds memory on long clips


@lru_cache(maxsize=4)
def mel_weights(bands: int) -> NDArray[np.float32]:
    """(FFT // 2 + 1, bands) triangular filters on Kaldi's mel scale, unit peak."""

    def mel(hz: NDArray[np.float64] | float) -> NDArray[np.float64]:
        return np.asarray(1127.0 * np.log1p(np.asarray(hz) / 700.0))

    edges = np.linspace(float(mel(20.0)), float(mel(RATE / 2)), bands + 2)
    at = mel(np.arange(FFT // 2 + 1) * RATE / FFT)[:, None]
    rising = (at - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - at) / (edges[2:] - edges[1:-1])
    weights = np.maximum(0.0, np.minimum(rising, falling))
    weights[-1] = 0.0  # Kaldi leaves the Nyquist bin out
    return weights.astype(np.float32)


@lru_cache(maxsize=1)
def _window() -> NDArray[np.float32]:
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / (FRAME - 1))
    return (hann**0.85).astype(np.float32)


def log_mel(samples: NDArray[np.float32], bands: int = 80) -> NDArray[np.float32]:
    """(n,) samples at 16 kHz -> (frames, bands); shorter clips are padded to one frame."""
    samples = np.asarray(samples, np.float32)
    if len(samples) < FRAME:
        samples = np.pad(samples, (0, FRAME - len(samples)))
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::HOP]
    weights, window = mel_weights(bands), _window()
    out = np.empty((len(frames), bands), np.float32)
    for start in range(0, len(frames), _BLOCK):
        block = frames[start : start + _BLOCK].astype(np.float32)
        block -= block.mean(1, keepdims=True)
        block[:, 1:] -= 0.97 * block[:, :-1]
        block[:, 0] *= 1 - 0.97
        power = np.abs(np.fft.rfft(block * window, FFT, axis=1)).astype(np.float32) ** 2
        # Kaldi's floor is the float epsilon on 16-bit samples; this one is the same in [-1, 1].
        out[start : start + len(block)] = np.log(np.maximum(power @ weights, 1.1e-16))
    return out
