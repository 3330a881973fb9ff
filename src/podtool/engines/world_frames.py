"""WORLD analysis and synthesis of mono speech, and the mel grid on which voices are compared.

Everything here works at 16 kHz in float64; other rates are the business of `voice_world`.
Source: M. Morise, F. Yokomori, K. Ozawa, "WORLD: a vocoder-based high-quality speech synthesis
system for real-time applications", IEICE Trans. Inf. & Syst. E99-D(7), 2016. F0 is Harvest
(Morise, Interspeech 2017), the envelope CheapTrick, the aperiodicity D4C.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RATE = 16000
FRAME_S = 0.005
FFT = 1024
BINS = FFT // 2 + 1
BANDS = 80  # points of the envelope, equally spaced on the mel scale from 0 to 8 kHz
F0_FLOOR, F0_CEIL = 60.0, 500.0
SHORTEST = 1600  # samples: WORLD needs a few periods; shorter input is padded with silence

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Frames:
    """WORLD's view of `length` samples, one frame every 5 ms.

    f0 (n,) Hz, 0 where unvoiced; spectrum (n, 513) power; aperiodicity (n, 513) in [0, 1].
    """

    f0: Floats
    spectrum: Floats
    aperiodicity: Floats
    length: int

    @property
    def envelope(self) -> Floats:
        """(n, BANDS) natural logarithm of the power envelope on the mel grid."""
        return np.asarray(np.log(self.spectrum + 1e-16) @ TO_MEL.T)


def world() -> Any:
    """The pyworld module, without the warning about pkg_resources that its import gives."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pyworld
    return pyworld


def analyse(samples: NDArray[Any], resynthesis: bool = True) -> Frames:
    """Mono samples (n,) at 16 kHz -> frames. Silence gives unvoiced frames.

    Without `resynthesis` the aperiodicity, which statistics do not need, is left out: (0, 513).
    """
    pyworld = world()
    length = len(samples)
    x = np.ascontiguousarray(samples, np.float64)
    if length < SHORTEST:
        x = np.pad(x, (0, SHORTEST - length))
    floor, ceil = pitch_range(x)
    f0, times = pyworld.harvest(x, RATE, f0_floor=floor, f0_ceil=ceil, frame_period=1000 * FRAME_S)
    spectrum = pyworld.cheaptrick(x, f0, times, RATE, fft_size=FFT)
    aperiodicity = np.zeros((0, BINS))
    if resynthesis:
        aperiodicity = pyworld.d4c(x, f0, times, RATE, fft_size=FFT)
    return Frames(f0, spectrum, aperiodicity, length)


def pitch_range(x: Floats) -> tuple[float, float]:
    """Hz between which Harvest looks: 1.2 octaves either way of the median that DIO finds.

    Harvest takes time in proportion to the range, and DIO next to none (Morise et al., 2009).
    """
    rough, _ = world().dio(x, RATE, f0_floor=F0_FLOOR, f0_ceil=F0_CEIL, frame_period=10.0)
    voiced = rough[rough > 0]
    if len(voiced) < 10:
        return F0_FLOOR, F0_CEIL
    middle = float(np.median(voiced))
    return max(F0_FLOOR, middle / 2.3), min(F0_CEIL, middle * 2.3)


def synthesise(frames: Frames) -> NDArray[np.float32]:
    """Frames -> exactly `frames.length` samples at 16 kHz."""
    y = world().synthesize(
        np.ascontiguousarray(frames.f0),
        np.ascontiguousarray(frames.spectrum),
        np.ascontiguousarray(frames.aperiodicity),
        RATE,
        1000 * FRAME_S,
    )
    if len(y) < frames.length:
        y = np.pad(y, (0, frames.length - len(y)))
    return np.asarray(y[: frames.length], np.float32)


def mel(hertz: Any) -> Any:
    """Hz -> mel (O'Shaughnessy)."""
    return 1127.0 * np.log1p(np.asarray(hertz, np.float64) / 700.0)


def hertz(mels: Any) -> Any:
    """mel -> Hz."""
    return 700.0 * np.expm1(np.asarray(mels, np.float64) / 1127.0)


CENTRES: Floats = np.asarray(hertz(np.linspace(0.0, float(mel(RATE / 2)), BANDS)))


def _grids() -> tuple[Floats, Floats]:
    """(BANDS, BINS) triangular means onto the mel grid; (BINS, BANDS) linear interpolation back."""
    bins = np.asarray(mel(np.linspace(0.0, RATE / 2, BINS)))
    position = bins / bins[-1] * (BANDS - 1)
    down = np.maximum(0.0, 1.0 - np.abs(position[None, :] - np.arange(BANDS)[:, None]))
    down /= down.sum(axis=1, keepdims=True)
    left = np.minimum(position.astype(int), BANDS - 2)
    up = np.zeros((BINS, BANDS))
    up[np.arange(BINS), left] = 1.0 - (position - left)
    up[np.arange(BINS), left + 1] = position - left
    return down, up


TO_MEL, FROM_MEL = _grids()


def cosines(bands: int, order: int) -> Floats:
    """(order, bands) orthonormal DCT-II: envelope -> mel-cepstrum; its transpose goes back."""
    n = np.arange(bands)
    rows = np.cos(np.pi * (n[None, :] + 0.5) * np.arange(order)[:, None] / bands)
    rows *= np.sqrt(2.0 / bands)
    rows[0] /= np.sqrt(2.0)
    return np.asarray(rows)


def smooth(values: Floats, frames: int) -> Floats:
    """(n, d) averaged along time with a Hann window of `frames` frames, edges repeated."""
    if frames <= 1 or not len(values):
        return values
    window = np.hanning(frames + 2)[1:-1]
    window /= window.sum()
    left = (frames - 1) // 2
    padded = np.pad(values, ((left, frames - 1 - left), (0, 0)), mode="edge")
    out = np.zeros_like(values)
    for k, weight in enumerate(window):
        out += weight * padded[k : k + len(values)]
    return out
