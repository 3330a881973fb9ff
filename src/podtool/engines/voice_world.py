"""Voice conversion by WORLD: pitch and envelope of one speaker moved onto another's statistics.

The part below 8 kHz is analysed, mapped and synthesised at 16 kHz; above it the source's own high
band is kept and follows the change of level just below. Nothing here knows of speaker embeddings.
Sources: see `world_frames` and `world_mapping`; mapping log-F0 by mean and spread follows
D. Chappell, J. Hansen, Eurospeech 1998; leaving silence and the energy contour alone follows the
differential conversion of K. Kobayashi, T. Toda, S. Nakamura, Interspeech 2014.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from podtool.audio import Audio
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.engines.world_frames import (
    BANDS,
    BINS,
    CENTRES,
    FRAME_S,
    FROM_MEL,
    RATE,
    Frames,
    analyse,
    cosines,
    smooth,
    synthesise,
)
from podtool.engines.world_mapping import MappingParams, Step, apply, fit
from podtool.engines.world_profile import (
    LOG10,
    SPEECH_RANGE_DB,
    SpeechProfile,
    build_profile,
    frame_level,
)
from podtool.errors import EngineFailure
from podtool.resample import resample, to_mono

ORDER = 40  # cepstra for all 80 bands
VOICING_FRAMES = 9  # the maps of voiced and unvoiced frames blend over 45 ms
FADE_DB = 10.0  # the mapping fades out this far below the range of speech
SPREAD_LIMITS = (0.7, 1.4)  # how far the range of intonation may be changed
STEADY = 0.03  # change of log F0 in 5 ms: speech hardly goes faster, chance does
EMPTY_DB = -40.0  # a band above 8 kHz this far below 5 to 8 kHz was never recorded
GAIN_LIMIT = 15.0  # dB, of the high band
EDGE = (CENTRES > 6500) & (CENTRES < 7500)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class VoiceMap:
    """All that turns one speaker into another: made once per pair by `World.voice_map`."""

    bands: int  # of the mel grid that both sides have
    voiced: list[Step]
    unvoiced: list[Step]
    source_level: float  # natural log power of the source's loud frames
    log_f0: tuple[float, float, float]  # median of the source, of the target, ratio of the spreads
    strength: float  # of the change of the envelope
    high_band_db: float  # static change of the band above 8 kHz
    warnings: tuple[str, ...] = ()

    def pitch(self, f0: Floats) -> Floats:
        """(n,) Hz -> Hz; unvoiced frames stay 0."""
        source, target, ratio = self.log_f0
        out = np.zeros_like(f0)
        voiced = f0 > 0
        moved = (np.log(f0[voiced]) - source) * ratio + target
        out[voiced] = np.exp(np.clip(moved, np.log(55.0), np.log(600.0)))
        return out

    def change(self, frames: Frames) -> Floats:
        """(n, 80) what is added to the log envelope."""
        envelope = frames.envelope
        dct = cosines(self.bands, cepstral_order(self.bands))
        cepstra = envelope[:, : self.bands] @ dct.T
        weight = smooth((frames.f0 > 0).astype(np.float64)[:, None], VOICING_FRAMES)
        change = weight * (apply(self.voiced, cepstra) - cepstra)
        change += (1 - weight) * (apply(self.unvoiced, cepstra) - cepstra)
        change[:, 0] = 0.0  # the level contour stays the source's
        change *= in_speech(envelope, self.source_level)[:, None]
        bands = self.strength * change @ dct
        if self.bands < BANDS:
            beyond = bands[:, -3:].mean(axis=1, keepdims=True)
            bands = np.hstack([bands, np.repeat(beyond, BANDS - self.bands, axis=1)])
        return np.asarray(bands)


def in_speech(envelope: Floats, level: float) -> Floats:
    """(n,) 1 within the range of speech under the natural log power `level`, fading to 0 below."""
    depth = (frame_level(envelope) - level) * 10 / LOG10 + SPEECH_RANGE_DB
    return np.asarray(np.clip(1 + depth / FADE_DB, 0.0, 1.0))


def cepstral_order(bands: int) -> int:
    """Cepstra kept of a grid cut to its lowest `bands` bands."""
    return min(bands, max(8, round(ORDER * bands / BANDS)))


class World:
    """The embedded conversion engine."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="world",
        stage="conversion",
        version="3",
        licence="MIT",
        tier="embedded",
        sample_rate=0,
        packages=("pyworld",),
        install="pip install pyworld 'setuptools<81'   (needs a C++ compiler)",
    )

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        return cls()

    def enrol(self, clips: Iterable[Audio], workers: int = 1) -> SpeechProfile:
        """Clips of one person, any rate and channels -> the profile of the speech in them."""
        clips = list(clips)
        rate = max((c.sample_rate for c in clips), default=RATE)
        with ThreadPoolExecutor(max(1, workers)) as pool:  # WORLD works outside the interpreter
            analysed = list(pool.map(_speech_of, clips))
        count = sum(a.high_frames for a in analysed)
        ratio = sum(a.high_db * a.high_frames for a in analysed) / count if count else None
        if ratio is not None and ratio < EMPTY_DB:
            ratio = None
        profile = build_profile([a.frames for a in analysed], rate, ratio)
        return self._heard(profile, analysed)

    def _heard(self, profile: SpeechProfile, clips: list[Analysed]) -> SpeechProfile:
        """What an engine that listens adds to a profile."""
        return profile

    def voice_map(
        self, source: SpeechProfile, target: SpeechProfile, params: MappingParams | None = None
    ) -> VoiceMap:
        """Fit the map from one person to another; deterministic, about 2 s per minute of both."""
        params = params or MappingParams()
        limit = min(source.bandwidth_hz, target.bandwidth_hz)
        bands = max(8, int((CENTRES <= limit).sum())) if limit > 0 else BANDS
        dct = cosines(bands, cepstral_order(bands))
        a = source.envelope[:, :bands].astype(np.float64) @ dct.T
        b = target.envelope[:, :bands].astype(np.float64) @ dct.T
        return VoiceMap(
            bands=bands,
            voiced=fit(a, b, source.voiced, target.voiced, params, params.classes),
            unvoiced=fit(a, b, ~source.voiced, ~target.voiced, params, params.classes_unvoiced),
            source_level=source.level,
            log_f0=pitch_map(source, target),
            strength=params.strength,
            high_band_db=high_band_change(source, target),
            warnings=bandwidth_warnings(source, target),
        )

    def convert(self, speech: Audio, voice: VoiceMap) -> Audio:
        """Speech at any rate -> mono of the same rate and exactly the same number of frames.

        Raises EngineFailure where WORLD breaks down.
        """
        return self.convert_and_tell(speech, voice)[0]

    def convert_and_tell(self, speech: Audio, voice: VoiceMap) -> tuple[Audio, float]:
        """The same, and the share of the speech whose timbre the engine left to the source."""
        mono = to_mono(speech)
        if not mono.frames:
            return mono, 0.0
        try:
            frames, heard, high = _frames(mono)
            change, left = self._change(voice, frames, heard)
            low = Audio(_rendered(frames, change, voice)[None, :], RATE)
        except (ValueError, MemoryError, FloatingPointError) as error:
            raise EngineFailure(f"WORLD failed on {mono.duration:.2f} s: {error}") from error
        out = _fitted(resample(low, mono.sample_rate).samples[0], mono.frames)
        if high is not None:
            gain = _high_gain(change, voice.high_band_db, mono)
            out = out + high * gain.astype(np.float32)
        return Audio(out[None, :], mono.sample_rate), left

    def _change(
        self, voice: VoiceMap, frames: Frames, heard: NDArray[np.float32]
    ) -> tuple[Floats, float]:
        """(n, 80) change of the log envelope of what is `heard` at 16 kHz, and the share of the
        speech that it leaves alone."""
        return voice.change(frames), 0.0


