"""Conversion: each turn of a speaker in another voice, same length to the sample.

The map is made once from all that the speaker says, then turns are converted in pieces of bounded
length, cut at the quietest moments, on all cores; results do not depend on the number of workers.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from podtool.artifacts import Turn
from podtool.audio import Audio, AudioSource, blocks
from podtool.dsp import ramp
from podtool.engines.voice_world import VoiceMap, World
from podtool.engines.world_mapping import MappingParams
from podtool.engines.world_profile import SpeechProfile
from podtool.errors import EngineFailure, InputError
from podtool.loudness import limit
from podtool.progress import OnProgress, Progress, ignore
from podtool.resample import SpooledAudio, resample, to_mono
from podtool.segments import Span, subtract, total, union

SPOOL_S = 120.0  # longer turns are kept on disk
CHECK_S = 60.0  # takes are measured on this much of a turn
CEILING_DBTP = -0.5  # of a take
LAG_COST = 0.005  # of correlation per 5 ms: another timbre bends the contour by a frame


@dataclass(frozen=True, slots=True)
class ConvertParams:
    """Settings of conversion."""

    profile_s: float = field(
        default=90.0, metadata={"help": "seconds of the speaker that the map is fitted on"}
    )
    classes: int = field(default=8, metadata={"help": "sound classes mapped apart"})
    rounds: int = field(
        default=3, metadata={"help": "passes of matching: more is nearer the voice, less clear"}
    )
    strength: float = field(
        default=1.0,
        metadata={"help": "share of the change of timbre: 1 is the voice, 0 the source"},
    )
    block_s: float = field(default=20.0, metadata={"help": "longest piece converted at once"})
    context_s: float = field(default=0.3, metadata={"help": "sound heard on both sides of a piece"})
    join_ms: float = field(default=20.0, metadata={"help": "crossfade between pieces of a turn"})

    def mapping(self) -> MappingParams:
        """What the engine's map is fitted with. Raises InputError for settings out of range."""
        if self.classes < 1 or self.rounds < 0 or not 0 <= self.strength <= 2:
            raise InputError("classes must be 1 or more, rounds 0 or more, strength 0 to 2")
        return MappingParams(classes=self.classes, rounds=self.rounds, strength=self.strength)


@dataclass(frozen=True, slots=True)
class ConvertedTurn:
    """A turn in the new voice: mono, `frames` as the slot has; checks as a take row holds them."""

    turn: Turn
    audio: AudioSource
    checks: dict[str, float]


class Embedder(Protocol):
    """What scores takes; it is no part of the conversion."""

    def embed(self, audio: Audio) -> NDArray[np.float32]: ...


def speaker_spans(turns: Sequence[Turn], speaker: str) -> list[Span]:
    """Where a speaker talks alone: the turns less what any other speaker's turns cover."""
    own = union(Span(t.start, t.end) for t in turns if t.speaker == speaker)
    others = union(Span(t.start, t.end) for t in turns if t.speaker != speaker)
    return subtract(own, others) or own


def analyse_speaker(
    source: AudioSource,
    spans: Sequence[Span],
    engine: World,
    params: ConvertParams | None = None,
    workers: int = 0,
    on_progress: OnProgress = ignore,
) -> SpeechProfile:
    """How a speaker sounds in this recording, from about `profile_s` seconds of the spans.

    Where there is more, pieces of up to 10 s are taken evenly over the recording. Raises InputError
    where the spans hold no audio.
    """
    params = params or ConvertParams()
    pieces = _even_choice(spans, params.profile_s)
    if not pieces:
        raise InputError("there is no speech of that speaker to convert")
    rate = source.sample_rate
    done = 0.0
    clips: list[Audio] = []
    jobs = (_read(source, round(s.start * rate), round(s.end * rate)) for s in pieces)
    for clip in jobs:
        clips.append(clip if rate <= 48000 else resample(clip, 48000))
        done += clip.duration
        on_progress(Progress("analyse", done, total(pieces)))
    return engine.enrol(clips, workers=workers or _cores())


