"""Scenes mixed on the fly: up to three talkers in a room over music, noise and babble.

A scene is a function of (seed, index) alone, so that a resumed training sees what it would have
seen, and workers may share the indices in any way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.fft
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from podtool.errors import ConfigError
from podtool.training import degrade, synthetic
from podtool.training.corpus import RATE, Clip, Corpus
from podtool.training.rooms import Rooms

Samples = NDArray[np.float32]
Stretch = tuple[int, int]  # frames, end exclusive
Range = tuple[float, float]
Maker = Callable[[np.random.Generator, int], Samples]

_FADE = RATE // 100
_SPEED_STEPS = 40  # simple ratios, which a resampler does in a third of the time


@dataclass(frozen=True, slots=True)
class MixingParams:
    """The recipe's [mixing] table; a share is the chance that a scene (or talker) has it."""

    seconds: float = 4.0
    talkers: int = 3  # rows of Scene.talkers
    counts: tuple[float, ...] = (0.2, 0.5, 0.3)  # weights of 1, 2, 3 talkers in a scene
    silence_share: float = 0.03  # nobody speaks
    sparse_share: float = 0.5  # turns, pauses and backchannels instead of full overlap
    noise_share: float = 0.45
    music_share: float = 0.35
    babble_share: float = 0.12
    snr_db: Range = (-5.0, 20.0)  # of the speech over the noise, and over the music
    babble_snr_db: Range = (5.0, 25.0)
    synthetic_noise_share: float = 0.4  # of noises: made, not recorded
    synthetic_music_share: float = 0.4
    blend_share: float = 0.25  # of noises and of music: two at once
    bed_speed: Range = (0.8, 1.25)  # of recorded noise and music
    bed_speed_share: float = 0.5
    bed_eq_share: float = 0.4
    reverse_share: float = 0.1  # of recorded noise and music: backwards
    self_noise_share: float = 0.4
    self_noise_db: Range = (-65.0, -30.0)  # against the speech
    entry_share: float = 0.25  # a music or noise that fades in or out within the scene
    level_db: Range = (-40.0, -12.0)  # RMS of the mixture, dBFS
    level_difference_db: float = 5.0  # between talkers, at most
    speed: Range = (0.9, 1.1)
    speed_share: float = 0.5  # of talkers
    reverb_share: float = 0.5
    apart_share: float = 0.25  # of the scenes with reverberation: a room for each talker
    eq_share: float = 0.3  # of talkers, each with an equaliser of its own
    eq_db: float = 8.0
    telephone_share: float = 0.05  # the whole scene, band-limited
    clip_share: float = 0.05
    quantise_share: float = 0.03
    codec_share: float = 0.03  # Vorbis, MP3, Opus: some 20 ms each


@dataclass(frozen=True, slots=True)
class Scene:
    """What a network hears and what it shall give; 16 kHz.

    mixture (n,), talkers (params.talkers, n), background (n,). The mixture is the sum of the others
    except where it was clipped, quantised or encoded. Present talkers come first; absent ones, and
    stretches in which one is silent, are exactly zero. `count` is how many speak.
    """

    mixture: Samples
    talkers: Samples
    background: Samples
    count: int


