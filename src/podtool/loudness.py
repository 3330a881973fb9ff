"""Loudness (ITU-R BS.1770-4), true peak, and mastering to a target with a look-ahead limiter.

Everything works on blocks of a source, so that a three-hour file needs the memory of one block.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from podtool.audio import Audio, AudioSource, blocks
from podtool.errors import ConfigError

SILENT = -120.0  # what a level is called when there is nothing to measure
BLOCK_S = 10.0
_OVERSAMPLING = 4
_TAPS = 24  # input samples under each phase of the oversampling filter


@dataclass(frozen=True, slots=True)
class Target:
    """What a master aims at: loudness in LUFS or RMS in dBFS, under a true-peak ceiling."""

    lufs: float | None
    ceiling_dbtp: float
    rms_db: float | None = None


MASTERS: dict[str, Target | None] = {
    "none": None,
    "apple": Target(-16.0, -1.0),
    "mono": Target(-19.0, -1.0),
    "ebu": Target(-23.0, -1.0),
    "spotify": Target(-14.0, -1.0),
    "acx": Target(None, -3.0, rms_db=-20.0),
}


def master_target(name: str) -> Target | None:
    """The target of a preset, None for `none`. Raises ConfigError for an unknown name."""
    if name not in MASTERS:
        raise ConfigError(f"there is no master {name!r}", f"Masters: {', '.join(MASTERS)}.")
    return MASTERS[name]


@dataclass(frozen=True, slots=True)
class Loudness:
    """Integrated loudness (LUFS), loudest 400 ms (LUFS), true peak (dBTP), RMS and peak (dBFS)."""

    integrated_lufs: float
    momentary_max_lufs: float
    true_peak_dbtp: float
    rms_db: float
    peak_db: float


def to_db(amplitude: float) -> float:
    """20 log10, SILENT at and below -120 dB."""
    return 20 * math.log10(amplitude) if amplitude > 1e-6 else SILENT


def k_weighting(rate: int) -> NDArray[np.float64]:
    """The two biquads of BS.1770-4 as second-order sections (2, 6) for any rate.

    The standard prints coefficients for 48 kHz; these are its analogue prototypes (De Man, 2014),
    which give the printed ones at 48 kHz.
    """
    gain = 10 ** (3.999843853973347 / 20)
    k = math.tan(math.pi * min(1681.974450955533, 0.49 * rate) / rate)
    q = 0.7071752369554196
    boost = gain**0.4996667741545416
    scale = 1 + k / q + k * k
    shelf = [
        (gain + boost * k / q + k * k) / scale,
        2 * (k * k - gain) / scale,
        (gain - boost * k / q + k * k) / scale,
        1.0,
        2 * (k * k - 1) / scale,
        (1 - k / q + k * k) / scale,
    ]
    k = math.tan(math.pi * 38.13547087602444 / rate)
    q = 0.5003270373238773
    scale = 1 + k / q + k * k
    high_pass = [1.0, -2.0, 1.0, 1.0, 2 * (k * k - 1) / scale, (1 - k / q + k * k) / scale]
    return np.array([shelf, high_pass])


def channel_weights(channels: int) -> NDArray[np.float64]:
    """BS.1770 weights: surrounds of a 5.1 file count 1.41, its LFE nothing, all others 1."""
    weights = np.ones(channels)
    if channels == 6:
        weights[3] = 0.0
        weights[4:] = 1.41
    return weights


class LoudnessMeter:
    """Integrated loudness of blocks pushed in order; any cutting gives the same number."""

    def __init__(self, rate: int, channels: int) -> None:
        self._sections = k_weighting(rate)
        self._state = np.zeros((2, channels, 2))
        self._weights = channel_weights(channels)
        self._step = max(1, round(0.1 * rate))
        self._rest: NDArray[np.float64] = np.zeros(0)
        self._powers: list[NDArray[np.float64]] = []

    def push(self, samples: NDArray[np.float32]) -> None:
        """(channels, frames), frames > 0."""
        from scipy.signal import sosfilt

        if samples.shape[1] == 0:
            return
        filtered, self._state = sosfilt(
            self._sections, samples.astype(np.float64), axis=1, zi=self._state
        )
        power = np.concatenate([self._rest, self._weights @ filtered**2])
        whole = len(power) // self._step * self._step
        self._powers.append(power[:whole].reshape(-1, self._step).mean(axis=1))
        self._rest = power[whole:]

    def momentary(self) -> NDArray[np.float64]:
        """LUFS of each 400 ms block, every 100 ms."""
        steps = np.concatenate([*self._powers, np.zeros(0)])
        if len(steps) < 4:  # under 400 ms: one block of what there is
            power = float(np.mean(np.concatenate([np.repeat(steps, self._step), self._rest, [0]])))
            return np.array([_lufs(power)])
        sums = np.cumsum(np.concatenate([[0.0], steps]))
        power4 = np.maximum((sums[4:] - sums[:-4]) / 4, 1e-30)
        return np.asarray(-0.691 + 10 * np.log10(power4))

    def integrated(self) -> float:
        """Gated at -70 LUFS, then at 10 LU under the mean of what is left."""
        return gated(self.momentary())


def gated(momentary: NDArray[np.float64]) -> float:
    """Integrated loudness of 400 ms blocks given in LUFS (BS.1770-4 gating); SILENT if none."""
    heard = momentary[momentary >= -70.0]
    if len(heard) == 0:
        return SILENT
    relative = _mean_lufs(heard) - 10.0
    return _mean_lufs(heard[heard > relative])


def _mean_lufs(levels: NDArray[np.float64]) -> float:
    return float(10 * np.log10(np.mean(10 ** (levels / 10))))


def _lufs(power: float) -> float:
    return -0.691 + 10 * math.log10(power) if power > 1e-12 else SILENT


def _phases() -> NDArray[np.float32]:
    """Polyphase filter (3, taps) of the samples between samples, at 1/4, 2/4 and 3/4."""
    count = _OVERSAMPLING * _TAPS
    at = (np.arange(count + 1) - count / 2) / _OVERSAMPLING
    taps = np.sinc(at) * np.kaiser(count + 1, 8.0)
    rows = [taps[_OVERSAMPLING - p :: _OVERSAMPLING][:_TAPS] for p in range(1, _OVERSAMPLING)]
    return np.array([row / row.sum() for row in rows], np.float32)


def oversampled_peaks(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """(channels, n) -> (n - taps + 1,): the largest magnitude of any channel around each sample.

    Entry i is the larger of |x[i + taps/2 - 1]| and the three interpolated values between it and
    the next sample (4x oversampling, as BS.1770-4 annex 2 asks, by a longer filter than its 12
    taps).
    """
    from scipy.signal import oaconvolve

    half = _TAPS // 2
    count = samples.shape[1] - _TAPS + 1
    peaks = np.abs(samples[:, half - 1 : half - 1 + count]).max(axis=0)
    for taps in _phases():
        between = oaconvolve(samples, taps[None, ::-1], mode="valid", axes=1)
        np.maximum(peaks, np.abs(between).max(axis=0), out=peaks)
    return np.asarray(peaks, np.float32)


class TruePeakMeter:
    """Largest inter-sample magnitude of blocks pushed in order."""

    def __init__(self, channels: int) -> None:
        self._past = np.zeros((channels, _TAPS), np.float32)
        self.peak = 0.0

    def push(self, samples: NDArray[np.float32]) -> None:
        joined = np.concatenate([self._past, samples], axis=1)
        self.peak = max(self.peak, float(oversampled_peaks(joined).max()))
        self._past = joined[:, -_TAPS:]

    def finish(self) -> float:
        """The peak, ringing after the last sample included."""
        self.push(np.zeros((self._past.shape[0], _TAPS), np.float32))
        return self.peak


def measure(source: AudioSource, block_s: float = BLOCK_S) -> Loudness:
    """Loudness of a whole source, in one pass over blocks."""
    return measure_blocks(
        (block for _, block in blocks(source, block_s)), source.sample_rate, source.channels
    )


def measure_blocks(stream: Iterable[Audio], rate: int, channels: int) -> Loudness:
    """Loudness of consecutive blocks."""
    meter, true_peak = LoudnessMeter(rate, channels), TruePeakMeter(channels)
    energy, count, peak = 0.0, 0, 0.0
    for block in stream:
        if block.frames == 0:
            continue
        meter.push(block.samples)
        true_peak.push(block.samples)
        energy += float(np.sum(np.square(block.samples, dtype=np.float64)))
        count += block.samples.size
        peak = max(peak, float(np.abs(block.samples).max()))
    momentary = meter.momentary()
    return Loudness(
        integrated_lufs=gated(momentary),
        momentary_max_lufs=max(SILENT, float(momentary.max(initial=SILENT))),
        true_peak_dbtp=to_db(true_peak.finish()),
        rms_db=to_db(math.sqrt(energy / max(1, count))),
        peak_db=to_db(peak),
    )


@dataclass(slots=True)
class Limiter:
    """A look-ahead limiter on inter-sample peaks; the same frames out as in, `reach` later.

    The gain is the minimum over +-`reach` of what each peak allows, smoothed by a Hann window of
    the same reach: it is down before the peak comes, and never above what any peak allows.
    """

    rate: int
    channels: int
    ceiling_dbtp: float
    gain: float = 1.0
    reach_s: float = 0.012
    _held: NDArray[np.float32] = field(init=False)
    _dropped: int = field(init=False)

    MARGIN_DB = 0.1  # the moving gain itself bends peaks between samples by a little

    def __post_init__(self) -> None:
        self._held = np.zeros((self.channels, self._pad), np.float32)
        self._dropped = 0

    @property
    def _reach(self) -> int:
        return max(2, round(self.reach_s * self.rate))

    @property
    def _pad(self) -> int:
        return 2 * self._reach + _TAPS

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Frames that are ready: those whose surroundings are known."""
        held = np.concatenate([self._held, samples * np.float32(self.gain)], axis=1)
        ready = held.shape[1] - 2 * self._pad
        if ready <= 0:
            self._held = held
            return np.zeros((self.channels, 0), np.float32)
        out = self._limited(held)
        self._held = held[:, ready:]
        return out

    def finish(self) -> NDArray[np.float32]:
        """The frames still held."""
        return self.push(np.zeros((self.channels, self._pad), np.float32))

    def _limited(self, held: NDArray[np.float32]) -> NDArray[np.float32]:
        """(c, pad + n + pad) -> (c, n)."""
        from scipy.ndimage import minimum_filter1d
        from scipy.signal import oaconvolve

        pad, reach, half = self._pad, self._reach, _TAPS // 2
        middle = held[:, pad : held.shape[1] - pad]
        ceiling = 10 ** ((self.ceiling_dbtp - self.MARGIN_DB) / 20)
        peaks = oversampled_peaks(held)  # entry i belongs to frame i + half - 1
        if float(peaks.max()) <= ceiling:
            return middle
        peaks = np.maximum(peaks[1:], peaks[:-1])  # the values on both sides of a frame
        allowed = np.minimum(1.0, ceiling / np.maximum(peaks.astype(np.float64), 1e-9))
        lowest = minimum_filter1d(allowed, 2 * reach + 1, mode="nearest")
        window = np.hanning(2 * reach + 3)[1:-1]
        smooth = oaconvolve(lowest, window / window.sum(), mode="same")
        first = pad - half  # frame of allowed[i] is i + half
        gains = np.minimum(smooth[first : first + middle.shape[1]], 1.0)
        return np.asarray(middle * gains, np.float32)


