"""Speech taken out of its background without a trained model.

The background is learned where nobody speaks, tracked where somebody does, and masked out: noise
power by the unbiased MMSE tracker (Gerkmann and Hendriks, 2012) run in both directions of time,
gain by the optimally modified log-spectral amplitude (Ephraim and Malah, 1985; Cohen, 2003).
Podcasts keep voices in the middle: what the side channel predicts of it is bed, and cancelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from podtool.audio import Audio
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.segments import Span

Power = NDArray[np.float32]
Spectrum = NDArray[np.complex64]
_TINY = np.float32(1e-12)
_ENOUGH_QUIET = 20  # windows without speech that show what the background is like
_NEAR_BINS = 21  # over which its loudest bin counts: notes move
_CHANCE = np.float32(0.25)  # coherence of middle and side that chance gives to a voice
_LOUDER = np.float32(5.0)


@dataclass(frozen=True, slots=True)
class SpectralParams:
    """Settings of the estimator; levels in dB, times in seconds."""

    window_s: float = 0.046
    overlap: int = 4  # windows over each sample
    floor_db: float = -30.0  # what is left of the background where nothing else is
    prior_db: float = -20.0  # the smallest a-priori SNR
    memory: float = 0.9  # of the decision-directed a-priori SNR
    absent_db: float = -3.0  # smoothed SNR at and under which a bin holds no speech
    present_db: float = 3.0  # and at which it surely may
    smoothing_s: float = 0.1  # of that SNR in time


class Spectral:
    """The embedded separation engine: any rate, any number of channels, no weights."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="spectral",
        stage="separation",
        version="1",
        licence="MIT",
        tier="embedded",
        sample_rate=0,
        channels=0,
        window_s=24.0,
        packages=("scipy",),
    )
    stems: tuple[str, ...] = ("speech",)

    def __init__(self, params: SpectralParams | None = None) -> None:
        self.params = params or SpectralParams()

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        return cls()

    def separate(self, audio: Audio, speech: Sequence[Span] | None = None) -> dict[str, Audio]:
        """Stem `speech` of a window, same shape.

        `speech`: where somebody speaks, in seconds from its start; None: anywhere.
        """
        estimate = extract(audio, speech, self.params)
        return {"speech": Audio(estimate, audio.sample_rate)}


def denoise(audio: Audio, speech: Sequence[Span] | None = None, deepest_db: float = -18.0) -> Audio:
    """Speech with its background lowered by at most `deepest_db`: for listening machines.

    Cheaper than a separation (windows overlap by half); nothing is gated, so that a voice that
    the spans miss stays audible.
    """
    params = SpectralParams(window_s=0.032, overlap=2, floor_db=deepest_db)
    floor = np.float32(10 ** (deepest_db / 20))
    voice = extract(audio, speech, params)
    return Audio((1 - floor) * voice + floor * audio.samples, audio.sample_rate)


def without_sides(audio: Audio) -> NDArray[np.float32]:
    """(n,) middle of (channels, n) without what the sides predict of it: bed, where voices are
    in the middle."""
    params = SpectralParams()
    grid = _Grid.of(audio.sample_rate, params)
    middle, sides = _middle_and_side(audio.samples)
    spectrum = grid.forward(middle)
    for side in sides:
        spectrum = _cancel(spectrum, grid.forward(side))
    return grid.backward(spectrum, audio.frames)


def extract(
    audio: Audio, speech: Sequence[Span] | None, params: SpectralParams
) -> NDArray[np.float32]:
    """(channels, n) of mixture -> (channels, n) of speech."""
    if audio.frames == 0 or not audio.samples.any():
        return np.zeros_like(audio.samples)
    grid = _Grid.of(audio.sample_rate, params)
    active = grid.activity(audio.frames, audio.sample_rate, speech)
    if not active.any():
        return np.zeros_like(audio.samples)
    middle, side = _middle_and_side(audio.samples)
    spectrum = grid.forward(middle)
    power = np.abs(spectrum) ** 2
    noise = _noise_power(power, active)
    sides = [grid.forward(s) for s in side]
    if not all(_centred(power, np.abs(s) ** 2, noise, active) for s in sides):
        gain = _gain(power, noise, active, params, grid.step_s(audio.sample_rate))
        spectra = (grid.forward(c) for c in audio.samples)
        return np.stack([grid.backward(gain * c, audio.frames) for c in spectra])
    for s in sides:
        spectrum = _cancel(spectrum, s)
    if sides:
        power = np.abs(spectrum) ** 2
        noise = _noise_power(power, active)
    gain = _gain(power, noise, active, params, grid.step_s(audio.sample_rate))
    voice = grid.backward(gain * spectrum, audio.frames)
    return np.repeat(voice[None], audio.channels, axis=0)