def convert(
    source: AudioSource,
    turns: Iterable[Turn],
    engine: World,
    voice: VoiceMap,
    params: ConvertParams | None = None,
    embedder: Embedder | None = None,
    target: NDArray[np.float32] | None = None,
    workers: int = 0,
    on_progress: OnProgress = ignore,
) -> Iterator[ConvertedTurn]:
    """Each turn in order, converted; `source` is the recording or its speech stem.

    Stereo is converted as its mean: the take is mono and the caller's mix keeps the balance. With
    an embedder, `target` (its embedding of the voice) gives each take's similarity. Turns outside
    the recording raise InputError; EngineFailure comes from the engine. Memory: a few pieces.
    """
    params = params or ConvertParams()
    turns = list(turns)
    whole = sum(t.end - t.start for t in turns) or 1.0
    done = 0.0
    workers = workers or _cores()
    waiting: deque[tuple[Turn, bool, Future[tuple[NDArray[np.float32], float]], int]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        pieces = ((turn, last, a, b) for turn in turns for last, a, b in _cut(source, turn, params))
        assembly: _Assembly | None = None
        try:
            exhausted = False
            while True:
                while not exhausted and len(waiting) < 2 * workers:
                    job = next(pieces, None)
                    if job is None:
                        exhausted = True
                        break
                    turn, last, a, b = job
                    audio, lead = _with_context(source, a, b, params)
                    future = pool.submit(_convert_piece, engine, voice, audio, lead, b - a)
                    waiting.append((turn, last, future, a))
                if not waiting:
                    break
                turn, last, future, a = waiting.popleft()
                if assembly is None:
                    assembly = _Assembly(source, turn, params)
                assembly.add(a, *future.result())
                if last:
                    audio_out = assembly.finish()
                    checks = _checks(source, turn, audio_out, embedder, target)
                    if assembly.left:
                        checks["left_to_source"] = round(assembly.left, 4)
                    assembly = None
                    yield ConvertedTurn(turn, audio_out, checks)
                    done += turn.end - turn.start
                    on_progress(Progress("convert", done, whole))
        finally:
            for _, _, future, _ in waiting:
                future.cancel()


def turn_frames(source: AudioSource, turn: Turn) -> tuple[int, int]:
    """Frames [start, stop) of a turn. Raises InputError where it lies outside the recording."""
    start, stop = round(turn.start * source.sample_rate), round(turn.end * source.sample_rate)
    if not 0 <= start < source.frames or stop <= start or stop > source.frames + 1:
        raise InputError(
            f"turn {turn.id} ({turn.start:.3f} to {turn.end:.3f} s) lies outside the recording "
            f"of {source.frames / source.sample_rate:.3f} s"
        )
    return start, min(stop, source.frames)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _even_choice(spans: Sequence[Span], wanted_s: float) -> list[Span]:
    """Pieces of at most 10 s, the longer spans' pieces first, spread evenly, `wanted_s` in all."""
    pieces = [
        Span(s.start + k * s.duration / n, s.start + (k + 1) * s.duration / n)
        for s in union(spans)
        for n in (max(1, int(np.ceil(s.duration / 10.0))),)
        for k in range(n)
    ]
    if total(pieces) <= wanted_s:
        return pieces
    useful = [p for p in pieces if p.duration >= 1.5] or pieces
    mean = total(useful) / len(useful)
    count = max(1, min(len(useful), int(np.ceil(wanted_s / mean))))
    return [useful[int(k)] for k in np.linspace(0, len(useful) - 1, count).round()]


def _cut(source: AudioSource, turn: Turn, params: ConvertParams) -> Iterator[tuple[bool, int, int]]:
    """(last, start, stop): consecutive pieces of a turn, cut where it is quietest."""
    start, stop = turn_frames(source, turn)
    size = max(1, round(params.block_s * source.sample_rate))
    while stop - start > size:
        count = int(np.ceil((stop - start) / size))
        even = (stop - start) // count
        low, high = start + round(0.65 * even), min(start + size, start + round(1.35 * even))
        cut = low + _quietest(_read(source, low, high))
        yield False, start, cut
        start = cut
    yield True, start, stop


def _quietest(audio: Audio) -> int:
    """The frame in the middle of the quietest 50 ms of mono audio."""
    hop = max(1, audio.sample_rate // 100)
    power = np.square(audio.samples[0].astype(np.float64))
    count = len(power) // hop
    if count < 6:
        return audio.frames // 2
    means = power[: count * hop].reshape(count, hop).mean(axis=1)
    window = np.convolve(means, np.ones(5), mode="valid")
    return int((int(window.argmin()) + 2.5) * hop)


def _read(source: AudioSource, start: int, stop: int) -> Audio:
    return to_mono(source.read(max(0, start), min(stop, source.frames)))


def _with_context(
    source: AudioSource, start: int, stop: int, params: ConvertParams
) -> tuple[Audio, int]:
    """The piece with what lies around it, and the frames of context before it."""
    margin = round(params.context_s * source.sample_rate)
    first = max(0, start - margin)
    return _read(source, first, stop + margin), start - first


def _convert_piece(
    engine: World, voice: VoiceMap, audio: Audio, lead: int, frames: int
) -> tuple[NDArray[np.float32], float]:
    """(m,) the piece and its context to the right: what the join with the next piece needs; and
    the share of its speech that the engine left to the source."""
    converted, left = engine.convert_and_tell(audio, voice)
    return converted.samples[0, lead:], left


class _Assembly:
    """Pieces of one turn joined with short crossfades; in memory or, when long, on disk."""

    def __init__(self, source: AudioSource, turn: Turn, params: ConvertParams) -> None:
        self.rate = source.sample_rate
        self.start, self.stop = turn_frames(source, turn)
        self.join = round(params.join_ms / 1000 * self.rate)
        self.tail = np.zeros(0, np.float32)
        self.parts: list[NDArray[np.float32]] = []
        self.end = 0  # frames handed over so far
        self.peak = 0.0
        self.left = 0.0  # share of the turn's speech whose timbre is the source's
        self.file = self._scratch()
        self.held: tuple[int, NDArray[np.float32]] | None = None

    def add(self, at: int, samples: NDArray[np.float32], left: float) -> None:
        """A piece that starts at frame `at` of the recording, with context behind it; `left` is the
        share of it that is the source's."""
        length = min(len(samples), self.stop - at)
        self.left += left * length / (self.stop - self.start)
        if self.held is not None:
            self._hand_over(at)
            before, piece = self.held
            behind = piece[at - before :][: self.join]
            fade = min(len(behind), len(samples))
            samples = samples.copy()
            rising = ramp(fade).astype(np.float32)
            samples[:fade] = samples[:fade] * rising + behind[:fade] * (1 - rising)
        self.held = (at, samples)

    def _hand_over(self, until: int) -> None:
        assert self.held is not None
        at, piece = self.held
        ready = np.ascontiguousarray(piece[: until - at], np.float32)
        self._store(ready)
        self.end += len(ready)
        self.peak = max(self.peak, float(np.abs(ready).max(initial=0.0)))

    def finish(self) -> AudioSource:
        """The turn, with peaks above CEILING_DBTP limited (WORLD's pulses are taller)."""
        self._hand_over(self.stop)
        if self.end != self.stop - self.start:
            raise EngineFailure(f"conversion gave {self.end} of {self.stop - self.start} frames")
        audio = self._stored()
        if self.peak <= 10 ** ((CEILING_DBTP - 0.5) / 20):
            return audio
        limited = limit((b for _, b in blocks(audio)), self.rate, 1, 1.0, CEILING_DBTP)
        self.parts, self.file = [], self._scratch()
        for block in limited:
            self._store(block.samples[0])
        return self._stored()

    def _scratch(self) -> BinaryIO | None:
        long = (self.stop - self.start) > SPOOL_S * self.rate
        return tempfile.TemporaryFile(prefix="podtool-") if long else None

    def _store(self, samples: NDArray[np.float32]) -> None:
        if self.file is not None:
            self.file.write(samples.tobytes())
        else:
            self.parts.append(samples)

    def _stored(self) -> AudioSource:
        if self.file is not None:
            self.file.flush()
            return SpooledAudio(self.file, self.rate, 1, self.end)
        return Audio(np.concatenate(self.parts)[None, :], self.rate)


def _checks(
    source: AudioSource,
    turn: Turn,
    audio: AudioSource,
    embedder: Embedder | None,
    target: NDArray[np.float32] | None,
) -> dict[str, float]:
    """Numbers on a take: drift of its first and last second, level, peak, similarity."""
    start, stop = turn_frames(source, turn)
    longest = round(CHECK_S * source.sample_rate)
    before = _read(source, start, min(stop, start + longest))
    after = audio.read(0, before.frames)
    found = {
        "length_error_frames": float(audio.frames - (stop - start)),
        "first_word_drift_ms": drift_ms(before, after, first=True),
        "last_word_drift_ms": drift_ms(before, after, first=False),
        "level_change_db": round(_level(after) - _level(before), 2),
        "peak": round(float(np.abs(after.samples).max(initial=0.0)), 4),
    }
    if embedder is not None and target is not None:
        now = float(embedder.embed(resample(after, 16000)) @ target)
        then = float(embedder.embed(resample(before, 16000)) @ target)
        found["similarity"] = round(now, 4)
        found["similarity_before"] = round(then, 4)
    return found


def _level(audio: Audio) -> float:
    power = float(np.square(audio.samples, dtype=np.float64).mean()) if audio.frames else 0.0
    return float(10 * np.log10(power + 1e-12))


def drift_ms(before: Audio, after: Audio, first: bool, seconds: float = 1.5) -> float:
    """By how many ms the later audio lags in its first (last) loud 1.5 s: the lag, in steps of
    5 ms up to 100, at which the energy contours agree best. 0 where there is no sound; a single
    step is the error of the measurement and counts as 0.
    """
    a, b = _contour(before), _contour(after)
    count = min(len(a), len(b))
    a, b = a[:count], b[:count]
    loud = np.flatnonzero(a > a.max(initial=0.0) * 1e-3)
    if len(loud) < 10:
        return 0.0
    size = round(seconds / 0.005)
    at = int(loud[0]) if first else max(0, int(loud[-1]) - size)
    a = np.log(a[at : at + size] + 1e-4 * a.max())
    b = np.log(b[at : at + size] + 1e-4 * b.max())
    best, lag = -2.0, 0
    reach = min(20, len(a) // 3)
    for k in sorted(range(-reach, reach + 1), key=abs):
        x = a[max(0, -k) : len(a) - max(0, k)]
        y = b[max(0, k) : len(b) - max(0, -k)]
        spread = float(x.std() * y.std())
        if spread <= 0:
            continue
        score = float(((x - x.mean()) * (y - y.mean())).mean() / spread) - LAG_COST * abs(k)
        if score > best:
            best, lag = score, k
    return 5.0 * lag if abs(lag) > 1 else 0.0


def _contour(audio: Audio) -> NDArray[np.float64]:
    """(n,) power every 5 ms, smoothed over 25 ms."""
    hop = max(1, audio.sample_rate // 200)
    power = np.square(audio.samples[0].astype(np.float64))
    count = len(power) // hop
    if count < 5:
        return np.zeros(0)
    means = power[: count * hop].reshape(count, hop).mean(axis=1)
    return np.asarray(np.convolve(means, np.ones(5) / 5, mode="same"))
