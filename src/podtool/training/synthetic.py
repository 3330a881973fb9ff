"""Backgrounds out of nothing: noises and music beds, no two alike, at 16 kHz.

Few recordings may be trained on freely, and a network learns those by heart; these are for it to
meet something else every time. Each is a function of the generator's state alone and costs some
3 ms for 4 s: noise is shaped in the spectrogram (random magnitudes, kept random phases), pads are
periodic wide-band partials by one inverse FFT for each chord (P. Nasca's PADsynth), and notes are
played from a bank of 256 sampled instruments, themselves synthetic, as a sampler would.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from podtool.training.corpus import RATE

Samples = NDArray[np.float32]
Curve = NDArray[np.float64]

_STEP = RATE // 100  # of control curves
_POOL = 1 << 20
_CYCLE = 2048
_INSTRUMENTS = 256
_LOOP = 1 << 15  # of a pad
_NOTE = int(1.5 * RATE)  # of a sampled instrument
_TOP_HZ = 7600.0
_CREST = 20.0
_SCALES = (
    (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 3, 5, 7, 9, 10), (0, 2, 4, 5, 7, 9, 10),
    (0, 2, 3, 5, 7, 8, 11), (0, 2, 4, 7, 9), (0, 3, 5, 7, 10), (0, 1, 4, 5, 7, 8, 10),
)  # fmt: skip


def noise(rng: np.random.Generator, frames: int) -> Samples:
    """(frames,) float32, RMS 1: one to three of wind, rain, hum, engines, steps, birds, alarms."""
    others = (_hum, _impacts, _chirps, _alarm, _texture)
    weights = (0.25, 0.35, 0.13, 0.07, 0.2)
    ground = rng.random() < 0.75  # otherwise there is but a faint one, as in any recording
    out = _texture(rng, frames) * np.float32(1 if ground else 10 ** (-rng.uniform(15, 40) / 20))
    more = int(rng.integers(0 if ground else 1, 3))
    for kind in rng.choice(len(others), more, p=weights):
        out += others[kind](rng, frames) * np.float32(10 ** (rng.uniform(-18, 6) / 20))
    out -= out.mean()
    # A lone click would otherwise push a whole scene, which has to stay below full scale, down.
    return _level(np.clip(_level(out), -_CREST, _CREST))


def music(rng: np.random.Generator, frames: int) -> Samples:
    """(frames,) float32, RMS 1: pads, arpeggios, chords, bass, melody and drums, in any company."""
    beat = 60 / rng.uniform(60, 160)
    song = _Song(rng, frames, beat)
    layers = rng.random(6) < (0.6, 0.45, 0.3, 0.5, 0.4, 0.4)
    if not layers[:5].any():
        layers[int(rng.integers(5))] = True
    out = np.zeros(frames, np.float32)
    parts = (_pads, _arpeggio, _chords, _bass, _melody, _drums)
    for part, played in zip(parts, layers, strict=True):
        if played:
            out += _level(part(rng, song)) * np.float32(10 ** (rng.uniform(-14, 0) / 20))
    if not out.any():  # a rest as long as the scene
        out = _pads(rng, song)
    if rng.random() < 0.35:
        out = _reverberated(rng, out)
    if rng.random() < 0.4:
        out = _compressed(rng, out)
    return _level(out)


# Noise


def _texture(rng: np.random.Generator, frames: int) -> Samples:
    """Noise whose spectrum changes: one to nine colours, each with an envelope of its own."""
    size = int(rng.choice((256, 512, 1024)))
    hop = size // 2
    blocks = frames // hop + 2
    gain = np.zeros((blocks, hop + 1), np.float32)
    crowd = rng.random() < 0.15  # or many drops, or a stream
    for number in range(int(rng.integers(5, 10) if crowd else rng.integers(1, 4))):
        envelope = _envelope(rng, blocks, hop / RATE)
        colour = _colour(rng, hop + 1) * 10 ** (-rng.uniform(0, 12) * min(number, 2) / 20)
        gain += np.outer(envelope.astype(np.float32), colour.astype(np.float32))
    gain[:, 0] = 0
    spectra = _random_spectra(rng, blocks * (hop + 1)).reshape(blocks, hop + 1) * gain
    pieces = scipy.fft.irfft(spectra, axis=1, overwrite_x=True)
    pieces *= np.sin(np.pi * (np.arange(size, dtype=np.float32) + 0.5) / size)  # powers sum to 1
    out = pieces[1:, :hop] + pieces[:-1, hop:]
    samples = np.asarray(out.reshape(-1)[:frames], np.float32)
    if rng.random() < 0.15:  # the beat of blades and cylinders
        cycle = _cycle(rng, int(rng.integers(1, 8)), 1.0)
        beat = _played(cycle, _wandering(rng, frames, 10 ** rng.uniform(0.7, 2.0)))
        samples *= 1 + np.float32(rng.uniform(0.2, 0.9)) * beat
    return _level(samples)


def _hum(rng: np.random.Generator, frames: int) -> Samples:
    """Mains, or a motor of wandering pitch."""
    mains = rng.random() < 0.4
    hz = float(rng.choice((50, 60, 100, 120))) if mains else 10 ** rng.uniform(1.3, 2.9)
    partials = min(int(rng.integers(2, 60)), int(_TOP_HZ / (1.5 * hz)))
    curve = np.full(frames, hz) if mains else _wandering(rng, frames, hz)
    tone = _played(_cycle(rng, partials, rng.uniform(0.2, 2.0)), curve)
    return _level(tone * _ramped(_envelope(rng, frames // _STEP + 2, 0.01), frames))


def _impacts(rng: np.random.Generator, frames: int) -> Samples:
    """Steps, keys, cutlery, a clock, drops: decaying resonances at random or regular times."""
    out = np.zeros(frames, np.float32)
    for _ in range(int(rng.integers(1, 4))):
        length = int(RATE * 10 ** rng.uniform(-2, -0.5))
        hit = _struck(rng, length)
        rate = 10 ** rng.uniform(-0.2, 1.4 if rng.random() < 0.7 else 3.2)  # in a second
        seconds = frames / RATE
        if rate < 12 and rng.random() < 0.5:
            at = np.arange(rng.uniform(-1, 1), seconds * rate) / rate
            at = at + rng.normal(0, rng.uniform(0, 0.15) / rate, len(at))
        else:
            at = rng.uniform(-0.2, seconds, 1 + rng.poisson(rate * seconds))
        gains = 10 ** (rng.normal(0, rng.uniform(1, 8), len(at)) / 20)
        starts = np.round(at * RATE).astype(np.int64)
        if len(at) < 60:
            for start, gain in zip(starts, gains, strict=True):
                _add(out, hit * np.float32(gain), int(start))
        else:
            inside = (starts >= 0) & (starts < frames)
            train = np.bincount(starts[inside], gains[inside], frames).astype(np.float32)
            out += _convolved(train, hit[: RATE // 20])
    return _level(out)


def _chirps(rng: np.random.Generator, frames: int) -> Samples:
    """Birds, insects, squeaks: syllables that glide, alone or in phrases."""
    out = np.zeros(frames, np.float32)
    for _ in range(int(rng.integers(1, 4))):
        length = int(rng.uniform(0.02, 0.3) * RATE)
        pitch = rng.uniform(1200, 6500) * 2 ** (rng.normal(0, 0.25, int(rng.integers(2, 6))))
        hz = np.interp(np.linspace(0, 1, length), np.linspace(0, 1, len(pitch)), pitch)
        if rng.random() < 0.3:
            hz += rng.uniform(50, 500) * np.sin(
                2 * np.pi * rng.uniform(15, 60) / RATE * np.arange(length)
            )
        phase = 2 * np.pi * np.cumsum(np.clip(hz, 300, _TOP_HZ)) / RATE
        window = np.sin(np.pi * np.arange(length) / length) ** rng.uniform(0.5, 3)
        syllable = np.asarray(np.sin(phase) * window, np.float32)
        at = rng.uniform(-0.3, 0.5) * RATE
        while at < frames:
            gap = length * rng.uniform(1.05, 2.5)
            gain = np.float32(rng.uniform(0.3, 1))
            for repeat in range(int(rng.integers(1, 12))):
                _add(out, syllable * gain, int(at + repeat * gap))
            at += gap * 6 + rng.exponential(1.0) * RATE
    return _level(out)


def _alarm(rng: np.random.Generator, frames: int) -> Samples:
    """Sirens, horns, telephones: a tone between two pitches, on and off."""
    count = frames // _STEP + 2
    t = np.arange(count) / 100 + rng.uniform(0, 10)
    low = 10 ** rng.uniform(2.3, 3.3)
    swing = np.sin(2 * np.pi * 10 ** rng.uniform(-0.7, 1.2) * t)
    swing = np.tanh(swing * 10 ** rng.uniform(-1, 1.5))  # from a wail to two tones
    hz = low * 2 ** (rng.uniform(0, 1) * (swing + 1) / 2)
    gate = np.sin(2 * np.pi * 10 ** rng.uniform(-0.3, 0.9) * t) > rng.uniform(-1.5, 0.5)
    partials = min(int(rng.integers(1, 12)), int(_TOP_HZ / (2 * low)))
    tone = _played(_cycle(rng, partials, rng.uniform(0.5, 2)), np.repeat(hz, _STEP)[:frames])
    return _level(tone * _ramped(gate.astype(np.float64), frames))


def _colour(rng: np.random.Generator, bins: int) -> Curve:
    """Magnitudes (bins,): a slope, hills, resonances, and limits of the band."""
    octaves = np.log2(np.maximum(np.linspace(0, RATE / 2, bins), 30.0) / 30.0)  # 0 to 8
    gain_db = -3.0 * rng.uniform(-1, 2) * octaves
    hills = rng.normal(0, rng.uniform(0, 8), int(rng.integers(5, 18)))
    gain_db += np.interp(octaves, np.linspace(0, 8.1, len(hills)), hills)
    for _ in range(int(rng.integers(0, 5))):
        width = 10 ** rng.uniform(-1.7, -0.3)
        at = rng.uniform(1, 8)
        gain_db += rng.uniform(3, 25) * np.exp(-(((octaves - at) / width) ** 2))
    if rng.random() < 0.4:
        gain_db -= rng.uniform(6, 36) * np.maximum(octaves - rng.uniform(3, 7.9), 0)
    if rng.random() < 0.4:
        gain_db -= rng.uniform(6, 36) * np.maximum(rng.uniform(0.5, 6) - octaves, 0)
    return np.asarray(10 ** (np.maximum(gain_db - gain_db.max(), -80) / 20))


def _envelope(rng: np.random.Generator, count: int, step_s: float) -> Curve:
    """Gains (count,), one each `step_s`: steady, wandering, swelling, or in bursts."""
    t = np.arange(count) * step_s
    kind = rng.random()
    if kind < 0.25:
        return np.ones(count)
    if kind < 0.6:
        points = 3 + int(t[-1] * 10 ** rng.uniform(-0.5, 1.2))
        gain_db = rng.normal(0, rng.uniform(1, 9), points)
        return np.asarray(10 ** (np.interp(t, np.linspace(0, t[-1], points), gain_db) / 20))
    floor = 10 ** (-rng.uniform(3, 40) / 20)
    if kind < 0.8:
        turn = 2 * np.pi * 10 ** rng.uniform(-1, 1.2) * t + rng.uniform(0, 2 * np.pi)
        return np.asarray(floor + (0.5 + 0.5 * np.sin(turn)) ** (2 ** rng.uniform(-1, 3)))
    gains = np.full(count, floor)
    tau, rise = 10 ** rng.uniform(-1.5, 0.3), 10 ** rng.uniform(-2.5, 0)
    for onset in rng.uniform(-0.5, t[-1], int(rng.integers(1, 14))):
        since = np.maximum(t - onset, 0)
        gains += rng.uniform(0.2, 1) * np.exp(-since / tau) * (1 - np.exp(-since / rise))
    return gains


def _struck(rng: np.random.Generator, length: int) -> Samples:
    """(length,) of something hit: modes that decay, and the noise of the blow."""
    modes = int(rng.integers(1, 9))
    hz = 10 ** rng.uniform(rng.uniform(1.9, 3.3), 3.85, modes)
    t = np.arange(length, dtype=np.float32) / RATE
    turns = np.outer((2 * np.pi * hz).astype(np.float32), t)
    decay = np.outer((-rng.uniform(4, 25, modes) * RATE / length).astype(np.float32), t)
    hit = rng.uniform(0.1, 1, modes).astype(np.float32) @ (np.sin(turns) * np.exp(decay))
    blow = _white(rng, length) * np.exp(-t * np.float32(10 ** rng.uniform(1.7, 3.2)))
    hit += blow * np.float32(rng.uniform(0, 1.5))
    return np.asarray(hit / max(np.abs(hit).max(), 1e-6), np.float32)


# Music


class _Song:
    """Key, tuning and harmony: what the parts share. Times in samples."""

    def __init__(self, rng: np.random.Generator, frames: int, beat_s: float) -> None:
        self.frames = frames
        self.beat = beat_s * RATE
        self.start = -rng.uniform(0, 4) * self.beat  # the scene opens anywhere in a bar
        self.swing = rng.uniform(0, 0.2) if rng.random() < 0.3 else 0.0
        self._scale = _SCALES[int(rng.integers(len(_SCALES)))]
        self._tonic_hz = 55 * 2 ** rng.uniform(-0.5, 0.5)
        beats = int(rng.choice((2, 4, 4, 8)))
        self.change = beats * self.beat
        count = int((frames - self.start) / self.change) + 1
        size = int(rng.integers(2, 6))
        step = 1 if rng.random() < 0.1 else 2  # clusters, else thirds
        self.chords = [
            int(root) + step * np.arange(size) for root in rng.integers(0, len(self._scale), count)
        ]

    def hz(self, degree: int, octave: int) -> float:
        octaves, within = divmod(degree, len(self._scale))
        return float(self._tonic_hz * 2 ** (octave + octaves + self._scale[within] / 12))

    def spans(self) -> list[tuple[int, int]]:
        """From where to where each chord sounds."""
        edges = self.start + self.change * np.arange(len(self.chords) + 1)
        return [(int(a), int(b)) for a, b in zip(edges, edges[1:], strict=False)]

    def beats(self, per_beat: float) -> list[tuple[int, int]]:
        """(time, number of the chord) of a grid over the whole."""
        step = self.beat / per_beat
        count = int((self.frames - self.start) / step) + 1
        late = self.swing * step
        at = [int(self.start + k * step + late * (k % 2)) for k in range(count)]
        last = len(self.chords) - 1
        return [(t, min(int((t - self.start) / self.change), last)) for t in at if t > -RATE // 2]


def _pads(rng: np.random.Generator, song: _Song) -> Samples:
    """Held chords: strings, choirs, organs, synthesizers."""
    octave = int(rng.integers(1, 4))
    slope, width = rng.uniform(0.5, 2.5), 10 ** rng.uniform(-3.3, -1.7)
    odd = rng.uniform(0, 1)  # the even partials' share
    formant = _colour(rng, 257) ** rng.uniform(0, 0.7)
    attack = int(10 ** rng.uniform(-2, 0) * RATE)
    drone = rng.random() < 0.15
    tremolo = _envelope(rng, song.frames // _STEP + 2, 0.01) if rng.random() < 0.3 else None
    out = np.zeros(song.frames, np.float32)
    for chord, (start, stop) in zip(song.chords, song.spans(), strict=True):
        if stop <= 0 and not drone:
            continue
        degrees = song.chords[0] if drone else chord
        f0 = np.array([song.hz(int(d), octave) for d in degrees])
        f0 *= 2.0 ** rng.choice((-1, 0, 0, 0, 1), len(f0)) * np.exp(rng.normal(0, 0.001, len(f0)))
        harmonic = np.arange(1, 40)
        hz = np.outer(f0, harmonic)
        level = np.where(harmonic % 2, 1, odd) * harmonic**-slope * np.ones_like(hz)
        level = level[hz < _TOP_HZ]
        hz = hz[hz < _TOP_HZ]
        level = level * formant[(hz / RATE * 2 * (len(formant) - 1)).astype(int)]
        spread = rng.normal(0, 1, (len(hz), 7)) * width * hz[:, None] + hz[:, None]
        bins = np.clip(np.round(spread * _LOOP / RATE), 1, _LOOP // 2 - 1).astype(np.int64)
        phase = np.exp(2j * np.pi * rng.random(bins.shape)) * level[:, None]
        spectrum = np.zeros(_LOOP // 2 + 1, np.complex64)
        np.add.at(spectrum, bins, phase.astype(np.complex64))
        loop = scipy.fft.irfft(spectrum, overwrite_x=True)
        if drone:
            out += np.resize(loop, song.frames)
            break
        edge = min(attack, (stop - start) // 2)
        held = np.resize(loop, stop - start + edge)  # over into the next chord
        ramp = np.linspace(0, 1, edge, dtype=np.float32)
        held[:edge] *= ramp
        held[len(held) - edge :] *= ramp[::-1]
        _add(out, held, start)
    return out if tremolo is None else out * _ramped(tremolo, song.frames)


def _arpeggio(rng: np.random.Generator, song: _Song) -> Samples:
    """Broken chords, up, down or at random, over one or two octaves."""
    octave, per_beat = int(rng.integers(2, 5)), float(rng.choice((1, 2, 2, 3, 4)))
    order = rng.permutation(6)
    if rng.random() < 0.6:
        order = np.sort(order)[:: int(rng.choice((1, -1)))]
    length = int(rng.uniform(0.15, 0.7) * RATE)
    voice, rest = _Voice(rng, song, octave + 2), rng.uniform(0, 0.4)
    out = np.zeros(song.frames, np.float32)
    for step, (at, number) in enumerate(song.beats(per_beat)):
        chord = song.chords[number]
        turn, which = divmod(int(order[step % len(order)]), len(chord))
        if rng.random() >= rest:
            degree = int(chord[which])
            _add(out, voice.note(song.hz(degree, octave + turn), length, rng.uniform(0.5, 1)), at)
    return out


def _chords(rng: np.random.Generator, song: _Song) -> Samples:
    """Struck chords in a rhythm that repeats: piano, guitar, stabs."""
    octave, per_beat = int(rng.integers(2, 4)), float(rng.choice((0.5, 1, 2)))
    struck = rng.random(8) < rng.uniform(0.3, 1)
    struck[0] = True
    length, strum = int(rng.uniform(0.1, 1.2) * RATE), int(rng.uniform(0, 0.04) * RATE)
    voice = _Voice(rng, song, octave + 1)
    out = np.zeros(song.frames, np.float32)
    for step, (at, number) in enumerate(song.beats(per_beat)):
        if struck[step % 8]:
            for row, degree in enumerate(song.chords[number][:4]):
                note = voice.note(song.hz(int(degree), octave), length, rng.uniform(0.6, 1))
                _add(out, note, at + row * strum)
    return out


def _bass(rng: np.random.Generator, song: _Song) -> Samples:
    octave, per_beat = int(rng.integers(0, 2)), float(rng.choice((0.5, 1, 1, 2)))
    voice, walk = _Voice(rng, song, octave + 1), rng.random() < 0.3
    length = int(min(song.beat / per_beat * rng.uniform(0.4, 1.1), _NOTE))
    out = np.zeros(song.frames, np.float32)
    for at, number in song.beats(per_beat):
        chord = song.chords[number]
        degree = int(chord[int(rng.integers(len(chord)))] if walk else chord[0])
        _add(out, voice.note(song.hz(degree, octave), length, rng.uniform(0.7, 1)), at)
    return out


def _melody(rng: np.random.Generator, song: _Song) -> Samples:
    """A walk along the scale, in notes of different lengths, with or without vibrato."""
    octave, degree = int(rng.integers(2, 4)), int(rng.integers(0, 7))
    vibrato = (rng.uniform(4, 7), rng.uniform(0.002, 0.02)) if rng.random() < 0.5 else None
    voice = _Voice(rng, song, octave + 2)
    out = np.zeros(song.frames, np.float32)
    at = song.start
    while at < song.frames:
        beats = float(rng.choice((0.25, 0.5, 0.5, 1, 1, 1.5, 2, 4)))
        if rng.random() > 0.15:
            length = int(beats * song.beat * rng.uniform(0.6, 1.1))
            note = voice.note(song.hz(degree, octave), length, rng.uniform(0.5, 1), vibrato)
            _add(out, note, int(at))
        degree = int(np.clip(degree + rng.choice((-3, -2, -1, -1, 0, 1, 1, 2, 3)), -2, 10))
        at += beats * song.beat
    return out


def _drums(rng: np.random.Generator, song: _Song) -> Samples:
    """A pattern of 16 steps for three to five drums, from kicks to hats."""
    out = np.zeros(song.frames, np.float32)
    grid = song.beats(4)
    places = (range(0, 16, 8), range(4, 16, 8), range(0, 16, int(rng.choice((1, 2, 4)))))
    for number in range(int(rng.integers(2, 6))):
        on = rng.random(16) < rng.uniform(0, 0.3)
        kind = number if number < 3 else int(rng.integers(3))
        on[list(places[kind])] |= number < 3
        hit, gain = _drum(rng, kind), rng.uniform(0.2, 1)
        for step, (at, _) in enumerate(grid):
            if on[step % 16]:
                _add(out, hit * np.float32(gain * rng.uniform(0.6, 1)), at)
    return out


def _drum(rng: np.random.Generator, kind: int) -> Samples:
    """0: a skin whose pitch falls; 1: skin and wires; 2: metal or grains."""
    length = int(rng.uniform(*((0.15, 0.5), (0.1, 0.35), (0.03, 0.3))[kind]) * RATE)
    t = np.arange(length, dtype=np.float32) / RATE
    decay = np.exp(-t * np.float32(rng.uniform(5, 9) * RATE / length))
    low = rng.uniform(40, 90) if kind == 0 else rng.uniform(120, 320)
    sweep = low * rng.uniform(0.01, 0.08) * (1 - np.exp(-t * 50))
    skin = np.sin(2 * np.pi * (low * t + sweep)) * decay
    hiss = _white(rng, length)
    if kind == 2 or rng.random() < 0.3:
        hiss[1:] -= hiss[:-1] * np.float32(rng.uniform(0.5, 1))
    hiss *= decay ** np.float32(rng.uniform(0.7, 2))
    mix = (rng.uniform(0, 0.08), rng.uniform(0.3, 0.8), 1.0)[kind]
    return np.asarray(skin * (1 - mix) + hiss * mix, np.float32)


class _Voice:
    """A sampled instrument with an envelope; notes only go down from its root, so none alias."""

    def __init__(self, rng: np.random.Generator, song: _Song, octave: int) -> None:
        octave = 2 if octave <= 2 else 4  # two are enough to keep
        self._sample = _instrument(int(rng.integers(_INSTRUMENTS)), octave)
        self._root_hz = _root_hz(octave)
        self._attack = int(10 ** rng.uniform(-3, -1) * RATE)
        self._release = int(10 ** rng.uniform(-2, -0.5) * RATE)
        self._played: dict[tuple[float, int], Samples] = {}

    def note(
        self, hz: float, length: int, gain: float, vibrato: tuple[float, float] | None = None
    ) -> Samples:
        """Of about `length` and its release; `vibrato` is in Hz and a share of the pitch."""
        key = (hz, length)
        if vibrato is not None or key not in self._played:
            self._played[key] = self._render(hz, length, vibrato)
        return self._played[key] * np.float32(gain)

    def _render(self, hz: float, length: int, vibrato: tuple[float, float] | None) -> Samples:
        ratio = hz / self._root_hz
        while ratio > 1:
            ratio /= 2
        length = min(length + self._release, int((_NOTE - 40) / (ratio * 1.001)))
        place = np.arange(length, dtype=np.float32) * np.float32(ratio)
        if vibrato is not None:
            turn = 2 * np.pi * vibrato[0] / RATE
            sway = np.sin(np.arange(length, dtype=np.float32) * np.float32(turn))
            place = np.clip(place + sway * np.float32(ratio * vibrato[1] / turn), 0, _NOTE - 2)
        whole = place.astype(np.int32)
        place -= whole
        note = self._sample[whole]
        note += (self._sample[whole + 1] - note) * place
        attack, release = min(self._attack, length // 2), min(self._release, length // 2)
        note[:attack] *= np.arange(attack, dtype=np.float32) / np.float32(attack)
        note[length - release :] *= np.arange(release, 0, -1, dtype=np.float32) / release
        return note


def _root_hz(octave: int) -> float:
    return float(55 * 2**octave * 1.5)


@cache
def _instrument(number: int, octave: int) -> Samples:
    """(_NOTE,) one note: plucked, bell-like, piano-like, bowed or blown, or FM."""
    rng = np.random.default_rng([2417, number])  # whatever was played before
    root = _root_hz(octave)
    t = np.arange(_NOTE, dtype=np.float32) / RATE
    kind = number % 5
    if kind == 4:  # J. Chowning 1973
        depth = rng.uniform(0.5, 6) * np.exp(-t * np.float32(rng.uniform(0, 8)))
        ratio = float(rng.choice((0.5, 1, 1, 2, 3, 1.41, 3.5, 7)))
        depth = np.minimum(depth, max(0.0, 0.5 * (_TOP_HZ / root - 1) / ratio))
        turn = np.float32(2 * np.pi * root) * t
        tone = np.sin(turn + depth * np.sin(turn * np.float32(ratio)))
        return _unit(tone * np.exp(-t * np.float32(rng.choice((0.3, 1, 3, 6)))))
    k = np.arange(1.0, 1 + int(rng.integers(5, 24)))
    slope, position = rng.uniform(0.5, 2), rng.uniform(0.05, 0.5)
    levels = k**-slope * 10 ** (rng.normal(0, 4, len(k)) / 20)
    decay, stretch = rng.uniform(1, 6) + rng.uniform(0, 2) * (k - 1), 0.0
    if kind == 0:
        levels *= np.abs(np.sin(np.pi * k * position)) + 0.05
    elif kind == 1:
        k = np.sort(np.append(1.0, rng.uniform(0.5, 12, len(k) - 1)))
    elif kind == 2:
        stretch = 10 ** rng.uniform(-4, -2.5)
    else:
        decay *= rng.uniform(0, 0.1)
        levels *= np.where(np.arange(len(k)) % 2, rng.uniform(0, 1), 1)
    hz = root * k * np.sqrt(1 + stretch * k**2) * np.exp(rng.normal(0, 0.0005, len(k)))
    tone = np.zeros(_NOTE, np.float32)
    for f, level, fall in zip(hz, levels, decay, strict=True):
        if f < _TOP_HZ:
            wave = np.sin(np.float32(2 * np.pi * f) * t + np.float32(rng.uniform(0, 2 * np.pi)))
            tone += np.float32(level) * wave * np.exp(-t * np.float32(fall))
    breath = rng.uniform(0, 0.05) * (1 if kind == 3 else np.exp(-t * 60))
    return _unit(_unit(tone) + _white(rng, _NOTE) * np.asarray(breath, np.float32))


def _reverberated(rng: np.random.Generator, samples: Samples) -> Samples:
    """A hall: noise that decays within .25 to 1.6 s."""
    length = int(RATE * 10 ** rng.uniform(-0.6, 0.2))
    t = np.arange(length, dtype=np.float32) / length
    tail = _white(rng, length) * np.exp(-6.9 * t)
    tail[1:] += tail[:-1] * np.float32(rng.uniform(0, 0.9))
    wet = _level(_convolved(samples, tail))
    return np.asarray(samples + wet * np.float32(_rms(samples) * rng.uniform(0.1, 0.8)), np.float32)


def _compressed(rng: np.random.Generator, samples: Samples) -> Samples:
    """More even by 30 to 80 % of the level in dB; then often a soft limit."""
    count = len(samples) // _STEP + 2
    power = np.zeros(count)
    blocks = len(samples) // _STEP
    power[:blocks] = np.square(samples[: blocks * _STEP]).reshape(blocks, _STEP).mean(axis=1)
    power[blocks:] = power[blocks - 1]
    width = int(rng.integers(3, 30))
    level = np.convolve(np.pad(power, width, "edge"), np.ones(width) / width, "same")[width:-width]
    gain = (level + 1e-3 * level.max() + 1e-12) ** (-0.5 * rng.uniform(0.3, 0.8))
    out = _level(samples * _ramped(gain, len(samples)))
    if rng.random() < 0.5:
        out = np.tanh(out * np.float32(rng.uniform(0.2, 1.2)))
    return np.asarray(out, np.float32)


# What both are made of


@cache
def _pool() -> Samples:
    """Gaussian noise: to draw from it costs a fifth of drawing anew."""
    return np.random.default_rng(20719).standard_normal(2 * _POOL, np.float32)


def _white(rng: np.random.Generator, frames: int) -> Samples:
    """(frames,) of the pool from anywhere in it; again and again if longer."""
    pool = _pool()
    start = int(rng.integers(len(pool) - min(frames, len(pool)) + 1))
    return np.array(np.resize(pool[start:], frames) if frames > len(pool) - start
                    else pool[start : start + frames])  # fmt: skip


def _random_spectra(rng: np.random.Generator, count: int) -> NDArray[np.complex64]:
    return _white(rng, 2 * count).view(np.complex64)


def _cycle(rng: np.random.Generator, partials: int, slope: float) -> Samples:
    """One period of a tone, RMS 1: partials fall by `slope` (1: 6 dB an octave), at random."""
    partials = max(1, partials)
    spectrum = np.zeros(_CYCLE // 2 + 1, np.complex64)
    levels = np.arange(1, partials + 1.0) ** -slope * 10 ** (rng.normal(0, 5, partials) / 20)
    spectrum[1 : partials + 1] = levels * np.exp(2j * np.pi * rng.random(partials))
    return _level(np.asarray(scipy.fft.irfft(spectrum), np.float32))


def _played(cycle: Samples, hz: Curve) -> Samples:
    place = np.cumsum(hz * (_CYCLE / RATE)).astype(np.int64)
    return np.asarray(cycle[place & (_CYCLE - 1)], np.float32)


def _wandering(rng: np.random.Generator, frames: int, hz: float) -> Curve:
    """(frames,) around a pitch, within half an octave; often hardly moving."""
    count = frames // _STEP + 2
    points = 3 + int(count / 100 * 10 ** rng.uniform(-0.5, 0.8))
    bend = rng.normal(0, 10 ** rng.uniform(-3, -0.7), points)
    curve = np.interp(np.linspace(0, points - 1, count), np.arange(points), bend)
    return np.asarray(np.repeat(hz * 2 ** np.clip(curve, -0.5, 0.5), _STEP)[:frames])


def _ramped(values: Curve, frames: int) -> Samples:
    """Control values, one each 10 ms, to (frames,) with straight lines between."""
    v = values.astype(np.float32)
    ramp = np.arange(_STEP, dtype=np.float32) / _STEP
    lines = v[:-1, None] + (v[1:] - v[:-1])[:, None] * ramp
    return np.asarray(lines.reshape(-1)[:frames], np.float32)


def _convolved(samples: Samples, filter: Samples) -> Samples:
    size = scipy.fft.next_fast_len(len(samples) + len(filter) - 1, real=True)
    product = scipy.fft.rfft(samples, size) * scipy.fft.rfft(filter, size)
    return np.asarray(scipy.fft.irfft(product, size, overwrite_x=True)[: len(samples)], np.float32)


def _add(out: Samples, part: Samples, at: int) -> None:
    """Add what of the part falls inside."""
    first, last = max(at, 0), min(at + len(part), len(out))
    if first < last:
        out[first:last] += part[first - at : last - at]


def _rms(samples: Samples) -> float:
    return float(np.sqrt(np.dot(samples, samples) / max(1, len(samples))))


def _level(samples: Samples) -> Samples:
    """At RMS 1; silence stays silent."""
    return np.asarray(samples * np.float32(1 / max(_rms(samples), 1e-9)), np.float32)


def _unit(samples: NDArray[np.floating]) -> Samples:
    return np.asarray(samples / max(float(np.abs(samples).max(initial=0)), 1e-9), np.float32)
