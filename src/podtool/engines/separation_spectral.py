"""Speech taken out of its background without a trained model.

The background is learned where nobody speaks, tracked where somebody does, and masked out: noise
power by the unbiased MMSE tracker (Gerkmann and Hendriks, 2012) run in both directions of time,
gain by the log-spectral amplitude estimator (Ephraim and Malah, 1985). Podcasts keep voices in
the middle: what the side channel tells about the bed is cancelled and masked in the middle too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from podtool.audio import Audio
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.segments import Span

Power = NDArray[np.float32]
Spectrum = NDArray[np.complex64]
_TINY = np.float32(1e-12)


@dataclass(frozen=True, slots=True)
class SpectralParams:
    """`floor_db`: the least that is left of the background in the speech stem."""

    window_s: float = 0.046
    overlap: int = 4  # windows over each sample
    floor_db: float = -30.0
    bias: float = 1.0  # how much the noise estimate is trusted over
    prior_db: float = -18.0  # the smallest a-priori SNR
    memory: float = 0.96  # of the decision-directed a-priori SNR


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
    side_spectra = [grid.forward(s) for s in side]
    centred = [s for s in side_spectra if _centred(spectrum, s, active)]
    clean = spectrum
    for s in centred:
        clean = _cancel(clean, s)
    noise = _noise_power(np.abs(clean) ** 2, active)
    for s in centred:
        noise = _with_side(noise, np.abs(clean) ** 2, np.abs(s) ** 2, active)
    gain = _gain(np.abs(clean) ** 2, noise * np.float32(params.bias), active, params)
    if len(centred) == len(side_spectra):  # all voices in the middle: the same in every channel
        voice = grid.backward(gain * clean, audio.frames)
        return np.repeat(voice[None], audio.channels, axis=0)
    return np.stack([grid.backward(gain * grid.forward(c), audio.frames) for c in audio.samples])


@dataclass(frozen=True, slots=True)
class _Grid:
    """Short-time Fourier transform with a sine window, perfectly reconstructing."""

    size: int
    hop: int

    @classmethod
    def of(cls, rate: int, params: SpectralParams) -> _Grid:
        size = max(64, 1 << round(np.log2(rate * params.window_s)))
        return cls(size, size // params.overlap)

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


def _centred(middle: Spectrum, side: Spectrum, active: NDArray[np.bool_]) -> bool:
    """Whether what is loud while somebody speaks is absent from the side channel.

    The loudest twentieth of the middle's bins in speech is voice in all but the worst mixes.
    """
    power = np.abs(middle[:, active]) ** 2
    threshold = np.quantile(power[:, :: max(1, power.shape[1] // 200)], 0.98)
    loud = power > threshold
    if not loud.any():
        return True
    ratio = np.abs(side[:, active]) ** 2
    return float(np.median(ratio[loud] / power[loud])) < 0.03


def _cancel(middle: Spectrum, side: Spectrum) -> Spectrum:
    """The middle without what the side predicts of it, locally in time and frequency.

    Least squares over about a third of a second and three bins, shrunk by its own uncertainty.
    """
    from scipy.ndimage import uniform_filter

    reach, independent = (3, 29), 14.0

    def mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(uniform_filter(values, reach, mode="nearest"), np.float32)

    cross = middle * side.conj()
    joint = mean(cross.real) + 1j * mean(cross.imag)
    power_side = mean(np.abs(side) ** 2) + _TINY
    power_middle = mean(np.abs(middle) ** 2) + _TINY
    coherence = np.abs(joint) ** 2 / (power_side * power_middle)
    trust = np.clip(1 - 1 / (independent * np.maximum(coherence, 1e-6)), 0, 1)
    return np.asarray(middle - trust * joint / power_side * side, np.complex64)


def _noise_power(power: Power, active: NDArray[np.bool_]) -> Power:
    """(bins, t) of noise power: as observed where nobody speaks, tracked where somebody does."""
    forward = _track(power, active)
    backward = _track(power[:, ::-1], active[::-1])[:, ::-1]
    return np.asarray(np.sqrt(forward * backward), np.float32)


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


def _with_side(noise: Power, middle: Power, side: Power, active: NDArray[np.bool_]) -> Power:
    return noise


def _gain(power: Power, noise: Power, active: NDArray[np.bool_], params: SpectralParams) -> Power:
    """Log-spectral amplitude gain with a decision-directed a-priori SNR; 0 where nobody speaks."""
    floor = np.float32(10 ** (params.floor_db / 20))
    smallest = np.float32(10 ** (params.prior_db / 10))
    memory = np.float32(params.memory)
    columns, noises = np.ascontiguousarray(power.T), np.ascontiguousarray(noise.T)
    gains = np.zeros_like(columns)
    before = np.zeros_like(columns[0])
    for t in range(len(columns)):
        if not active[t]:
            before = np.zeros_like(before)
            continue
        post = np.minimum(columns[t] / noises[t], 1e4)
        prior = np.maximum(memory * before + (1 - memory) * np.maximum(post - 1, 0), smallest)
        gain = _lsa(prior, post)
        before = gain * gain * post
        gains[t] = np.maximum(gain, floor)
    return np.ascontiguousarray(gains.T)


def _lsa(prior: Power, post: Power) -> Power:
    from scipy.special import exp1

    wiener = prior / (1 + prior)
    v = np.clip(wiener * post, 1e-4, 50)
    return np.asarray(np.minimum(wiener * np.exp(0.5 * exp1(v)), 1), np.float32)
