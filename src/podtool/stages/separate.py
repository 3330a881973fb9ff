"""Mixture -> the stems `speech` and `background`, which sum to it exactly, in bounded memory.

Speech is rounded to the grid of 2^-23 and the background is what it leaves of the mixture: both
are then exact in float32, and so is their sum, for every mixture on that grid: all PCM of up to
24 bits. A float mixture off the grid (lossy files) is met to less than half a step of it, 2^-24
(-144 dBFS): no two float32 numbers of a size sum to every smaller one.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from podtool.audio import Audio, AudioSource, blocks
from podtool.dsp import overlap_add, window_starts
from podtool.engines.protocols import SeparationEngine
from podtool.errors import EngineFailure, PodtoolError
from podtool.progress import OnProgress, Progress, ignore
from podtool.resample import at_rate, resample
from podtool.segments import Span, dilate

if TYPE_CHECKING:
    from podtool.engines.vad_silero import SileroVad

GRID = np.float32(2.0**23)
STEMS = ("speech", "background")
Samples = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SeparateParams:
    """Settings of the stage."""

    engine: str = field(default="auto", metadata={"help": "Separation engine."})
    model: str | None = field(
        default=None,
        metadata={"help": "Its weights: an id of `podtool models`, a folder, or a hub repository."},
    )
    overlap_s: float = field(
        default=2.0, metadata={"help": "Crossfade between the windows an engine sees."}
    )
    speech_pad_s: float = field(
        default=0.12, metadata={"help": "How much detected speech is widened on both sides."}
    )


@dataclass(frozen=True, slots=True)
class StemBlock:
    """Consecutive frames of the mixture and its stems, `start` in frames."""

    start: int
    mixture: Audio
    speech: Audio
    background: Audio


def separate(
    source: AudioSource,
    engine: SeparationEngine,
    speech_spans: Sequence[Span] | None = None,
    params: SeparateParams | None = None,
    on_progress: OnProgress = ignore,
    workers: int = 2,
) -> Iterator[StemBlock]:
    """Blocks of stems, consecutive, `source.frames` in all.

    `speech_spans`: where somebody speaks, in seconds (None: not known); outside of them the
    speech stem of an engine that listens to it is silent. The windows lie on a grid of the
    recording, so that results do not depend on how it is read. Raises EngineFailure where the
    engine fails or breaks its contract.
    """
    params = params or SeparateParams()
    rate, frames = source.sample_rate, source.frames
    if frames == 0:
        return
    window, hop = _window(engine, params, rate, frames)
    if speech_spans is not None:
        whole = Span(0.0, frames / rate)
        speech_spans = dilate(speech_spans, params.speech_pad_s, whole)

    def job(start: int) -> Callable[[], Samples]:
        piece = source.read(start, min(start + window, frames))
        return lambda: _estimate(engine, piece, start / rate, speech_spans)

    estimates = _in_order((job(s) for s in window_starts(frames, window, hop)), workers)
    at = 0
    for estimate in overlap_add(estimates, frames, window, hop):
        stop = at + estimate.shape[1]
        mixture = source.read(at, stop).samples
        speech, background = split(mixture, estimate)
        yield StemBlock(at, Audio(mixture, rate), Audio(speech, rate), Audio(background, rate))
        at = stop
        on_progress(Progress("separate", at / rate, frames / rate))


def find_speech(
    source: AudioSource, vad: SileroVad, on_progress: OnProgress = ignore
) -> list[Span]:
    """Where somebody speaks, in seconds, by a VAD that goes through the recording once."""
    heard = at_rate(source, vad.info.sample_rate)
    state, found = None, [np.zeros(0, np.float32)]
    for start, block in blocks(heard, 512 * 512 / vad.info.sample_rate):
        values, state = vad.probabilities(block.samples[0], state)
        found.append(values)
        on_progress(Progress("vad", start / heard.sample_rate, heard.frames / heard.sample_rate))
    end = heard.frames / heard.sample_rate
    spans = vad.spans(np.concatenate(found))
    return [Span(s.start, min(s.end, end)) for s in spans if s.start < end]


def on_grid(samples: Samples) -> Samples:
    """Samples rounded to multiples of 2^-23: unchanged for PCM of up to 24 bits."""
    rounded = np.rint(samples.astype(np.float64) * 2.0**23) / 2.0**23
    return rounded.astype(np.float32)


def split(mixture: Samples, estimate: Samples) -> tuple[Samples, Samples]:
    """(speech, background): to the bit, speech + background == a mixture on the grid.

    Beyond +-2 float32 cannot hold the grid: where that breaks the sum, all of the sample is
    speech. A mixture off the grid is met to a rounding error, and exactly where nobody speaks.
    """
    speech = on_grid(estimate)
    background = (mixture - speech).astype(np.float32)
    beyond = np.maximum(np.abs(mixture), np.abs(background)) >= 2
    broken = beyond & ((speech + background) != mixture)
    if broken.any():
        speech = np.where(broken, mixture, speech)
        background = np.where(broken, np.float32(0), background)
    return speech, background


def _window(
    engine: SeparationEngine, params: SeparateParams, rate: int, frames: int
) -> tuple[int, int]:
    if engine.info.window_s is None:
        return frames, frames
    window = min(frames, max(2, round(engine.info.window_s * rate)))
    shared = min(round(params.overlap_s * rate), window // 2)
    return window, window - shared


def _estimate(
    engine: SeparationEngine, piece: Audio, offset_s: float, spans: Sequence[Span] | None
) -> Samples:
    """The speech in one window, at the mixture's rate and channels."""
    local = None
    if spans is not None:
        end = offset_s + piece.duration
        local = [Span(a - offset_s, b - offset_s) for a, b in spans if b > offset_s and a < end]
        if not local:
            return np.zeros_like(piece.samples)
    info = engine.info
    seen = resample(piece, info.sample_rate or piece.sample_rate)
    groups = [seen.samples[c] for c in _channel_groups(piece.channels, info.channels)]
    voices = [_run(engine, Audio(g, seen.sample_rate), local) for g in groups]
    voice = np.concatenate(voices, axis=0)[: piece.channels]
    back = resample(Audio(np.ascontiguousarray(voice), seen.sample_rate), piece.sample_rate)
    samples = back.samples
    if samples.shape[1] < piece.frames:
        samples = np.pad(samples, ((0, 0), (0, piece.frames - samples.shape[1])))
    return samples[:, : piece.frames]


