"""A diarized recording -> a stem per speaker, which sum with the background to it exactly.

Where one person talks, their stem is the recording, bit for bit, and no engine is asked. Where
several do, a window around the overlap goes through a talker separator. Its outputs come in no
order: they are given to the speakers by who the turns say is heard when, by the voice each speaker
has elsewhere in the recording, and by the window before. Memory: a few windows.
"""

from __future__ import annotations

import io
import tempfile
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from podtool.artifacts import Metric, Turn
from podtool.audio import Audio, AudioSource
from podtool.dsp import ramp
from podtool.errors import EngineFailure, EngineUnavailableError, InputError, PodtoolError
from podtool.progress import OnProgress, Progress, ignore
from podtool.resample import resample, to_mono
from podtool.stages.assignment import assign, loud_parts
from podtool.stages.overlaps import Plan, Window, between, regions, windows
from podtool.stages.wideband import power_shares, widen

if TYPE_CHECKING:
    from podtool.engines.protocols import EmbeddingEngine, TalkerEngine

BLOCK_S = 10.0
Samples = NDArray[np.float32]

_SEAM_S = 0.25  # half the crossfade between windows that share an overlap
_REFERENCE_S = 30.0  # of a speaker alone make their voice


@dataclass(frozen=True, slots=True)
class TalkersParams:
    """Settings of the stage."""

    engine: str = field(default="auto", metadata={"help": "Talker separation engine."})
    context_s: float = field(
        default=1.0, metadata={"help": "Audio heard on both sides of an overlap, in seconds."}
    )
    window_s: float = field(
        default=12.0, metadata={"help": "Longest window separated at once, in seconds."}
    )
    crossfade_ms: float = field(
        default=15.0, metadata={"help": "Fade from one voice to several, inside the overlap."}
    )
    shortest_s: float = field(
        default=0.1, metadata={"help": "Overlaps shorter than this are nobody else's."}
    )
    rest: Literal["background", "talkers"] = field(
        default="talkers",
        metadata={"help": "Whose is what is left of an overlap: background, or talkers."},
    )


@dataclass(frozen=True, slots=True)
class TalkerBlock:
    """Consecutive frames: the mixture, each speaker's stem, and what they leave of it."""

    start: int
    mixture: Audio
    stems: dict[str, Audio]
    background: Audio


@dataclass(slots=True)
class TalkerSummary:
    """What is said about a run, from its blocks."""

    energy: dict[str, float] = field(default_factory=dict)
    background: float = 0.0
    sum_error: float = 0.0

    def add(self, block: TalkerBlock) -> None:
        """Count a block; the sum error is that to the mixture, summed in float32 as readers do."""
        total = block.background.samples
        for label, stem in block.stems.items():
            self.energy[label] = self.energy.get(label, 0.0) + _energy(stem.samples)
            total = total + stem.samples
        self.background += _energy(block.background.samples)
        error = float(np.abs(total - block.mixture.samples).max(initial=0.0))
        self.sum_error = max(self.sum_error, error)

    def metrics(self) -> list[Metric]:
        """Each stem's share of the energy of all, and the sum error."""
        whole = sum(self.energy.values()) + self.background
        shares = {f"speaker:{k}": v for k, v in self.energy.items()}
        shares["background"] = self.background
        told = [
            Metric("energy_share", round(v / whole, 6) if whole else 0.0, "share", k)
            for k, v in shares.items()
        ]
        return [*told, Metric("stems_sum_error", self.sum_error, "samples")]


def _energy(samples: Samples) -> float:
    return float(np.sum(np.square(samples, dtype=np.float64)))