class Mixer:
    """Scenes from a corpus.

    Raises ConfigError: a scene too short, counts that do not fit the talkers or the speakers.
    """

    def __init__(
        self, corpus: Corpus, params: MixingParams, seed: int, rooms: Rooms | None
    ) -> None:
        counts = np.asarray(params.counts, np.float64)
        if params.seconds < 0.5:
            raise ConfigError(f"mixing.seconds = {params.seconds}: at least 0.5")
        if not 1 <= len(counts) <= params.talkers or counts.min() < 0 or counts.sum() <= 0:
            raise ConfigError(
                f"mixing.counts = {params.counts} does not fit mixing.talkers = {params.talkers}",
                "It holds the weights of scenes with 1, 2, ... talkers.",
            )
        most = int(np.flatnonzero(counts)[-1]) + 1
        if len(corpus.speakers) < most:
            raise ConfigError(
                f"scenes of {most} talkers need as many speakers, the data has "
                f"{len(corpus.speakers)}",
                "Give more data or set mixing.counts.",
            )
        self._params = params
        self._seed = seed
        self._corpus = corpus
        self._rooms = rooms
        self._frames = round(params.seconds * RATE)
        self._counts = np.cumsum(counts) / counts.sum()
        self._names = sorted(corpus.speakers)
        # Between one vote for each voice and one for each second.
        weights = np.sqrt([sum(c.frames for c in corpus.speakers[n]) for n in self._names])
        self._voices = np.cumsum(weights) / weights.sum()
        length = max(1 << 20, 2 * self._frames)
        self._hiss = np.random.default_rng(seed).standard_normal(length, np.float32)

    def scene(self, index: int) -> Scene:
        """The scene of that number, the same whatever was asked for before."""
        rng = np.random.default_rng([self._seed, index])
        p, n = self._params, self._frames
        silent = rng.random() < p.silence_share
        count = 0 if silent else 1 + int(np.searchsorted(self._counts, rng.random()))
        talkers = np.zeros((p.talkers, n), np.float32)
        names = self._pick_speakers(rng, count)
        plan = _plan(rng, count, n, rng.random() < p.sparse_share)
        scene_filter = degrade.telephone(rng) if rng.random() < p.telephone_share else None
        filters = self._filters(rng, count, scene_filter)
        active = np.zeros(n, bool)
        for row, (name, stretches) in enumerate(zip(names, plan, strict=True)):
            self._talk(rng, talkers[row], name, stretches, filters[row])
            for start, stop in stretches:
                active[start:stop] = True
        speech = talkers[:count].sum(axis=0)
        # Speech stands at a level of about 1 until the whole scene is set to its own.
        level = _rms(speech[active]) if count else 1.0
        background = self._background(rng, level, names, filters[-1], scene_filter)
        mixture = speech + background
        gain = self._gain(rng, mixture, count)
        talkers *= gain
        background *= gain
        mixture = self._degraded(rng, mixture * gain)
        return Scene(mixture, talkers, background, count)

    def _pick_speakers(
        self, rng: np.random.Generator, count: int, but: Sequence[str] = ()
    ) -> list[str]:
        names: list[str] = []
        count = min(count, len(self._names) - len(but))
        while len(names) < count:
            name = self._names[int(np.searchsorted(self._voices, rng.random()))]
            if name not in names and name not in but:
                names.append(name)
        return names

    def _filters(
        self, rng: np.random.Generator, count: int, scene: Samples | None
    ) -> list[Samples | None]:
        """One for each talker, and one of the room for a noise."""
        p = self._params
        rooms: list[Samples | None] = [None] * (count + 1)
        if self._rooms is not None and rng.random() < p.reverb_share:
            shared = rng.random() >= p.apart_share
            rooms = list(self._rooms.pick(rng, count + 1, shared))
        for row in range(count):
            if rng.random() < p.eq_share:
                rooms[row] = _chain(rooms[row], degrade.equaliser(rng, p.eq_db))
            rooms[row] = _chain(rooms[row], scene)
        rooms[count] = _chain(rooms[count], scene)
        return rooms

    def _talk(
        self,
        rng: np.random.Generator,
        row: Samples,
        name: str,
        stretches: list[Stretch],
        filter: Samples | None,
    ) -> None:
        """Write into `row` what one talker says, at a level of about 1."""
        p = self._params
        speed = float(rng.uniform(*p.speed)) if rng.random() < p.speed_share else 1.0
        speed = round(speed * _SPEED_STEPS) / _SPEED_STEPS
        clips = self._corpus.speakers[name]
        for start, stop in stretches:
            said = _speech(rng, clips, stop - start, speed)
            _fade(said)
            row[start:stop] = said
        frames = sum(stop - start for start, stop in stretches)
        if filter is not None:
            first = min(start for start, _ in stretches)
            last = max(stop for _, stop in stretches) + len(filter) - 1
            row[first:last] = _convolve(row[first:last], filter)
            _hush(row, stretches, len(filter) - 1)
        gain_db = rng.uniform(-0.5, 0.5) * p.level_difference_db
        power = float(np.dot(row, row)) / max(1, frames)
        row *= np.float32(10 ** (gain_db / 20) / max(np.sqrt(power), 1e-9))

    def _background(
        self,
        rng: np.random.Generator,
        level: float,
        names: list[str],
        room: Samples | None,
        scene: Samples | None,
    ) -> Samples:
        """Noise, music, babble and hiss, each at its ratio to the speech."""
        p, n = self._params, self._frames
        out = np.zeros(n, np.float32)

        def add(part: Samples, snr_db: Range) -> None:
            share = level * 10 ** (-rng.uniform(*snr_db) / 20)
            part *= np.float32(share / max(_rms(part), 1e-9))
            if rng.random() < p.entry_share:
                _enter(rng, part)
            np.add(out, part, out=out)

        for clips, chance, made, make in (
            (self._corpus.noise, p.noise_share, p.synthetic_noise_share, synthetic.noise),
            (self._corpus.music, p.music_share, p.synthetic_music_share, synthetic.music),
        ):
            if rng.random() < chance and (clips or made > 0):
                add(self._bed(rng, clips, made, make), p.snr_db)
        if rng.random() < p.babble_share:
            others = self._pick_speakers(rng, int(rng.integers(4, 9)), names)
            if others:
                add(self._babble(rng, others), p.babble_snr_db)
        if out.any():
            # A noise in the room of the talkers, or the whole through the telephone.
            filter = room if rng.random() < 0.3 else scene
            if filter is not None:
                before = _rms(out)
                out = _convolve(out, filter)
                out *= np.float32(before / max(_rms(out), 1e-9))  # the ratios hold
        if rng.random() < p.self_noise_share:
            start = int(rng.integers(len(self._hiss) - n))
            share = np.float32(level * 10 ** (rng.uniform(*p.self_noise_db) / 20))
            out += self._hiss[start : start + n] * share
        return out

    def _bed(
        self, rng: np.random.Generator, clips: Sequence[Clip], made: float, make: Maker
    ) -> Samples:
        """A noise or music, recorded or (by the chance `made`) synthetic, or two in one."""

        def draw() -> Samples:
            if not clips or rng.random() < made:
                return make(rng, self._frames)
            return self._recorded(rng, clips)

        out = draw()
        if rng.random() < self._params.blend_share:
            other = draw()
            share = 10 ** (rng.uniform(-15, 0) / 20) * _rms(out) / max(_rms(other), 1e-9)
            out += other * np.float32(share)
        return out

    def _recorded(self, rng: np.random.Generator, clips: Sequence[Clip]) -> Samples:
        """A piece of one clip at a pitch, colour and direction of its own."""
        p, n = self._params, self._frames
        speed = float(rng.uniform(*p.bed_speed)) if rng.random() < p.bed_speed_share else 1.0
        speed = round(speed * _SPEED_STEPS) / _SPEED_STEPS
        out = _at_speed(_bed(rng, clips, int(n * speed) + 1), speed, n)
        backwards, coloured, turned = rng.random(3) < (p.reverse_share, p.bed_eq_share, 0.5)
        if backwards:
            out = np.ascontiguousarray(out[::-1])
        if coloured:
            out = _convolve(out, degrade.equaliser(rng, p.eq_db))
        return -out if turned else out

    def _babble(self, rng: np.random.Generator, names: list[str]) -> Samples:
        out = np.zeros(self._frames, np.float32)
        for name in names:
            said = _speech(rng, self._corpus.speakers[name], self._frames, 1.0)
            out += said * np.float32(rng.uniform(0.4, 1.0))
        return out

    def _gain(self, rng: np.random.Generator, mixture: Samples, count: int) -> np.float32:
        """To the level of the scene, below full scale; without talkers down to 20 dB quieter."""
        level_db = rng.uniform(*self._params.level_db)
        if not count:
            level_db -= rng.uniform(0, 20)
        gain = 10 ** (level_db / 20) / max(_rms(mixture), 1e-9)
        peak = float(np.abs(mixture).max(initial=0.0))
        return np.float32(min(gain, 0.98 / max(peak, 1e-9)) if peak > 0 else 0.0)

    def _degraded(self, rng: np.random.Generator, mixture: Samples) -> Samples:
        p = self._params
        clipped, coarse, encoded = rng.random(3) < (p.clip_share, p.quantise_share, p.codec_share)
        if clipped:
            mixture = degrade.clip(rng, mixture)
        if coarse:
            mixture = degrade.quantise(rng, mixture)
        if encoded:
            mixture = degrade.codec(rng, mixture)
        return mixture