@dataclass(frozen=True, slots=True)
class _Grid:
    """Short-time Fourier transform with a sine window, perfectly reconstructing."""

    size: int
    hop: int

    @classmethod
    def of(cls, rate: int, params: SpectralParams) -> _Grid:
        size = max(64, 1 << round(np.log2(rate * params.window_s)))
        return cls(size, size // params.overlap)

    def step_s(self, rate: int) -> float:
        return self.hop / rate

    def _count(self, frames: int) -> int:
        return -(-(frames + self.size - self.hop) // self.hop)

    def forward(self, samples: NDArray[np.float32]) -> Spectrum:
        """(n,) -> (bins, t)."""
        from scipy.fft import rfft

        count = self._count(len(samples))
        lead = self.size - self.hop
        padded = np.zeros(self.size + (count - 1) * self.hop, np.float32)
        padded[lead : lead + len(samples)] = samples
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.size)[:: self.hop]
        spectrum = rfft(windows * self._window(), axis=1)
        return np.ascontiguousarray(spectrum.T.astype(np.complex64, copy=False))

    def backward(self, spectrum: Spectrum, frames: int) -> NDArray[np.float32]:
        """(bins, t) -> (n,)."""
        from scipy.fft import irfft

        pieces = irfft(spectrum.T, n=self.size, axis=1) * self._window()
        overlap = self.size // self.hop
        count = pieces.shape[0]
        total = np.zeros((count + overlap - 1, self.hop), np.float32)
        for k in range(overlap):
            total[k : k + count] += pieces[:, k * self.hop : (k + 1) * self.hop]
        lead = self.size - self.hop
        return np.asarray(total.ravel()[lead : lead + frames] * np.float32(2 / overlap), np.float32)

    def _window(self) -> NDArray[np.float32]:
        return np.sin(np.pi * (np.arange(self.size) + 0.5) / self.size).astype(np.float32)

    def activity(self, frames: int, rate: int, speech: Sequence[Span] | None) -> NDArray[np.bool_]:
        """(t,) whether the middle half of each window touches speech."""
        count = self._count(frames)
        if speech is None:
            return np.ones(count, np.bool_)
        middle = (np.arange(count) * self.hop - (self.size - self.hop) + self.size / 2) / rate
        reach = self.size / rate / 4
        active = np.zeros(count, np.bool_)
        for span in speech:
            active |= (middle + reach > span[0]) & (middle - reach < span[1])
        return active


def _middle_and_side(
    samples: NDArray[np.float32],
) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
    if samples.shape[0] == 1:
        return samples[0], []
    middle = samples.mean(axis=0, dtype=np.float32)
    if samples.shape[0] == 2:
        return middle, [(samples[0] - samples[1]) / 2]
    return middle, [c - middle for c in samples[:-1]]


def _centred(middle: Power, side: Power, noise: Power, active: NDArray[np.bool_]) -> bool:
    """Whether the bins that stand out of the noise while somebody speaks are out of the side.

    `noise` is that of the middle. The clearest two in a hundred bins decide.
    """
    clear = middle[:, active] / noise[:, active]
    some = clear[:, :: max(1, clear.shape[1] // 200)]
    voiced = clear > max(30.0, float(np.quantile(some, 0.98)))
    if not voiced.any():
        return True
    return float(np.median(side[:, active][voiced] / middle[:, active][voiced])) < 0.03


def _cancel(middle: Spectrum, side: Spectrum) -> Spectrum:
    """The middle without what the side predicts of it, locally in time and frequency.

    Least squares over about a third of a second and three bins, and only where middle and side
    are more coherent than chance makes them.
    """
    from scipy.ndimage import uniform_filter

    reach = (3, 29)

    def mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(uniform_filter(values, reach, mode="nearest"), np.float32)

    cross = middle * side.conj()
    joint = mean(cross.real) + 1j * mean(cross.imag)
    power_side = mean(np.abs(side) ** 2) + _TINY
    power_middle = mean(np.abs(middle) ** 2) + _TINY
    coherence = np.abs(joint) ** 2 / (power_side * power_middle)
    trust = np.clip(1 - _CHANCE / np.maximum(coherence, 1e-6), 0, 1)
    return np.asarray(middle - trust * joint / power_side * side, np.complex64)


def _noise_power(power: Power, active: NDArray[np.bool_]) -> Power:
    """(bins, t) of noise power: as observed where nobody speaks, tracked where somebody does.

    Where pauses show the background, what is tracked may not exceed it by far: a voice that never
    pauses in a bin would pass for noise.
    """
    from scipy.ndimage import maximum_filter1d

    forward = _track(power, active)
    backward = _track(power[:, ::-1], active[::-1])[:, ::-1]
    noise = np.sqrt(forward * backward)
    quiet = ~active
    if quiet.sum() < _ENOUGH_QUIET:
        return np.asarray(noise, np.float32)
    heard = maximum_filter1d(power[:, quiet].mean(axis=1), _NEAR_BINS)
    return np.asarray(np.minimum(noise, _LOUDER * heard[:, None] + _TINY), np.float32)


def _track(power: Power, active: NDArray[np.bool_]) -> Power:
    """Unbiased MMSE noise power with speech presence probability, one direction of time."""
    quiet = np.flatnonzero(~active)
    start = power[:, quiet[:20]] if len(quiet) else power[:, :20]
    noise = start.mean(axis=1) + _TINY
    presence = np.full_like(noise, 0.5)
    xi = np.float32(10**1.5)  # a-priori SNR when speech is present: 15 dB
    out = np.empty_like(power)
    columns = np.ascontiguousarray(power.T)
    result = np.ascontiguousarray(out.T)
    for t in range(len(columns)):
        now = columns[t]
        if active[t]:
            exponent = np.minimum(now / noise * (xi / (1 + xi)), 50)
            p = 1 / (1 + (1 + xi) * np.exp(-exponent))
            presence = 0.9 * presence + 0.1 * p
            p = np.where(presence > 0.99, np.minimum(p, 0.99), p)
            noise = 0.8 * noise + 0.2 * (p * noise + (1 - p) * now)
        else:
            noise = 0.8 * noise + 0.2 * now
            presence *= 0.9
        noise = np.maximum(noise, _TINY)
        result[t] = noise
    return np.ascontiguousarray(result.T)


def _gain(
    power: Power, noise: Power, active: NDArray[np.bool_], params: SpectralParams, step_s: float
) -> Power:
    """OM-LSA gain (bins, t); 0 where nobody speaks.

    The probability that a bin holds speech comes from its SNR smoothed over its neighbours, a
    wider band and the whole frame.
    """
    floor = np.float32(10 ** (params.floor_db / 20))
    post = np.minimum(power / noise, 1e4)
    prior = _prior(post, active, params)
    gain = _lsa(prior, post)
    absent = 1 - _may_speak(post, params, step_s)
    odds = np.clip(absent, 0.02, 0.95)
    odds /= 1 - odds
    exponent = np.clip(prior / (1 + prior) * post, 0, 50)
    speech = 1 / (1 + odds * (1 + prior) * np.exp(-exponent))
    out = np.exp(speech * np.log(np.maximum(gain, 1e-4)) + (1 - speech) * np.log(floor))
    out[:, ~active] = 0
    return np.asarray(np.maximum(out, floor * active), np.float32)


def _prior(post: Power, active: NDArray[np.bool_], params: SpectralParams) -> Power:
    """Decision-directed a-priori SNR."""
    smallest = np.float32(10 ** (params.prior_db / 10))
    memory = np.float32(params.memory)
    columns = np.ascontiguousarray(post.T)
    result = np.full_like(columns, smallest)
    before = np.zeros_like(columns[0])
    for t in range(len(columns)):
        if not active[t]:
            before = np.zeros_like(before)
            continue
        now = columns[t]
        prior = np.maximum(memory * before + (1 - memory) * np.maximum(now - 1, 0), smallest)
        result[t] = prior
        before = _lsa(prior, now) ** 2 * now
    return np.ascontiguousarray(result.T)


def _may_speak(post: Power, params: SpectralParams, step_s: float) -> Power:
    """How likely each bin is to hold speech by what surrounds it, 0 to 1 (Cohen, 2003)."""
    from scipy.ndimage import uniform_filter1d

    low, high = (10 ** (v / 10) for v in (params.absent_db, params.present_db))
    reach = 2 * max(1, round(params.smoothing_s / step_s / 2)) + 1
    smooth = uniform_filter1d(np.maximum(post - 1, 0), reach, axis=1)

    def likelihood(snr: Power) -> Power:
        return np.asarray(np.log(np.clip(snr, low, high) / low) / np.log(high / low), np.float32)

    near = likelihood(uniform_filter1d(smooth, 3, axis=0))
    wide = likelihood(uniform_filter1d(smooth, 31, axis=0))
    whole = likelihood(smooth[: len(smooth) // 2].mean(axis=0))
    return near * wide * whole


def _lsa(prior: Power, post: Power) -> Power:
    """Log-spectral amplitude gain (Ephraim and Malah, 1985)."""
    wiener = prior / (1 + prior)
    v = np.clip(wiener * post, _V_MIN, _V_MAX).astype(np.float32, copy=False)
    factor = _half_exp1()[(v.view(np.int32) >> _SHIFT) - _FIRST]
    return np.asarray(np.minimum(wiener * factor, 1), np.float32)


_V_MIN, _V_MAX, _SHIFT = np.float32(1e-4), np.float32(50), 14
_FIRST = int(_V_MIN.view(np.int32)) >> _SHIFT


@cache
def _half_exp1() -> Power:
    """exp(E1(v) / 2), tabulated by the leading bits of v as float32: to a part in a thousand."""
    from scipy.special import exp1

    last = int(_V_MAX.view(np.int32)) >> _SHIFT
    bits = (np.arange(_FIRST, last + 1, dtype=np.int32) << _SHIFT) + (1 << _SHIFT - 1)
    return np.asarray(np.exp(0.5 * exp1(bits.view(np.float32).astype(np.float64))), np.float32)