def talkers(
    audio: AudioSource,
    turns: Sequence[Turn],
    engine: TalkerEngine | None,
    embedding: EmbeddingEngine | None = None,
    params: TalkersParams | None = None,
    mixture: AudioSource | None = None,
    on_progress: OnProgress = ignore,
) -> Iterator[TalkerBlock]:
    """Blocks of stems, consecutive, `audio.frames` in all, a stem for each label of the turns.

    `audio` is the recording or its speech stem, `mixture` the recording where that is another: the
    background is what the stems leave of it. Without overlaps no engine is needed. Raises
    EngineUnavailableError for overlaps without one, EngineFailure, and InputError where mixture
    and audio do not belong together.
    """
    params = params or TalkersParams()
    mixture = mixture or audio
    shape = (audio.frames, audio.sample_rate, audio.channels)
    if shape != (mixture.frames, mixture.sample_rate, mixture.channels):
        raise InputError("the speech stem is not of this recording", "Separate it again.")
    rate = audio.sample_rate
    labels = sorted({t.speaker for t in turns})
    plan = Plan(regions(turns, audio.frames, rate, params), rate, params)
    for start, stop, found in _chunks(audio, plan, engine, embedding, params):
        heard = audio.read(start, stop).samples
        stems = np.zeros((len(labels), *heard.shape), np.float32)
        for k, label in enumerate(labels):
            stems[k] = plan.stem(label, heard, start, found.get(label))
        whole = heard if mixture is audio else mixture.read(start, stop).samples
        stems, background = _settle(whole, stems)
        yield TalkerBlock(
            start,
            Audio(whole, rate),
            {label: Audio(stem, rate) for label, stem in zip(labels, stems, strict=True)},
            Audio(background, rate),
        )
        on_progress(Progress("talkers", stop / rate, audio.frames / rate))


def speaker_streams(
    audio: AudioSource,
    turns: Sequence[Turn],
    engine: TalkerEngine,
    embedding: EmbeddingEngine | None = None,
    params: TalkersParams | None = None,
    on_progress: OnProgress = ignore,
    silences: bool = False,
) -> dict[str, AudioSource]:
    """The stems of `talkers` without its background, for those who are ever talked over.

    Only the overlaps are worked out here, and kept in an unnamed temporary file; everything else
    is read from `audio` when it is asked for. With `silences` the input stays where nobody talks.
    Raises EngineFailure.
    """
    params = params or TalkersParams()
    rate = audio.sample_rate
    plan = Plan(regions(turns, audio.frames, rate, params), rate, params, silences)
    kept = _Kept(audio.channels)
    for start, stop, found in _answers(audio, plan, engine, embedding, params):
        kept.add(start, stop, found)
        on_progress(Progress("talkers", stop / rate, audio.frames / rate))
    return {label: SpeakerStream(audio, plan, kept, label) for label in kept.labels}


class SpeakerStream:
    """One speaker's stem, put together when it is read; an AudioSource."""

    def __init__(self, audio: AudioSource, plan: Plan, kept: _Kept, label: str) -> None:
        self._audio, self._plan, self._kept, self._label = audio, plan, kept, label
        self.sample_rate, self.channels, self.frames = (
            audio.sample_rate,
            audio.channels,
            audio.frames,
        )

    def read(self, start: int = 0, stop: int | None = None) -> Audio:
        start = min(max(0, start), self.frames)
        stop = self.frames if stop is None else min(max(stop, start), self.frames)
        heard = self._audio.read(start, stop).samples
        found = self._kept.read(self._label, start, stop)
        return Audio(self._plan.stem(self._label, heard, start, found), self.sample_rate)


class _Kept:
    """Estimates by label and frame, in a temporary file."""

    def __init__(self, channels: int) -> None:
        self._file = tempfile.TemporaryFile(prefix="podtool-")  # noqa: SIM115 - lives with it
        self._channels = channels
        self._places: dict[str, list[tuple[int, int, int]]] = {}

    @property
    def labels(self) -> list[str]:
        return sorted(self._places)

    def add(self, start: int, stop: int, found: Mapping[str, Samples]) -> None:
        for label, samples in found.items():
            offset = self._file.seek(0, io.SEEK_END)
            self._file.write(np.ascontiguousarray(samples.T, np.float32).tobytes())
            self._places.setdefault(label, []).append((start, stop, offset))

    def read(self, label: str, start: int, stop: int) -> Samples:
        """(channels, stop - start), zero where nothing is kept."""
        out = np.zeros((self._channels, stop - start), np.float32)
        places = self._places[label]
        first = bisect_right(places, start, key=lambda p: p[1])
        for a, b, offset in places[first:]:
            if a >= stop:
                break
            low, high = max(a, start), min(b, stop)
            self._file.seek(offset + 4 * self._channels * (low - a))
            raw = self._file.read(4 * self._channels * (high - low))
            samples = np.frombuffer(raw, np.float32).reshape(-1, self._channels).T
            out[:, low - start : high - start] = samples
        return out


