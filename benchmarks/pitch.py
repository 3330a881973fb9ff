"""A judge of pitch that has nothing in common with the engines' tracker.

Voice conversion is done and was measured with one tracker, Harvest, which gives a pitch also to
frames that have none (where voicing is to be decided by D4C, in WORLD). There it is chance, and
another chance after noise 40 dB under the speech: of a recording with such noise and of the same
without, contours by Harvest correlate by .92, those of this tracker by 1.00.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

RATE = 16000
HOP = 80  # samples: 5 ms
CANDIDATES = 8
VOICING = 0.45  # correlation under which a frame is rather unvoiced
SILENCE = 0.03  # of the highest peak: frames under it are rather unvoiced
OCTAVE, JUMP, CHANGE = 0.01, 0.35, 0.14  # costs: of low pitch, of an octave, of voicing
BLOCK = 512  # frames at once

Floats = NDArray[np.float64]


def f0(samples: NDArray[Any]) -> Floats:
    """(n,) samples at 16 kHz -> (n // 80 + 1,) Hz every 5 ms, 0 where unvoiced.

    The autocorrelation method of P. Boersma, "Accurate short-term analysis of the fundamental
    frequency and the harmonics-to-noise ratio of a sampled sound", IFA Proceedings 17, 1993, with
    Praat's default costs; tracked twice, the second time between .7 of the first quartile and 1.9
    times the third of what was found first (after C. De Looze, D. Hirst, Speech Prosody 2008).
    """
    x = np.asarray(samples, np.float64)
    found = _tracked(x, 60.0, 500.0)
    voiced = found[found > 0]
    if len(voiced) < 20:
        return found
    low, high = np.percentile(voiced, [25, 75])
    return _tracked(x, max(50.0, 0.7 * low), min(600.0, 1.9 * high))


def _tracked(x: Floats, floor: float, ceiling: float) -> Floats:
    pitches, strengths = _candidates(x, floor, ceiling)
    voiced = pitches > 0
    log = np.log2(np.where(voiced, pitches, 1.0))
    correction = 0.01 * RATE / HOP  # costs are per 10 ms
    total, back = strengths[0], np.zeros(pitches.shape, np.int64)
    for n in range(1, len(pitches)):
        both = voiced[n - 1][:, None] & voiced[n]
        cost = np.where(both, JUMP * np.abs(log[n - 1][:, None] - log[n]), 0.0)
        cost += CHANGE * (voiced[n - 1][:, None] != voiced[n])
        score = total[:, None] - correction * cost
        back[n] = score.argmax(axis=0)
        total = score.max(axis=0) + strengths[n]
    path = int(total.argmax())
    out = np.zeros(len(pitches))
    for n in range(len(pitches) - 1, -1, -1):
        out[n] = pitches[n, path]
        path = int(back[n, path])
    return out


def _candidates(x: Floats, floor: float, ceiling: float) -> tuple[Floats, Floats]:
    """(n, 1 + CANDIDATES) Hz and strengths; the first is unvoiced, with 0 Hz."""
    size = round(3 * RATE / floor)
    frames = len(x) // HOP + 1
    width = 1 << (2 * size - 1).bit_length()
    window = np.hanning(size + 2)[1:-1]
    of_window = np.fft.irfft(np.abs(np.fft.rfft(window, width)) ** 2)
    of_window /= of_window[0]
    shortest, longest = int(RATE / ceiling), min(int(np.ceil(RATE / floor)), size // 2)
    padded = np.pad(x, (size // 2, size))
    period = round(RATE / floor)
    whole = float(np.abs(x - x.mean()).max(initial=0.0)) + 1e-12
    pitches = np.zeros((frames, 1 + CANDIDATES))
    strengths = np.full(pitches.shape, -9.0)
    for first in range(0, frames, BLOCK):
        at = np.arange(first, min(frames, first + BLOCK))
        cut = padded[at[:, None] * HOP + np.arange(size)]
        cut = cut - cut.mean(axis=1, keepdims=True)
        middle = cut[:, size // 2 - period // 2 : size // 2 + period // 2]
        loud = np.abs(middle).max(axis=1) / whole
        power = np.abs(np.fft.rfft(cut * window, width, axis=1)) ** 2
        r = np.fft.irfft(power, axis=1)[:, : longest + 2]
        r /= (r[:, :1] + 1e-12) * of_window[: longest + 2]
        strengths[at, 0] = VOICING + np.maximum(0.0, 2 - loud / (SILENCE / (1 + VOICING)))
        here = r[:, shortest : longest + 1]
        left, right = r[:, shortest - 1 : longest], r[:, shortest + 1 : longest + 2]
        bend = np.minimum(left - 2 * here + right, -1e-9)
        shift = np.clip(0.5 * (left - right) / bend, -0.5, 0.5)
        lag = np.arange(shortest, longest + 1) + shift
        height = np.minimum(here - 0.25 * (left - right) * shift, 1.0)
        peak = (here > left) & (here >= right) & (height > 0.5 * VOICING)
        strength = np.where(peak, height - OCTAVE * np.log2(floor * lag / RATE), -9.0)
        best = np.argsort(-strength, axis=1)[:, :CANDIDATES]
        good = np.take_along_axis(peak, best, axis=1)
        hertz = RATE / np.take_along_axis(lag, best, axis=1)
        pitches[at, 1 : 1 + best.shape[1]] = np.where(good, hertz, 0.0)
        strengths[at, 1 : 1 + best.shape[1]] = np.take_along_axis(strength, best, axis=1)
    return pitches, strengths