@dataclass(frozen=True, slots=True)
class Analysed:
    """A clip as a profile needs it: frames and samples at 16 kHz, and power above 8 kHz over that
    of 5 to 8 kHz with the number of frames that it was measured in."""

    frames: Frames
    samples: NDArray[np.float32]
    high_db: float
    high_frames: int


def _speech_of(clip: Audio) -> Analysed:
    frames, low, high = _frames(to_mono(clip), resynthesis=False)
    ratio = (0.0, 0) if high is None else _high_band_ratio(frames, high, clip.sample_rate)
    return Analysed(frames, low, *ratio)


def _frames(
    mono: Audio, resynthesis: bool = True
) -> tuple[Frames, NDArray[np.float32], NDArray[np.float32] | None]:
    """Frames and samples of the part below 8 kHz, and the rest at the rate of the audio, if any."""
    low = resample(mono, RATE)
    frames = analyse(low.samples[0], resynthesis)
    if mono.sample_rate <= RATE:
        return frames, low.samples[0], None
    back = _fitted(resample(low, mono.sample_rate).samples[0], mono.frames)
    return frames, low.samples[0], mono.samples[0] - back


def frames_of(clip: Audio) -> tuple[NDArray[np.float32], Frames]:
    """(n,) samples at 16 kHz of a clip at any rate, and their frames with aperiodicity."""
    frames, low, _ = _frames(resample(to_mono(clip), RATE))
    return low, frames