def _plan(rng: np.random.Generator, count: int, n: int, sparse: bool) -> list[list[Stretch]]:
    """When each talker speaks: from (almost) start to end, or in turns as in conversation."""
    if count == 0:
        return []
    if not sparse:
        late = rng.random(count) < 0.3
        starts = np.where(late, rng.integers(0, max(1, n // 4), count), 0)
        starts[int(rng.integers(count))] = 0
        return [[(int(start), n)] for start in starts]
    plan: list[list[Stretch]] = [[] for _ in range(count)]
    at, who = int(-rng.uniform(-0.5, 1.5) * RATE), int(rng.integers(count))
    while at < n:
        stop = at + int(rng.uniform(0.6, 2.8) * RATE)
        _say(plan[who], at, min(stop, n))
        if count > 1 and rng.random() < 0.25:
            _backchannel(rng, plan, who, at, min(stop, n))
        # Half of the turns come early (overlap), half after a pause.
        gap = -rng.uniform(0.1, 1.2) if rng.random() < 0.5 else rng.uniform(0.0, 0.8)
        at = max(at + RATE // 4, stop + int(gap * RATE))
        who = (who + int(rng.integers(1, count))) % count if count > 1 else 0
    for stretches in plan:
        if not stretches:
            start = int(rng.integers(0, max(1, n - RATE // 2)))
            stretches.append((start, min(n, start + int(rng.uniform(0.4, 1.5) * RATE))))
    return plan


def _say(stretches: list[Stretch], start: int, stop: int) -> None:
    """Add a stretch behind the others, if enough of it is left to be heard."""
    start = max(start, 0, max((end for _, end in stretches), default=0))
    if stop - start >= RATE // 5:
        stretches.append((start, stop))


def _backchannel(
    rng: np.random.Generator, plan: list[list[Stretch]], who: int, start: int, stop: int
) -> None:
    other = (who + int(rng.integers(1, len(plan)))) % len(plan)
    length = int(rng.uniform(0.25, 0.6) * RATE)
    if stop - max(start, 0) > length + RATE // 5:
        begin = int(rng.integers(max(start, 0), stop - length))
        _say(plan[other], begin, begin + length)


def _speech(rng: np.random.Generator, clips: Sequence[Clip], frames: int, speed: float) -> Samples:
    """(frames,) of one voice at a level of about 1: utterances after each other."""
    wanted = int(frames * speed) + 1
    out = np.zeros(wanted, np.float32)
    at = 0
    while at < wanted:
        clip = clips[int(rng.integers(len(clips)))]
        # From the start of the utterance, or (first piece only) from anywhere in it.
        spare = clip.frames - min(wanted, clip.frames // 2)
        begin = int(rng.integers(spare + 1)) if at == 0 and rng.random() < 0.6 else 0
        piece = clip.samples[0, begin : begin + wanted - at]
        np.multiply(piece, np.float32(1 / max(clip.rms, 1.0)), out=out[at : at + len(piece)])
        at += len(piece)
        if at < wanted:
            _fade(out[at - len(piece) : at])
            at += int(rng.uniform(0.05, 0.4) * RATE)
    return _at_speed(out, speed, frames)


def _at_speed(samples: Samples, speed: float, frames: int) -> Samples:
    """(frames,) of what is played faster, and higher, by `speed`."""
    if speed != 1.0:
        import soxr

        samples = np.asarray(soxr.resample(samples, RATE * speed, RATE, quality="HQ"), np.float32)
        samples = np.pad(samples[:frames], (0, max(0, frames - len(samples))))
    return samples[:frames]


def _bed(rng: np.random.Generator, clips: Sequence[Clip], frames: int) -> Samples:
    """(frames,) of a music or noise from a random place, repeated with a crossfade if short."""
    clip = clips[int(rng.integers(len(clips)))]
    channel = int(rng.integers(-3, len(clip.samples))) if len(clip.samples) > 1 else 0
    out = np.zeros(frames, np.float32)
    at, begin = 0, int(rng.integers(max(1, clip.frames - frames // 2)))
    cross = min(RATE // 10, clip.frames // 4)
    while at < frames:
        part = clip.samples[:, begin : begin + frames - at]
        piece = part.astype(np.float32) if channel >= 0 else part.mean(0, np.float32)[None]
        chosen = piece[max(channel, 0)]
        if at and len(chosen) > cross:
            ramp = np.linspace(0, 1, cross, dtype=np.float32)
            chosen[:cross] *= ramp
            out[at : at + cross] *= 1 - ramp
        out[at : at + len(chosen)] += chosen
        if at + len(chosen) >= frames:
            break
        at, begin = at + max(1, len(chosen) - cross), 0
    return out


def _enter(rng: np.random.Generator, part: Samples) -> None:
    """Fade in from, or out to, silence at a random place."""
    n = len(part)
    length = int(min(rng.uniform(0.02, 1.5) * RATE, n // 2))
    at = int(rng.integers(0, n - length))
    ramp = np.linspace(0, 1, length, dtype=np.float32)
    if rng.random() < 0.5:
        part[:at] = 0
        part[at : at + length] *= ramp
    else:
        part[at : at + length] *= ramp[::-1]
        part[at + length :] = 0


def _fade(samples: Samples) -> None:
    length = min(_FADE, len(samples) // 2)
    ramp = np.linspace(0, 1, length, dtype=np.float32)
    samples[:length] *= ramp
    samples[len(samples) - length :] *= ramp[::-1]


def _chain(first: Samples | None, second: Samples | None) -> Samples | None:
    """Two filters as one."""
    if first is None or second is None:
        return second if first is None else first
    size = len(first) + len(second) - 1
    fast = scipy.fft.next_fast_len(size, real=True)
    product = scipy.fft.rfft(first, fast) * scipy.fft.rfft(second, fast)
    return np.asarray(scipy.fft.irfft(product, fast)[:size], np.float32)


def _convolve(samples: Samples, filter: Samples) -> Samples:
    """Causal, cut to the length of the samples; by overlap and save."""
    n, taps = len(samples), len(filter)
    size = 2048 if taps <= 600 else 16384 if taps <= 12000 else 1 << (2 * taps).bit_length()
    hop = size - taps + 1
    blocks = -(-n // hop)
    padded = np.zeros((blocks - 1) * hop + size, np.float32)
    padded[taps - 1 : taps - 1 + n] = samples
    spectra = scipy.fft.rfft(sliding_window_view(padded, size)[::hop], axis=1)
    spectra *= scipy.fft.rfft(filter, size)
    out = scipy.fft.irfft(spectra, size, axis=1, overwrite_x=True)
    return np.asarray(out[:, taps - 1 :].reshape(-1)[:n], np.float32)


def _hush(row: Samples, stretches: list[Stretch], tail: int) -> None:
    """Exact zeros where neither speech nor its reverberation is."""
    heard = sorted(stretches)
    row[: heard[0][0]] = 0
    for (_, stop), (start, _) in pairwise(heard):
        row[stop + tail : max(start, stop + tail)] = 0
    row[heard[-1][1] + tail :] = 0


def _rms(samples: Samples) -> float:
    return float(np.sqrt(np.dot(samples, samples) / max(1, len(samples))))
