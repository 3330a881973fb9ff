"""What happens to a recording between the mouth and the file.

`equaliser` and `telephone` are filters: linear, so they go over every part of a scene and its sum
holds. `clip`, `quantise` and `codec` are not: they change the mixture alone.
"""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from podtool.training.corpus import RATE

EQ_TAPS = 256
_GRID = 1024
CODECS = (("OGG", "OPUS"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III"))


def equaliser(rng: np.random.Generator, depth_db: float = 8.0) -> NDArray[np.float32]:
    """A minimum-phase filter (EQ_TAPS,): gains at random every octave, smooth between."""
    gains = rng.uniform(-depth_db, depth_db, 8)
    octaves = np.log2(np.maximum(np.arange(_GRID // 2 + 1) * RATE / _GRID, 60.0) / 60.0)
    return _minimum_phase(np.interp(octaves, np.arange(8), gains))


def telephone(rng: np.random.Generator) -> NDArray[np.float32]:
    """A minimum-phase filter (EQ_TAPS,): low-pass at 3 to 7 kHz, high-pass at 60 to 350 Hz."""
    hz = np.arange(_GRID // 2 + 1) * RATE / _GRID
    low, high = rng.uniform(60, 350), rng.uniform(3000, 7000)
    steep = rng.uniform(4, 10)
    gain_db = -10 * np.log10(1 + (hz / high) ** (2 * steep))
    gain_db -= 10 * np.log10(1 + (low / np.maximum(hz, 1.0)) ** 4)
    return _minimum_phase(np.maximum(gain_db, -60.0))


def _minimum_phase(gain_db: NDArray[np.float64]) -> NDArray[np.float32]:
    """The filter whose gain this is on the grid, by folding the cepstrum."""
    cepstrum = scipy.fft.irfft(gain_db * (np.log(10) / 20))
    cepstrum[1 : _GRID // 2] *= 2
    cepstrum[_GRID // 2 + 1 :] = 0
    taps = scipy.fft.irfft(np.exp(scipy.fft.rfft(cepstrum)))[:EQ_TAPS]
    taps[-32:] *= np.linspace(1, 0, 32)
    return np.asarray(taps, np.float32)


def clip(rng: np.random.Generator, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cut at 1.5 to 5 times the RMS level, and below the peak in any case."""
    level = float(np.sqrt(np.mean(np.square(samples))))
    limit = min(rng.uniform(1.5, 5.0) * level, 0.9 * float(np.abs(samples).max(initial=0.0)))
    return np.asarray(np.clip(samples, -limit, limit), np.float32)


def quantise(rng: np.random.Generator, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rounded to 8 to 12 bits below the peak."""
    step = np.float32(2.0 ** -int(rng.integers(7, 12)) * np.abs(samples).max(initial=1e-9))
    return np.asarray(np.round(samples / step) * step, np.float32)


def codec(rng: np.random.Generator, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Through Opus, Vorbis or MP3 in memory, aligned with what went in. Opus costs .1 s."""
    format, subtype = CODECS[int(rng.choice(3, p=(0.1, 0.5, 0.4)))]
    return through(samples, format, subtype, float(rng.uniform(0.3, 0.95)))


def through(
    samples: NDArray[np.float32], format: str, subtype: str, compression: float
) -> NDArray[np.float32]:
    """Encoded and decoded by libsndfile; compression 0 is its best quality, .95 small; 1 fails."""
    lag = _lag(format, subtype)
    out = _encoded(samples, format, subtype, compression)[max(0, lag) :]
    out = np.pad(out[: len(samples)], (0, max(0, len(samples) - len(out))))
    return np.asarray(out, np.float32)


def _encoded(
    samples: NDArray[np.float32], format: str, subtype: str, compression: float
) -> NDArray[np.float32]:
    import soundfile

    file = io.BytesIO()
    soundfile.write(
        file, samples, RATE, format=format, subtype=subtype, compression_level=compression
    )
    file.seek(0)
    decoded: NDArray[np.float32] = soundfile.read(file, dtype="float32")[0]
    return decoded


@cache
def _lag(format: str, subtype: str) -> int:
    """Samples that this codec delays by here: whether a decoder skips its delay varies."""
    noise = np.random.default_rng(0).standard_normal(RATE)
    probe = np.asarray(np.convolve(noise, np.ones(8), "same") / 80, np.float32)
    out = _encoded(probe, format, subtype, 0.0)
    size = 2 * max(len(out), len(probe))
    cross = scipy.fft.irfft(scipy.fft.rfft(out, size) * np.conj(scipy.fft.rfft(probe, size)), size)
    lag = int(np.argmax(cross))
    return lag if lag < size // 2 else lag - size