def _fitted(samples: NDArray[np.float32], frames: int) -> NDArray[np.float32]:
    if len(samples) < frames:
        samples = np.pad(samples, (0, frames - len(samples)))
    return samples[:frames]


def _rendered(frames: Frames, change: Floats, voice: VoiceMap) -> NDArray[np.float32]:
    """Mapped frames as sound, each frame at the level that it had."""
    spectrum = frames.spectrum * np.exp(change @ FROM_MEL.T)
    lost = np.log(frames.spectrum.sum(axis=1)) - np.log(spectrum.sum(axis=1))
    spectrum *= np.exp(smooth(lost[:, None], 5))
    return synthesise(replace(frames, f0=voice.pitch(frames.f0), spectrum=spectrum))


def _high_gain(change: Floats, static_db: float, mono: Audio) -> Floats:
    """(frames,) gain of the band above 8 kHz: that of 6.5 to 7.5 kHz, smoothed over 35 ms."""
    edge = smooth(change[:, EDGE].mean(axis=1, keepdims=True), 7)[:, 0] * 10 / LOG10
    gain_db = np.clip(edge + static_db, -GAIN_LIMIT, GAIN_LIMIT)
    times = np.arange(mono.frames) / mono.sample_rate
    return np.asarray(10 ** (np.interp(times, np.arange(len(gain_db)) * FRAME_S, gain_db) / 20))


def _high_band_ratio(frames: Frames, high: NDArray[np.float32], rate: int) -> tuple[float, int]:
    """(dB, frames): power above 8 kHz over that of 5 to 8 kHz, in unvoiced loud frames."""
    size = round(FRAME_S * rate)
    count = min(len(frames.f0), len(high) // size)
    power = (high[: count * size].reshape(count, size).astype(np.float64) ** 2).mean(axis=1)
    bins = slice(round(5000 / RATE * 2 * (BINS - 1)), BINS)
    below = frames.spectrum[:count, bins].mean(axis=1) * 3 / 8  # 3 of the 8 kHz
    use = (frames.f0[:count] == 0) & (below > np.percentile(below, 70) if count else False)
    if not use.any():
        return 0.0, 0
    return float(10 * np.log10((power[use].mean() + 1e-14) / (below[use].mean() + 1e-14))), int(
        use.sum()
    )


def high_band_change(source: SpeechProfile, target: SpeechProfile) -> float:
    """dB by which the source's band above 8 kHz is to change, beside what 6.5 to 7.5 kHz does."""
    if source.high_band_db is None or target.high_band_db is None:
        return 0.0
    return float(np.clip(target.high_band_db - source.high_band_db, -10.0, 10.0))


def pitch_map(source: SpeechProfile, target: SpeechProfile) -> tuple[float, float, float]:
    """Medians of log F0 of the source and of the target, and the ratio of their spreads."""
    a, b = steady(source.f0), steady(target.f0)
    if len(a) < 20 or len(b) < 20:
        return 0.0, 0.0, 1.0
    low_a, mid_a, high_a = np.percentile(np.log(a), [16, 50, 84])
    low_b, mid_b, high_b = np.percentile(np.log(b), [16, 50, 84])
    ratio = float(np.clip((high_b - low_b) / max(high_a - low_a, 1e-3), *SPREAD_LIMITS))
    return float(mid_a), float(mid_b), ratio


def steady(f0: NDArray[np.floating]) -> NDArray[np.floating]:
    """Those of (n,) F0 that move by under 3 % to either neighbour; all voiced ones where few do.

    Harvest gives a pitch also to frames beside voiced ones that have none: chance, and jumps of an
    octave, by which the spread of a speaker came out a sixth too wide, and not alike for all.
    """
    voiced = f0 > 0
    log = np.log(np.where(voiced, f0, 1.0))
    near = voiced[1:] & voiced[:-1] & (np.abs(np.diff(log)) < STEADY)
    found = np.zeros(len(f0), bool)
    found[1:-1] = near[1:] & near[:-1]
    return f0[found] if found.sum() >= 100 else f0[voiced]


def bandwidth_warnings(source: SpeechProfile, target: SpeechProfile) -> tuple[str, ...]:
    """What to tell of a voice that was recorded with less of the high frequencies."""
    have = min(target.bandwidth_hz, target.sample_rate / 2)
    wanted = min(source.bandwidth_hz, source.sample_rate / 2)
    if source.sample_rate > RATE and source.high_band_db is not None:
        wanted = source.sample_rate / 2
    if target.sample_rate > RATE and target.high_band_db is not None:
        have = target.sample_rate / 2
    if have >= 0.9 * wanted or not have:
        return ()
    return (
        f"the reference holds nothing above {have / 1000:.1f} kHz and the recording goes to "
        f"{wanted / 1000:.1f} kHz: above, the speaker's own sound is kept and follows in level",
    )