def limit(
    stream: Iterable[Audio], rate: int, channels: int, gain: float, ceiling_dbtp: float
) -> Iterator[Audio]:
    """Blocks with a gain applied and no inter-sample peak above the ceiling; same frames in all."""
    limiter = Limiter(rate, channels, ceiling_dbtp, gain)
    for block in stream:
        out = limiter.push(block.samples)
        if out.shape[1]:
            yield Audio(out, rate)
    out = limiter.finish()
    if out.shape[1]:
        yield Audio(out, rate)


@dataclass(frozen=True, slots=True)
class Mastering:
    """The gain that a master needs, and what the result measures."""

    gain_db: float
    result: Loudness


def plan_master(
    stream: Callable[[], Iterable[Audio]], rate: int, channels: int, target: Target, passes: int = 4
) -> Mastering:
    """Find the gain: measure, apply, measure what the limiter took, correct.

    `stream` gives the same blocks each time it is called. A silent source gets no gain.
    """
    before = measure_blocks(stream(), rate, channels)
    level = _level(before, target)
    wanted = target.lufs if target.lufs is not None else target.rms_db
    if level <= SILENT or wanted is None:
        return Mastering(0.0, before)
    gain_db = wanted - level
    result = before
    for _ in range(passes):
        gain = 10 ** (gain_db / 20)
        limited = limit(stream(), rate, channels, gain, target.ceiling_dbtp)
        result = measure_blocks(limited, rate, channels)
        short = wanted - _level(result, target)
        if abs(short) < 0.05:
            break
        gain_db += max(-3.0, min(3.0, short))
    return Mastering(gain_db, result)


def _level(measured: Loudness, target: Target) -> float:
    return measured.integrated_lufs if target.lufs is not None else measured.rms_db


def master(
    stream: Callable[[], Iterable[Audio]], rate: int, channels: int, name: str
) -> tuple[Iterable[Audio], Mastering | None]:
    """Blocks mastered to a preset, and the plan; `none` gives the blocks untouched."""
    target = master_target(name)
    if target is None:
        return stream(), None
    plan = plan_master(stream, rate, channels, target)
    gain = 10 ** (plan.gain_db / 20)
    return limit(stream(), rate, channels, gain, target.ceiling_dbtp), plan