def _settle(mixture: Samples, stems: Samples) -> tuple[Samples, Samples]:
    """(stems, background) that sum to the mixture to the bit, as `separate.split` does for two.

    Beyond +-2 float32 cannot hold the grid: where that breaks the sum, all is the loudest stem's.
    """
    total = stems.sum(axis=0, dtype=np.float32)
    background = (mixture - total).astype(np.float32)
    largest = np.maximum(np.abs(background), np.abs(stems).sum(axis=0))
    broken = (largest >= 2) & ((total + background) != mixture)
    if broken.any():
        loudest = np.abs(stems).argmax(axis=0)
        mine = np.arange(len(stems))[:, None, None] == loudest
        stems = np.where(broken, np.where(mine, mixture, np.float32(0)), stems)
        background = np.where(broken, np.float32(0), background)
    return stems, background


# ---------------------------------------------------------------- asking the engine


@dataclass(frozen=True, slots=True)
class _Answer:
    """What each speaker of a window got: at the engine's rate, and as the recording is."""

    window: Window
    narrow: dict[str, Samples]
    wide: dict[str, Samples]


def _answers(
    audio: AudioSource,
    plan: Plan,
    engine: TalkerEngine | None,
    embedding: EmbeddingEngine | None,
    params: TalkersParams,
) -> Iterator[tuple[int, int, dict[str, Samples]]]:
    """(start, stop, label -> (channels, n)) over every overlap, in order, seams crossfaded."""
    if not plan.overlapped:
        return
    if engine is None:
        raise EngineUnavailableError("no engine here tells people apart who talk at once")
    rate, own_rate = audio.sample_rate, engine.info.sample_rate
    todo = windows(plan.regions, rate, own_rate, engine.max_talkers, params)
    voices = _voices(audio, plan, embedding, sorted({s for w in todo for s in w.who}))
    seam = round(_SEAM_S * rate)
    old: _Answer | None = None
    lead = 0  # frames before `first` that the window before has left to a crossfade
    for window, following in zip(todo, [*todo[1:], None], strict=True):
        new = _ask(audio, plan, window, engine, embedding, voices, old, params)
        tail = 0
        if following is not None and following.first == window.last:
            room = min(window.stop - window.last, window.last - window.first)
            ahead = min(following.first - following.start, following.last - following.first)
            tail = min(seam, room // 2, ahead // 2)
        first, last = window.first - lead, window.last - tail
        found = {k: v[:, first - window.start : last - window.start] for k, v in new.wide.items()}
        if lead and old is not None:
            found = _blended(old, found, first, 2 * lead)
        yield first, last, found
        old, lead = new, tail


def _blended(
    old: _Answer, found: Mapping[str, Samples], at: int, frames: int
) -> dict[str, Samples]:
    """From the older answer into the newer one over the first frames."""
    up = ramp(frames).astype(np.float32)
    start = at - old.window.start
    result = {}
    for label in {**found, **old.wide}:
        example = next(iter(found.values()))
        new = found.get(label, np.zeros_like(example)).copy()
        new[:, :frames] *= up
        if label in old.wide:
            new[:, :frames] += old.wide[label][:, start : start + frames] * up[::-1]
        result[label] = new
    return result


def _ask(
    audio: AudioSource,
    plan: Plan,
    window: Window,
    engine: TalkerEngine,
    embedding: EmbeddingEngine | None,
    voices: Mapping[str, NDArray[np.float32]],
    old: _Answer | None,
    params: TalkersParams,
) -> _Answer:
    rate, own_rate = audio.sample_rate, engine.info.sample_rate
    piece = audio.read(window.start, window.stop)
    heard = resample(to_mono(piece), own_rate)
    if not heard.samples.any():
        silent = np.zeros_like(piece.samples)
        return _Answer(window, {}, {label: silent for label in window.who})
    outputs = _run(engine, heard, len(window.who))
    near = between(plan.regions, window.start, window.stop)
    local = [
        (max(0, r.start - window.start) / rate, (r.stop - window.start) / rate, r.who) for r in near
    ]
    before = None
    if old is not None and old.window.stop > window.start:
        ago = (window.start - old.window.start) * own_rate // rate
        before = {label: samples[ago:] for label, samples in old.narrow.items()}
    order = assign(outputs, own_rate, local, window.who, voices, embedding, before)
    outputs = outputs[order]
    wide = plan.only_own(window, widen(piece, outputs, own_rate))
    if params.rest == "talkers":
        wide = _with_rest(piece.samples, wide, rate)
    return _Answer(
        window,
        dict(zip(window.who, outputs, strict=True)),
        dict(zip(window.who, wide, strict=True)),
    )


def _with_rest(piece: Samples, wide: Samples, rate: int) -> Samples:
    """(speakers, channels, n) that sum to the piece: what they leave is shared by power."""
    rest = piece - wide.sum(axis=0)
    share = power_shares(wide.mean(axis=1), rate)
    return np.asarray(wide + share[:, None, :] * rest, np.float32)


def _run(engine: TalkerEngine, audio: Audio, count: int) -> Samples:
    name = engine.info.name
    try:
        outputs = engine.talkers(audio, count)
    except PodtoolError:
        raise
    except Exception as error:
        raise EngineFailure(f"the talker engine {name} failed: {error}") from error
    if outputs.shape != (count, audio.frames):
        raise EngineFailure(
            f"the talker engine {name} gave {outputs.shape} for {count} people "
            f"in {audio.frames} samples"
        )
    if not np.isfinite(outputs).all():
        raise EngineFailure(f"the talker engine {name} gave NaN")
    return outputs


def _chunks(
    audio: AudioSource,
    plan: Plan,
    engine: TalkerEngine | None,
    embedding: EmbeddingEngine | None,
    params: TalkersParams,
) -> Iterator[tuple[int, int, dict[str, Samples]]]:
    """(start, stop, estimates) over the whole recording: overlaps, and blocks between them."""
    size = round(BLOCK_S * audio.sample_rate)
    at = 0
    for start, stop, found in _answers(audio, plan, engine, embedding, params):
        for a in range(at, start, size):
            yield a, min(a + size, start), {}
        yield start, stop, found
        at = stop
    for a in range(at, audio.frames, size):
        yield a, min(a + size, audio.frames), {}


def _voices(
    audio: AudioSource, plan: Plan, embedding: EmbeddingEngine | None, labels: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    """The embedding of each speaker from where they talk alone, the longest stretches first."""
    found: dict[str, NDArray[np.float32]] = {}
    if embedding is None:
        return found
    rate = audio.sample_rate
    for label in labels:
        alone = [r for r in plan.regions if r.who == (label,) and r.stop - r.start >= rate]
        pieces, left = [], _REFERENCE_S
        for region in sorted(alone, key=lambda r: (r.start - r.stop, r.start)):
            stop = min(region.stop, region.start + round(min(left, _REFERENCE_S / 3) * rate))
            clip = resample(to_mono(audio.read(region.start, stop)), embedding.info.sample_rate)
            pieces.append(loud_parts(clip.samples[0], clip.sample_rate))
            left -= (stop - region.start) / rate
            if left <= 0:
                break
        if pieces and any(len(p) for p in pieces):
            sound = Audio(np.concatenate(pieces)[None], embedding.info.sample_rate)
            found[label] = embedding.embed(sound)
    return found