def _channel_groups(channels: int, wanted: int) -> list[list[int]]:
    """Which channels go into the engine together; the last one is repeated to fill a group."""
    size = wanted or channels
    return [
        [min(c, channels - 1) for c in range(first, first + size)]
        for first in range(0, channels, size)
    ]


def _run(engine: SeparationEngine, audio: Audio, spans: Sequence[Span] | None) -> Samples:
    try:
        if "speech" in inspect.signature(engine.separate).parameters:
            stems = engine.separate(audio, speech=spans)  # type: ignore[call-arg]
        else:
            stems = engine.separate(audio)
    except PodtoolError:
        raise
    except Exception as error:
        raise EngineFailure(f"the separation engine {engine.info.name} failed: {error}") from error
    voice = stems.get("speech")
    if voice is None or voice.samples.shape != audio.samples.shape:
        raise EngineFailure(
            f"the separation engine {engine.info.name} gave no `speech` stem of its input's shape"
        )
    if not np.isfinite(voice.samples).all():
        raise EngineFailure(f"the separation engine {engine.info.name} gave NaN")
    return voice.samples


def _in_order(jobs: Iterator[Callable[[], Samples]], workers: int) -> Iterator[Samples]:
    """Results of jobs in order, `workers` at a time and no more ahead than that."""
    if workers <= 1:
        for job in jobs:
            yield job()
        return
    waiting: deque[Future[Samples]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for job in jobs:
            waiting.append(pool.submit(job))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@dataclass(slots=True)
class StemSummary:
    """What `separate` says about a run, from its blocks."""

    frames: int = 0
    mixture_energy: float = 0.0
    speech_energy: float = 0.0
    background_energy: float = 0.0
    sum_error: float = 0.0

    def add(self, block: StemBlock) -> None:
        """Count a block; the sum error is that to the source, summed in float32 as readers do."""
        self.frames += block.mixture.frames
        self.mixture_energy += _energy(block.mixture.samples)
        self.speech_energy += _energy(block.speech.samples)
        self.background_energy += _energy(block.background.samples)
        total = block.speech.samples + block.background.samples
        error = float(np.abs(total - block.mixture.samples).max(initial=0.0))
        self.sum_error = max(self.sum_error, error)

    @property
    def speech_share(self) -> float:
        """Energy of the speech stem over that of both stems, 0 to 1."""
        both = self.speech_energy + self.background_energy
        return self.speech_energy / both if both else 0.0


def _energy(samples: Samples) -> float:
    return float(np.sum(np.square(samples, dtype=np.float64)))
